// Rollouts in pieces over calls or ranks: the units of a call. Each piece is seen to fit, what is its rollout's is gathered to it, the steps are clipped to its tokens, so that
// the kernels after see units where they see rollouts; and, once all pieces have told their edges, what a piece has to know of the others. Twin of pieces.rs.
#ifndef PASSRL_PIECES_UNITS_CUH
#define PASSRL_PIECES_UNITS_CUH
#include "pieces_rows.cuh"

INLINE void refuse_units(const UnitsStart& s) {
    atomicOr(&((Counts*)s.counts)->bad_offsets, 1u);
    atomicOr((u64*)&((Counts*)s.counts)->findings, (u64)FOUND_BAD_OFFSETS);
}

// FNV-1a over words.
INLINE u64 mixed(u64 hash, u64 word) {
    hash = (hash ^ word) * 0x100000001b3ull;
    return hash << 23 | hash >> 41;
}

// Element of a per-rollout input, as it is, to its unit's.
INLINE void gather_element(const Array& from, i64 row, u64 to, i64 unit) {
    const i64 at = row * from.stride[0];
    switch (from.dtype) {
        case F64:
        case I64: ((u64*)to)[unit] = ((const u64*)from.data)[at]; break;
        case F32:
        case I32: ((u32*)to)[unit] = ((const u32*)from.data)[at]; break;
        case BF16:
        case F16: ((u16*)to)[unit] = ((const u16*)from.data)[at]; break;
        default: ((u8*)to)[unit] = ((const u8*)from.data)[at]; break;
    }
}

// The group of a row; -1: it is in none.
INLINE i64 group_of_row(const UnitsStart& s, i64 row) {
    if (s.grouping == GROUP_CONSTANT) return row / s.group_size;
    if (s.grouping == GROUP_INDEX) return item_int(s.group_view, row);
    i64 low = 0, high = s.groups;
    while (low < high) {
        const i64 middle = low + (high - low) / 2;
        if (item_int(s.group_view, middle + 1) <= row) low = middle + 1;
        else high = middle;
    }
    return low < s.groups && item_int(s.group_view, low) <= row ? low : -1;
}

INLINE f32 score_of(const UnitsStart& s, i32 p, i64 j) {
    return load_f32(s.scores, s.scores_flat ? j * s.scores.stride[0] : p * s.scores.stride[0] + j * s.scores.stride[1]);
}

// Hash of what every piece of a rollout must be given alike. One thread: words in their order.
INLINE u64 hash_of_inputs(const UnitsStart& s, i64 row, i64 group, i64 from, i64 to) {
    u64 hash = mixed(0xcbf29ce484222325ull, (u64)smaller(larger(group, (i64)0), larger(s.groups - 1, (i64)0)));
    for (i32 n = 0; n < ROW_INPUTS; n++) {
        const Array& input = s.inputs[n];
        // Streams, numbers, flags (not given: true, true, false).
        u64 word = n < ROLLOUT_STREAMS ? (u64)n : n == 15 || n == 16 ? 1 : 0;
        if (is_given(input)) word = n < 15 ? bits_of(item_f64(input, row)) : item_flag(input, row) ? 1 : 0;
        hash = mixed(hash, word);
    }
    if (!is_given(s.step_offsets)) return hash;
    for (i64 j = from; j < to; j++) {
        hash = mixed(hash, (u64)item_int(s.step_ends, j));
        hash = mixed(hash, is_given(s.step_begins) ? (u64)item_int(s.step_begins, j) : 3);
        for (i32 p = 0; s.hashes_scores && p < s.num_process; p++) hash = mixed(hash, (u64)bits_of(score_of(s, p, j)));
    }
    return mixed(hash, (u64)(to - from));
}

// What the batch says of piece i. One thread.
INLINE void open_unit(const UnitsStart& s, i64 i, Unit& unit) {
    unit = Unit{};
    const i64 base = item_int(s.extents, 0), low = item_int(s.extents, i), high = item_int(s.extents, i + 1);
    const i64 row = item_int(s.rollout, i), begin = item_int(s.begin, i), index = item_int(s.index, i);
    bool fits = 0 <= base && base <= low && low <= high && high <= s.slots && high - base <= s.max_tokens && 0 <= row && row < s.rollouts && 0 <= begin && begin < 1ll << 31 &&
                0 <= index && index < s.joint.each;
    const i64 whole = fits ? item_int(s.lengths, row) : 0, number = fits ? is_given(s.numbers) ? item_int(s.numbers, row) : row : 0;
    fits = fits && 0 <= whole && whole <= s.max_rollout_tokens && 0 <= number && number < s.joint.rollouts;
    unit.next = -1;
    unit.first = -1;
    if (!fits) {
        unit.bad = 1;
        return;
    }
    unit.begin = begin;
    unit.whole = whole;
    unit.len = smaller(larger(whole - begin, (i64)0), high - low);
    unit.tail = high - low - unit.len;
    unit.number = number;
    unit.row = (u32)row;
    unit.index = (u32)index;
    unit.head = index == 0;
    unit.line = unit.len;
}

// What unit i has to know of the other pieces; false: it is none of those that have told their edges. One thread.
INLINE bool learn(const UnitsStart& s, Unit& unit) {
    const i64* const rows = rows_of(s.state, s.joint, unit.number);
    const i64* const own = row_at(rows, unit.index);
    if (own[ROW_TIMES] != 1 || own[ROW_BEGIN] != unit.begin || own[ROW_SLOTS] != unit.len + unit.tail || own[ROW_WHOLE] != unit.whole) return false;
    i64 position_of = -1;
    bool scope = false;
    i64 j = 0;
    for (; j < s.joint.each && row_at(rows, j)[ROW_TIMES] != 0; j++) {
        const i64* const row = row_at(rows, j);
        const i64 count = in_scope(rows, j), flags = row[ROW_FLAGS];
        unit.flags |= (u32)flags;
        if (scope && (flags & ROW_BAD_BEFORE)) unit.flags |= ROLLOUT_NONFINITE;
        if (flags & ROW_HAS_PROCESS) unit.process = 1;
        unit.most_kl = larger(unit.most_kl, (i32)row[ROW_MOST]);
        unit.total += count;
        if (j > unit.index) unit.tokens_after += count;
        if (count == 0) continue;
        if (!scope) unit.first = bounded(row[ROW_FIRST], unit.whole);
        scope = true;
        unit.at_end = row[ROW_LAST] + 1 == row[ROW_WHOLE];
        if (j < unit.index) unit.scope_before = 1;
        if (j <= unit.index && position_of < 0) position_of = row[ROW_FIRST];
        if (j > unit.index && unit.next < 0) unit.next = (i32)j;
    }
    unit.pieces = (u32)j;
    if (in_scope(rows, unit.index) > 0) unit.position = bounded(own[ROW_FIRST] - position_of, unit.whole);
    unit.total = smaller(unit.total, s.max_rollout_tokens);
    unit.tokens_after = smaller(unit.tokens_after, unit.total);
    if (unit.first >= 0) {
        unit.line = smaller(larger(unit.first - unit.begin, (i64)0), unit.len);
        unit.lines_after = larger(unit.whole - larger(unit.begin + unit.len, unit.first), (i64)0);
    }
    return true;
}

// A piece's begin and end of a step, in its own tokens.
INLINE i64 clipped(const Unit& unit, i64 t) { return smaller(larger(t - unit.begin, (i64)0), unit.len); }

// Steps of the unit's rollout that have a token in the piece, as they lie there. Steps that do not fit come out as one that does not; of a rollout with steps, none of which
// has a token here, one is left, which is empty. The block.
INLINE void clip_steps(const UnitsStart& s, i64 i, i64 from, i64 to, Unit& unit) {
    const i64 room = item_int(s.extents, i) - item_int(s.extents, 0) + i, len = unit.whole;
    const bool begins = is_given(s.step_begins);
    u32 *const to_begin = (u32*)s.begins_to + room, *const to_end = (u32*)s.ends_to + room, *const to_number = (u32*)s.joint.step_numbers + room;
    f32* const scores = (f32*)s.scores_to + room;
    bool good = true;
    i64 count = 0;
    for (i64 tile = from; tile < to; tile += blockDim.x) {
        const i64 j = tile + threadIdx.x;
        bool listed = false;
        i64 a = 0, b = 0;
        if (j < to) {
            const i64 before = j == from ? 0 : item_int(s.step_ends, j - 1), end = item_int(s.step_ends, j), begin = begins ? item_int(s.step_begins, j) : before;
            good = good && before <= begin && begin <= end && end <= len;
            a = clipped(unit, begin);
            b = clipped(unit, begins || j + 1 < to ? end : len);
            listed = a < b;
        }
        const Rank rank = block_rank(listed);
        // (Ranges that overlap, as those of steps that do not fit may, are more than there is room for.)
        const i64 k = count + rank.before;
        if (listed && k <= unit.len) {
            to_begin[k] = (u32)a;
            to_end[k] = (u32)b;
            to_number[k] = (u32)(j - from);
            for (i32 p = 0; s.hashes_scores && p < s.num_process; p++) scores[p * s.scores_room + k] = score_of(s, p, j);
        }
        count += rank.total;
    }
    good = __syncthreads_and(good) != 0;
    if (!is_first_thread()) return;
    unit.steps = to - from;
    unit.clipped = good ? larger(count, (i64)(to > from ? 1 : 0)) : 1;
    if (good && count > 0) return;
    if (to <= from && good) return;
    to_begin[0] = 0;
    to_end[0] = good ? 0 : (u32)unit.len + 1;
    to_number[0] = 0;
    for (i32 p = 0; s.hashes_scores && p < s.num_process; p++) scores[p * s.scores_room] = 0.0f;
}

// A block a piece, one at least.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) passrl_pieces_units(const __grid_constant__ UnitsStart s) {
    SHARED(Unit, unit, [1]);
    SHARED(i64, steps, [2]);
    const i64 i = blockIdx.x;
    if (i == 0 && is_first_thread()) *(Joint*)s.joint_to = s.joint;
    if (i >= s.pieces) return;
    if (is_first_thread()) {
        open_unit(s, i, unit[0]);
        steps[0] = steps[1] = 0;
        if (!unit[0].bad && is_given(s.step_offsets)) {
            steps[0] = item_int(s.step_offsets, unit[0].row);
            steps[1] = item_int(s.step_offsets, (i64)unit[0].row + 1);
            // (Offsets beyond the arrays: no step is read, and they do not fit.)
            if (!(0 <= steps[0] && steps[0] <= steps[1] && steps[1] <= s.steps)) steps[0] = steps[1] = -1;
        }
        if (!unit[0].bad && s.joint.stage > JOINT_EDGES && !learn(s, unit[0])) unit[0].bad = 1;
        if (unit[0].bad) refuse_units(s);
    }
    __syncthreads();
    if (!unit[0].bad) {
        const i64 row = unit[0].row, group = group_of_row(s, row);
        for (i32 n = (i32)threadIdx.x; n < ROW_INPUTS; n += (i32)blockDim.x)
            if (is_given(s.inputs[n])) gather_element(s.inputs[n], row, s.gathered[n], i);
        if (is_given(s.step_offsets)) clip_steps(s, i, larger(steps[0], (i64)0), larger(steps[1], (i64)0), unit[0]);
        __syncthreads();
        if (is_first_thread()) {
            if (steps[0] < 0) {
                // Offsets that do not fit: so does the one step that stands for them.
                const i64 room = item_int(s.extents, i) - item_int(s.extents, 0) + i;
                unit[0].steps = unit[0].clipped = 1;
                ((u32*)s.begins_to)[room] = 0;
                ((u32*)s.ends_to)[room] = (u32)unit[0].len + 1;
            }
            ((i64*)s.groups_to)[i] = group;
            if (s.joint.stage == JOINT_EDGES) unit[0].hash = hash_of_inputs(s, row, group, larger(steps[0], (i64)0), larger(steps[1], (i64)0));
            unit[0].speaks = atomicCAS((u32*)s.speakers + row, 0u, (u32)i + 1) == 0;
        }
    }
    __syncthreads();
    if (is_first_thread()) ((Unit*)(s.joint_to + UNITS_AT))[i] = unit[0];
}

// Do all pieces of rollout `number` make a whole one, each once and given the same? As check/pieces.rs has it. One thread.
INLINE bool makes_whole(const UnitsStart& s, i64 number) {
    const i64* const rows = rows_of(s.state, s.joint, number);
    i64 end = 0, most = s.joint.each - 1;
    while (most >= 0 && row_at(rows, most)[ROW_TIMES] == 0) most--;
    for (i64 j = 0; j <= most; j++) {
        const i64* const row = row_at(rows, j);
        const bool good = row[ROW_TIMES] == 1 && row[ROW_WHOLE] == rows[ROW_WHOLE] && row[ROW_INPUTS_HASH] == rows[ROW_INPUTS_HASH] && row[ROW_BEGIN] == end;
        if (!good) return false;
        end += row[ROW_SLOTS];
    }
    return most < 0 || end >= rows[ROW_WHOLE];
}

// A thread a rollout of the batch.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) passrl_pieces_table(const __grid_constant__ UnitsStart s) {
    const i64 number = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (number < s.joint.rollouts && !makes_whole(s, number)) refuse_units(s);
}

#endif
