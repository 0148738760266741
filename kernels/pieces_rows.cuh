// What the pieces of rollouts have told of themselves (src/model/pieces.rs): a row each in a table `[rollouts, pieces of a rollout]`, sums of rollouts, counts of chunks.
#ifndef PASSRL_PIECES_ROWS_CUH
#define PASSRL_PIECES_ROWS_CUH
#include "block.cuh"
#include "views.cuh"

enum RowWord {
    ROW_TIMES = 0, ROW_BEGIN = 1, ROW_SLOTS = 2, ROW_WHOLE = 3, ROW_INPUTS_HASH = 4, ROW_COUNT = 5, ROW_FIRST = 6, ROW_LAST = 7, ROW_DETECTED = 8, ROW_FIRST_STEP = 9,
    ROW_LAST_STEP = 10, ROW_FIRST_RAW = 11, ROW_LAST_RAW = 12, ROW_FLAGS = 13, ROW_VALUE = 14, ROW_MARKS = 15, ROW_MARKED = 16, ROW_MOST = ROW_MARKED + MAX_PROCESS,
    ROW_WORDS = ROW_MOST + 1 + MAX_PROCESS,
};
// Bits of ROW_FLAGS beside those of rollouts.
constexpr i64 ROW_HAS_PROCESS = 1ll << 32, ROW_MARK_BEFORE = 1ll << 33, ROW_MARK_AFTER = 1ll << 34, ROW_BAD_BEFORE = 1ll << 35;

// Rows of rollout `number` of the batch; a piece's row.
INLINE i64* rows_of(u64 state, const Joint& joint, i64 number) { return (i64*)(state + joint.edges) + number * joint.each * ROW_WORDS; }
INLINE i64* row_at(i64* rows, i64 piece) { return rows + piece * ROW_WORDS; }
INLINE const i64* row_at(const i64* rows, i64 piece) { return rows + piece * ROW_WORDS; }
// (What a damaged buffer says stays within what numbers of tokens can be.)
INLINE i64 bounded(i64 x, i64 most) { return smaller(larger(x, (i64)0), most); }
INLINE i64 in_scope(const i64* rows, i64 piece) { return bounded(row_at(rows, piece)[ROW_COUNT], 1ll << 31); }

INLINE i64* rows_of(const Args& args, const Unit& unit) { return rows_of(args.work.state, joint_of(args), unit.number); }
// Sum of the rollout's KL; sum and count of its values of a process list.
INLINE i64* own_kl(const Args& args, const Unit& unit) { return (i64*)(args.work.state + joint_of(args).own) + unit.number * joint_of(args).own_words; }
INLINE i64* own_list(const Args& args, const Unit& unit, i32 list) {
    const Joint& joint = joint_of(args);
    return (i64*)(args.work.state + joint.own) + (unit.number + 1) * joint.own_words - 2 * (joint.own_lists - list);
}
// Chunks that end in each piece of a rollout; gae over chunks: V at the begin of each one's last (its bits, plus 2^32 where that goes on in a later piece).
INLINE i64* chunk_counts(const Args& args, const Unit& unit) {
    const Joint& joint = joint_of(args);
    return (i64*)(args.work.state + joint.chunks) + unit.number * joint.each * joint.chunk_words;
}
INLINE i64* chunk_begins(const Args& args, const Unit& unit) { return chunk_counts(args, unit) + joint_of(args).each; }
// Bits of f64: y at the highest position of each tile that lies in one piece, of each scan; then, by piece, a tile that it shares with others and its first value.
constexpr i64 TILE = 32;
INLINE i64* scan_words(const Args& args, const Unit& unit) {
    const Joint& joint = joint_of(args);
    return (i64*)(args.work.state + joint.scan) + unit.number * (joint.scans * joint.tiles + joint.each * (TILE + 1));
}
INLINE i64* scan_tops(const Args& args, const Unit& unit, i32 scan) { return scan_words(args, unit) + scan * joint_of(args).tiles; }
INLINE i64* scan_shared(const Args& args, const Unit& unit, i64 piece) {
    const Joint& joint = joint_of(args);
    return scan_words(args, unit) + joint.scans * joint.tiles + piece * (TILE + 1);
}

// The stage that is taken; before JOINT_EDGES are exchanged nothing is known of other pieces.
INLINE i32 joint_stage(const Args& args) { return joint_of(args).stage; }
INLINE bool knows_rows(const Args& args) { return joint_stage(args) > JOINT_EDGES; }
// The row of the next piece with a token in scope; 0: there is none.
INLINE const i64* next_row(const Args& args, const Unit& unit) { return knows_rows(args) && unit.next >= 0 ? row_at(rows_of(args, unit), unit.next) : 0; }

// Sparse steps: marks that the pieces before piece `to` have.
INLINE i64 marks_before(const i64* rows, i64 to) {
    i64 marks = 0;
    for (i64 j = 0; j < to; j++) marks += row_at(rows, j)[ROW_MARKS];
    return marks;
}
// Value of stream p at the first mark from piece `from` on, else at the last before it.
INLINE f32 marked_value(const i64* rows, i64 pieces, i64 from, i32 p) {
    for (i64 j = from; j < pieces; j++)
        if (row_at(rows, j)[ROW_MARKS] > 0) return f32_of((u32)row_at(rows, j)[ROW_MARKED + p]);
    for (i64 j = from - 1; j >= 0; j--)
        if (row_at(rows, j)[ROW_MARKS] > 0) return f32_of((u32)((u64)row_at(rows, j)[ROW_MARKED + p] >> 32));
    return 0.0f;
}
// Has any piece of unit i's rollout a mark, and a later one, whose step the tokens after the last mark here are of? Not known before the edges are.
struct OtherMarks {
    bool any, later;
};
INLINE OtherMarks other_marks(const Args& args, i64 i) {
    if (args.work.joint == 0 || !knows_rows(args)) return OtherMarks{false, false};
    const Unit& unit = unit_of(args, i);
    const i64* const rows = rows_of(args, unit);
    const i64 all = marks_before(rows, unit.pieces);
    return OtherMarks{all > 0, all > marks_before(rows, (i64)unit.index + 1)};
}

// Value of stream p of the step that the tokens after unit i's last mark are of.
INLINE f32 next_marked(const Args& args, i64 i, i32 p) {
    const Unit& unit = unit_of(args, i);
    return marked_value(rows_of(args, unit), unit.pieces, (i64)unit.index + 1, p);
}

// Index in the piece of its first token from the rollout's first one in scope on; its length: there is none.
INLINE i64 line_of_unit(const Args& args, i64 i, i64 first, i64 count, i64 len) { return knows_rows(args) ? unit_of(args, i).line : count > 0 ? first : len; }
// Where tokens begin to take part in a scan over all: of a rollout that comes whole the first in scope.
INLINE i64 line_of(const Args& args, i64 i, i64 first, i64 count, i64 len) { return args.work.joint == 0 ? first : line_of_unit(args, i, first, count, len); }

#endif
