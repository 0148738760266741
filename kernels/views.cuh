// Where things lie: elements of the caller's views by their run-time type, a rollout's extent, its lists in the workspace, the statistics. All offsets are
// 64 bits. What device data says (offsets, lengths, group indices) is looked at here: nothing that comes of it leaves the arrays.
#ifndef PASSRL_VIEWS_CUH
#define PASSRL_VIEWS_CUH
#include "args.cuh"
#include "choices.cuh"
#include "convert.cuh"

INLINE bool is_given(const Array& a) { return a.data != 0; }
// The launch's arguments and the plan's constants: a copy in shared memory. It lies at one address in all kernels, so that functions which are handed it take no register
// for where it is, and none is live over a call.
INLINE Args& shared_args() {
    SHARED(Args, args_of_block, [1]);
    return args_of_block[0];
}
INLINE const PlanConstants& plan_of(const Args&) { return shared_args().constants; }
// Makes that copy: no block waits for memory to begin. What every kernel begins with; the block meets after it.
INLINE const Args& open_args(const Args& given) {
    constexpr u32 beside = (sizeof(Args) - sizeof(PlanConstants)) / 8;
    u64* const to = (u64*)&shared_args();
    const u64 *const from = (const u64*)&given, *const constants = given.plan ? (const u64*)given.plan : (const u64*)&given.constants;
    for (u32 n = THREAD_NUMBER(); n < sizeof(Args) / 8; n += blockDim.x) to[n] = n < beside ? from[n] : constants[n - beside];
    __syncthreads();
    return shared_args();
}
// Of a float array.
INLINE i64 bytes_of(const Array& a) { return a.dtype == F32 ? 4 : a.dtype == F64 ? 8 : 2; }
// How many elements of the array lie before element `at` in its sector of 32 bytes; 0 where neighbours do not stand together. Tiles that begin so many tokens
// earlier have whole sectors.
INLINE i64 sector_lead(const Array& a, i64 at, i64 stride) {
    const i64 bytes = bytes_of(a);
    return stride == 1 ? (i64)((a.data / (u64)bytes + (u64)at) & (u64)(32 / bytes - 1)) : 0;
}

// Element `at` (an offset in elements from `data`) of an array, as f64: exact.
INLINE f64 load_f64(const Array& a, i64 at) {
    switch (a.dtype) {
        case F32: return (f64)((const f32*)a.data)[at];
        case BF16: return (f64)f32_of_bf16(((const u16*)a.data)[at]);
        case F16: return (f64)f32_of_f16(((const u16*)a.data)[at]);
        case F64: return ((const f64*)a.data)[at];
        default: return 0.0;
    }
}
// As f32: exact but for f64, which is rounded to nearest even.
INLINE f32 load_f32(const Array& a, i64 at) {
    switch (a.dtype) {
        case F32: return ((const f32*)a.data)[at];
        case BF16: return f32_of_bf16(((const u16*)a.data)[at]);
        case F16: return f32_of_f16(((const u16*)a.data)[at]);
        case F64: return (f32)((const f64*)a.data)[at];
        default: return 0.0f;
    }
}
INLINE i64 load_int(const Array& a, i64 at) {
    switch (a.dtype) {
        case I32: return ((const i32*)a.data)[at];
        case I64: return ((const i64*)a.data)[at];
        case U8:
        case BOOL: return ((const u8*)a.data)[at];
        default: return 0;
    }
}
// Is the element nonzero (NaN is)?
INLINE bool load_flag(const Array& a, i64 at) {
    switch (a.dtype) {
        case U8:
        case BOOL: return ((const u8*)a.data)[at] != 0;
        case I32: return ((const i32*)a.data)[at] != 0;
        case I64: return ((const i64*)a.data)[at] != 0;
        default: return load_f64(a, at) != 0.0;
    }
}
// Stores x in the array's type; `overflowed` grows by 1 where it is beyond the type's range.
template <class Count> INLINE void store(const Array& a, i64 at, f64 x, Count& overflowed) {
    switch (a.dtype) {
        case F32: ((f32*)a.data)[at] = stored_f32(x, overflowed); break;
        case BF16: ((u16*)a.data)[at] = stored_bf16(x, overflowed); break;
        case F16: ((u16*)a.data)[at] = stored_f16(x, overflowed); break;
        case F64: ((f64*)a.data)[at] = stored_f64(x, overflowed); break;
        default: break;
    }
}
INLINE void store_int(const Array& a, i64 at, i64 x) {
    switch (a.dtype) {
        case I32: ((i32*)a.data)[at] = (i32)x; break;
        case I64: ((i64*)a.data)[at] = x; break;
        case U8:
        case BOOL: ((u8*)a.data)[at] = (u8)x; break;
        default: break;
    }
}

// Element i of a one-dimensional array.
INLINE i64 item_int(const Array& a, i64 i) { return load_int(a, i * a.stride[0]); }
INLINE f32 item_f32(const Array& a, i64 i) { return load_f32(a, i * a.stride[0]); }
INLINE f64 item_f64(const Array& a, i64 i) { return load_f64(a, i * a.stride[0]); }
INLINE bool item_flag(const Array& a, i64 i) { return load_flag(a, i * a.stride[0]); }

// A rollout's place in token-shaped arrays: as `Extent` of src/model/batch.rs. `slot`: first slot of token-indexed lists of the workspace.
struct Extent {
    i64 row, column, len, slot;
    bool flat;
    // The device's offsets or lengths do not fit: `len` is 0, and the batch is zeroed.
    bool bad;
};

// Of a call whose rollouts come in pieces over several (pieces_units.cuh); elsewhere what stands for a rollout that comes whole.
INLINE const Joint& joint_of(const Args& args) { return *(const Joint*)args.work.joint; }
INLINE Unit& unit_of(const Args& args, i64 i) { return ((Unit*)(args.work.joint + UNITS_AT))[i]; }
INLINE bool is_head(const Args& args, i64 i) { return args.work.joint == 0 || unit_of(args, i).head; }
INLINE i64 row_of(const Args& args, i64 i) { return args.work.joint == 0 ? i : (i64)unit_of(args, i).row; }

INLINE Extent extent(const Args& args, i64 i) {
    const Batch& batch = args.batch;
    const PlanConstants& plan = plan_of(args);
    if (batch.layout == PACKED) {
        i64 base = item_int(batch.extents, 0), begin = item_int(batch.extents, i), end = item_int(batch.extents, i + 1);
        if (args.work.joint) {
            const Unit& unit = unit_of(args, i);
            return unit.bad ? Extent{i, 0, 0, 0, true, true} : Extent{i, begin, unit.len, begin - base, true, false};
        }
        bool good = base >= 0 && begin >= base && end >= begin && end <= batch.slots && end - begin <= plan.max_rollout_tokens &&
                    end - base <= plan.max_tokens;
        return good ? Extent{i, begin, end - begin, begin - base, true, false} : Extent{i, 0, 0, 0, true, true};
    }
    i64 len = is_given(batch.extents) ? item_int(batch.extents, i) : batch.slots;
    bool good = len >= 0 && len <= batch.slots && len <= plan.max_rollout_tokens;
    len = good ? len : 0;
    i64 column = batch.layout == PADDED_LEFT ? batch.slots - len : 0;
    return Extent{i, column, len, i * batch.slots + column, false, !good};
}

// Offset of token t of the rollout in a token-shaped array, for `load_f32` and its like.
INLINE i64 at(const Extent& e, const Array& a, i64 t) {
    return e.flat ? (e.column + t) * a.stride[0] : e.row * a.stride[0] + (e.column + t) * a.stride[1];
}

INLINE i64 token_stride(const Extent& e, const Array& a) { return e.flat ? a.stride[0] : a.stride[1]; }

// The group of rollout i as the device's data says it; `NO_GROUP` where that is none.
constexpr u32 NO_GROUP = 0xffffffffu;
INLINE u32 group_of(const Args& args, i64 i) {
    const Batch& batch = args.batch;
    i64 g;
    if (batch.grouping == GROUP_CONSTANT) {
        g = i / batch.group_size;
    } else if (batch.grouping == GROUP_INDEX) {
        g = item_int(batch.group_view, i);
    } else {
        // The last group that begins at i or before it; empty groups begin where the next does.
        i64 low = 0, high = batch.groups;
        while (low < high) {
            i64 middle = low + (high - low) / 2;
            if (item_int(batch.group_view, middle + 1) <= i) low = middle + 1;
            else high = middle;
        }
        g = low;
        if (g >= batch.groups || item_int(batch.group_view, g) > i) return NO_GROUP;
    }
    return g >= 0 && g < batch.groups ? (u32)g : NO_GROUP;
}

// Token-indexed lists of the workspace, from the rollout's slot on; list p of several.
template <class T> INLINE T* list_of(u64 base, const Extent& e) { return (T*)base + e.slot; }
template <class T> INLINE T* list_of(const Args& args, u64 base, i32 p, const Extent& e) { return (T*)base + p * plan_of(args).max_tokens + e.slot; }
// Scope bits of rollout i in words of 32: bit t % 32 of word t / 32.
INLINE u32* scope_words(const Args& args, i64 i, const Extent& e) { return (u32*)((u64*)args.work.scope + e.slot / 64 + 2 * i); }
INLINE Rollout& rollout_of(const Args& args, i64 i) { return ((Rollout*)args.work.rollouts)[i]; }
INLINE Counts& counts_of(const Args& args) { return *(Counts*)args.work.counts; }
INLINE GroupMarks& marks_of(const Args& args, i64 g) { return ((GroupMarks*)args.work.marks)[g]; }

// The statistics: keys (absmax, max, min) a slot and the format state, words (n, q, hi, lo, at_max, at_min) a slot and the members; StateLayout.
INLINE i32* group_keys(const Args& args, i64 g) { return (i32*)(args.work.state + args.layout.extremes) + g * (3 * plan_of(args).slots + 1); }
// Words of a group: of kl alone the rollouts that count are among them.
INLINE bool counts_members(const PlanConstants& plan) { return plan.kind == KIND_KL; }
INLINE i64* group_words(const Args& args, i64 g) {
    const PlanConstants& plan = plan_of(args);
    return (i64*)(args.work.state + args.layout.sums) + g * (6 * plan.slots + (counts_members(plan) ? 1 : 0));
}
INLINE i32* group_seconds(const Args& args, i64 g) { return (i32*)(args.work.state + args.layout.second) + g * plan_of(args).slots; }
// Of the batch's sets: keys (absmax, max, min) a slot, words (n, q, hi, lo, at_max, at_min, nonzero) a slot.
INLINE i32* batch_keys(const Args& args) { return (i32*)(args.work.state + args.layout.batch_extremes); }
INLINE i64* batch_words(const Args& args) { return (i64*)(args.work.state + args.layout.batch_sums); }
// Of the whitening: three keys, six words.
INLINE i32* whiten_keys(const Args& args) { return (i32*)(args.work.state + args.layout.whiten_extremes); }
INLINE i64* whiten_words(const Args& args) { return (i64*)(args.work.state + args.layout.whiten_sums); }

// A key in memory: of a run's own statistics it is unsigned, in the same order and 0 at the lowest, so that one memset of zeros begins all of them; in a buffer
// of partials it is as it is.
INLINE i32 load_key(const Args& args, const i32* at) { return args.layout.keys_from_zero ? (i32)((u32)*at ^ 0x80000000u) : *at; }
INLINE void max_key_to(const Args& args, i32* at, i32 key) {
    if (args.layout.keys_from_zero) atomicMax((u32*)at, (u32)key ^ 0x80000000u);
    else atomicMax(at, key);
}
INLINE void max_extremes_to(const Args& args, i32* keys, const Extremes& e) {
    if (e.absmax > 0) max_key_to(args, keys, e.absmax);
    if (e.max != KEY_EMPTY) max_key_to(args, keys + 1, e.max);
    if (e.min != KEY_EMPTY) max_key_to(args, keys + 2, e.min);
}
INLINE Extremes load_extremes(const Args& args, const i32* keys, i32 slot) {
    const i32* at = keys + 3 * slot;
    // An empty section begins at the lowest key; the largest |x| of nothing is 0.
    return Extremes{larger(load_key(args, at), 0), load_key(args, at + 1), load_key(args, at + 2)};
}
INLINE Sums load_sums(const i64* words, i32 slot, i32 each = 6) {
    const i64* w = words + each * slot;
    return Sums{w[0], w[1], w[2], w[3], w[4], w[5]};
}
// 0: no rollout of the group seen; 1: all violate the format; 2: some rollout does not.
INLINE i32 load_format(const Args& args, const i32* keys, i32 slots) { return larger(load_key(args, keys + 3 * slots), 0); }
INLINE i64 load_members(const PlanConstants& plan, const i64* words) { return counts_members(plan) ? words[6 * plan.slots] : 0; }

// The KL table of a group: sums C and live counts n of its positions.
struct KlTable {
    i64 *columns, *live;
    i64 positions;
};
INLINE KlTable kl_table(const Args& args, i64 g) {
    u64 longest = marks_of(args, g).longest;
    i64 positions = (i64)(longest >> 32);
    if (args.layout.positions > 0) {
        i64* table = (i64*)(args.work.state + args.layout.table) + 2 * args.layout.positions * g;
        // (Of pieces the longest rollout is not known; nothing is live beyond it.)
        if (args.work.joint) positions = args.layout.positions;
        return KlTable{table, table + args.layout.positions, smaller(positions, args.layout.positions)};
    }
    if (positions == 0) return KlTable{(i64*)args.work.columns, (i64*)args.work.live, 0};
    // At the slot of the group's longest scope, which no other group uses; from a sector's begin on, for which each rollout has four more.
    const i64 rollout = (i64)(u32)~longest, slot = ((extent(args, rollout).slot + 3) & ~(i64)3) + 4 * rollout;
    return KlTable{(i64*)args.work.columns + slot, (i64*)args.work.live + slot, positions};
}

// Slot of per-rollout stream s: 0 outcome, 1 format, 2.. further.
INLINE i32 slot_of_stream(const PlanConstants& plan, i32 s) { return plan.sets + s; }

#endif
