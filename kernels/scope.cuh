// Scope of a rollout: which of its tokens the policy wrote and the loss sees. A span where it has no holes, bits where it has (src/backend/cpu/scope.rs).
#ifndef PASSRL_SCOPE_CUH
#define PASSRL_SCOPE_CUH
#include "block.cuh"
#include "views.cuh"

struct Scope {
    // First in-scope token, one past the last, and how many there are.
    i64 first, end, count;
    // Bit t % 32 of word t / 32; read only where the scope has holes.
    const u32* bits;
};

INLINE Scope span_scope(i64 first, i64 end) { return first < end ? Scope{first, end, end - first, 0} : Scope{0, 0, 0, 0}; }
INLINE bool has_holes(const Scope& s) { return s.count != s.end - s.first; }

// Bits a .. b that lie in word w.
INLINE u32 word_mask(i64 a, i64 b, i64 w) {
    i64 low = larger(a - 32 * w, (i64)0), high = smaller(b - 32 * w, (i64)32);
    return low >= high ? 0u : 0xffffffffu >> (32 - (high - low)) << low;
}
// Word w of the scope's bits.
INLINE u32 scope_word(const Scope& s, i64 w) { return has_holes(s) && s.first < 32 * w + 32 && 32 * w < s.end ? s.bits[w] : word_mask(s.first, s.end, w); }
INLINE bool contains(const Scope& s, i64 t) { return t >= s.first && t < s.end && (!has_holes(s) || (s.bits[t / 32] >> (t % 32) & 1)); }

// In-scope tokens in a .. b.
INLINE i64 count_in(const Scope& s, i64 a, i64 b) {
    a = larger(a, s.first);
    b = smaller(b, s.end);
    if (a >= b) return 0;
    if (!has_holes(s)) return b - a;
    i64 count = 0;
    for (i64 w = a / 32; w <= (b - 1) / 32; ++w) count += __popc(s.bits[w] & word_mask(a, b, w));
    return count;
}
// Last in-scope token in a .. b; -1: none.
INLINE i64 last_in(const Scope& s, i64 a, i64 b) {
    a = larger(a, s.first);
    b = smaller(b, s.end);
    if (a >= b) return -1;
    if (!has_holes(s)) return b - 1;
    for (i64 w = (b - 1) / 32; w >= a / 32; --w) {
        u32 word = s.bits[w] & word_mask(a, b, w);
        if (word) return 32 * w + 31 - __clz((i32)word);
    }
    return -1;
}
// First in-scope token in a .. b; -1: none.
INLINE i64 first_in(const Scope& s, i64 a, i64 b) {
    a = larger(a, s.first);
    b = smaller(b, s.end);
    if (a >= b) return -1;
    if (!has_holes(s)) return a;
    for (i64 w = a / 32; w <= (b - 1) / 32; ++w) {
        u32 word = s.bits[w] & word_mask(a, b, w);
        if (word) return 32 * w + __ffs((i32)word) - 1;
    }
    return -1;
}

// As it was kept between kernels.
INLINE Scope kept_scope(const Args& args, i64 i, const Extent& e, const Rollout& kept) {
    return Scope{(i64)kept.first, (i64)kept.end, (i64)kept.count, scope_words(args, i, e)};
}

// The scope whose words (zero beyond `len`) the block has written; with barriers, so that every thread sees them.
INLINE Scope block_scope_of(const u32* bits, i64 len) {
    i64 before_first = 0, end = 0, count = 0;
    __syncthreads();
    for (i64 w = threadIdx.x; 32 * w < len; w += blockDim.x) {
        u32 word = bits[w];
        if (word == 0) continue;
        // The first token is the one with the most tokens behind it.
        before_first = larger(before_first, len - (32 * w + __ffs((i32)word) - 1));
        end = larger(end, 32 * w + 32 - __clz((i32)word));
        count += __popc(word);
    }
    before_first = block_max(before_first, (i64)0);
    end = block_max(end, (i64)0);
    count = block_sum(count);
    return count == 0 ? span_scope(0, 0) : Scope{len - before_first, end, count, bits};
}
// Sets bits 0 .. len and no others.
INLINE void block_fill_scope(u32* bits, i64 len) {
    for (i64 w = threadIdx.x; 32 * w < len; w += blockDim.x) bits[w] = word_mask(0, len, w);
}
// Takes a .. b out, by one thread; ranges of several threads do not overlap, their words may.
INLINE void clear_scope(u32* bits, i64 a, i64 b) {
    if (a >= b) return;
    for (i64 w = a / 32; w <= (b - 1) / 32; ++w) {
        u32 mask = word_mask(a, b, w);
        if (mask == 0xffffffffu) bits[w] = 0;
        else atomicAnd(bits + w, ~mask);
    }
}

#endif
