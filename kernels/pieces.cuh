// Rollouts in pieces, all of them in one call: first their tokens are put side by side in the workspace, so that every kernel of a run sees whole rollouts; last the
// results are put where the pieces lie. What the pieces say of themselves is looked at here: where they do not make whole rollouts the batch has no offsets that fit.
#ifndef PASSRL_PIECES_CUH
#define PASSRL_PIECES_CUH
#include "block.cuh"
#include "views.cuh"

INLINE u32* pieces_of(const Pieces& p, i64 rollout) { return (u32*)p.table + rollout * p.each; }
INLINE i64 slots_of_piece(const Pieces& p, i64 piece) { return item_int(p.extents, piece + 1) - item_int(p.extents, piece); }
INLINE void refuse_pieces(const Pieces& p) { atomicOr(&((Counts*)p.counts)->bad_offsets, 1u); }
INLINE bool pieces_refused(const Pieces& p) { return ((const Counts*)p.counts)->bad_offsets != 0; }

// Which piece of which rollout each is. A thread a piece.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) passrl_pieces_place(const __grid_constant__ Pieces p) {
    const i64 piece = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (piece >= p.pieces) return;
    const i64 base = item_int(p.extents, 0), begin = item_int(p.extents, piece), end = item_int(p.extents, piece + 1);
    const i64 row = item_int(p.rollout, piece), index = item_int(p.index, piece);
    const bool fits = 0 <= base && base <= begin && begin <= end && end <= p.slots && end - base <= p.max_tokens && 0 <= row && row < p.rollouts && 0 <= index && index < p.each;
    // Each comes once.
    if (!fits || atomicCAS(pieces_of(p, row) + index, 0u, (u32)piece + 1) != 0) refuse_pieces(p);
}

// Tokens of a rollout, whose pieces follow one another from its first token to its last; 0 where it has none; -1 where they do not.
INLINE i64 tokens_of_pieces(const Pieces& p, i64 rollout) {
    const u32* const of = pieces_of(p, rollout);
    const i64 whole = item_int(p.lengths, rollout);
    if (whole < 0 || whole > p.max_rollout_tokens) return -1;
    i64 end = 0;
    bool over = false, any = false;
    for (i64 index = 0; index < p.each; index++) {
        const bool there = of[index] != 0;
        if (there && (over || item_int(p.begin, (i64)of[index] - 1) != end)) return -1;
        if (there) end += slots_of_piece(p, (i64)of[index] - 1);
        over = !there;
        any |= there;
    }
    if (!any) return 0;
    return end < whole ? -1 : whole;
}

// Of each rollout its tokens, where the offsets will stand; one without a piece has none here and is in no set. A thread a rollout.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) passrl_pieces_lengths(const __grid_constant__ Pieces p) {
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= p.rollouts) return;
    const i64 tokens = pieces_refused(p) ? 0 : tokens_of_pieces(p, i);
    if (tokens < 0) refuse_pieces(p);
    ((i64*)p.offsets)[i + 1] = tokens;
    ((u8*)p.absent_to)[i] = (is_given(p.absent) && item_flag(p.absent, i)) || pieces_of(p, i)[0] == 0 ? 1 : 0;
}

// Where each whole rollout begins among all. One block: each thread adds up its share of the rollouts, one thread the shares.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) passrl_pieces_offsets(const __grid_constant__ Pieces p) {
    SHARED(i64, shares, [MOST_THREADS]);
    i64* const offsets = (i64*)p.offsets;
    const i64 each = (p.rollouts + blockDim.x - 1) / blockDim.x, from = smaller(each * (i64)threadIdx.x, p.rollouts), to = smaller(from + each, p.rollouts);
    const bool refused = pieces_refused(p);
    i64 own = 0;
    for (i64 i = from; i < to && !refused; i++) own += offsets[i + 1];
    shares[threadIdx.x] = own;
    __syncthreads();
    bool bad = refused;
    if (is_first_thread()) {
        i64 before = 0;
        for (u32 thread = 0; thread < blockDim.x; thread++) {
            const i64 share = shares[thread];
            shares[thread] = before;
            before += share;
        }
        offsets[0] = 0;
        bad = bad || before > p.max_tokens;
    }
    bad = __syncthreads_or(bad);
    if (bad && is_first_thread()) refuse_pieces(p);
    i64 before = shares[threadIdx.x];
    for (i64 i = from; i < to; i++) {
        before += bad ? 0 : offsets[i + 1];
        offsets[i + 1] = bad ? 0 : before;
    }
}

// Tokens of a piece: where they lie among the whole rollouts', and how many there are; what is left of its slots holds none.
struct PieceTokens {
    i64 at, count, slots, slot;
};
INLINE PieceTokens tokens_of(const Pieces& p, i64 piece) {
    const i64 row = item_int(p.rollout, piece), begin = item_int(p.begin, piece), slots = slots_of_piece(p, piece);
    const i64* const offsets = (const i64*)p.offsets;
    const i64 whole = offsets[row + 1] - offsets[row];
    return PieceTokens{offsets[row] + begin, smaller(larger(whole - begin, (i64)0), slots), slots, item_int(p.extents, piece)};
}

template <class T> INLINE void copy_tokens(T* to, i64 to_stride, const T* from, i64 from_stride, i64 count) {
    for (i64 t = threadIdx.x; t < count; t += blockDim.x) to[t * to_stride] = from[t * from_stride];
}
// Elements of a type as they are, whatever they say.
INLINE void copy_elements(i32 dtype, u64 to, i64 to_at, i64 to_stride, u64 from, i64 from_at, i64 from_stride, i64 count) {
    switch (dtype) {
        case F64:
        case I64: copy_tokens((u64*)to + to_at, to_stride, (const u64*)from + from_at, from_stride, count); break;
        case F32:
        case I32: copy_tokens((u32*)to + to_at, to_stride, (const u32*)from + from_at, from_stride, count); break;
        case BF16:
        case F16: copy_tokens((u16*)to + to_at, to_stride, (const u16*)from + from_at, from_stride, count); break;
        default: copy_tokens((u8*)to + to_at, to_stride, (const u8*)from + from_at, from_stride, count); break;
    }
}

// A block a piece.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) passrl_pieces_gather(const __grid_constant__ Pieces p) {
    if (pieces_refused(p)) return;
    const PieceTokens t = tokens_of(p, blockIdx.x);
    for (i32 n = 0; n < p.count; n++) {
        const Array& from = p.inputs[n];
        copy_elements(from.dtype, p.gathered[n], t.at, 1, from.data, t.slot * from.stride[0], from.stride[0], t.count);
    }
}

// Zeros in slots from .. end of an output, by as many threads.
INLINE void zero_results(const Array& to, i64 from, i64 end, i64 thread, i64 threads) {
    u64 none = 0;
    for (i64 t = from + thread; t < end; t += threads) store(to, t * to.stride[0], 0.0, none);
}

// A block a piece, one at least.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) passrl_pieces_scatter(const __grid_constant__ Pieces p) {
    const i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x, threads = (i64)gridDim.x * blockDim.x;
    const bool refused = pieces_refused(p);
    for (i32 n = 0; n < 2; n++) {
        const Array& to = p.outputs[n];
        if (!is_given(to)) continue;
        if (refused) {
            zero_results(to, 0, p.slots, thread, threads);
            continue;
        }
        if ((i64)blockIdx.x < p.pieces) {
            const PieceTokens t = tokens_of(p, blockIdx.x);
            copy_elements(to.dtype, to.data, t.slot * to.stride[0], to.stride[0], p.results[n], t.at, 1, t.count);
            if (p.fill_padding) zero_results(to, t.slot + t.count, t.slot + t.slots, threadIdx.x, blockDim.x);
        }
        if (!p.fill_padding) continue;
        zero_results(to, 0, item_int(p.extents, 0), thread, threads);
        zero_results(to, item_int(p.extents, p.pieces), p.slots, thread, threads);
    }
}

#endif
