// Rollouts in pieces over calls or ranks: the scan of the whole rollout, as a piece has it. Tiles of 32 positions are numbered from the rollout's end, so that a piece
// needs how many positions lie after it, the tops of the tiles after it, and the values of a tile that it shares. Twin of pieces_scan.rs.
#ifndef PASSRL_PIECES_SCAN_CUH
#define PASSRL_PIECES_SCAN_CUH
#include "pieces_sums.cuh"
#include "shape.cuh"

// What the positions of a rollout's scan are.
enum Positions { BY_CHUNK, BY_TOKEN, BY_LINE };

// (Types of their own: what is instantiated for one knows where it lies.)
struct OwnShaping : Shaping {};
struct WholeRollout : Work {};

// A scan of the whole rollout, in which the piece has `own` lines of y, first chunk (or token) first, and `all` with one that goes on.
struct JointScan {
    i32 scan;
    Positions by;
    i64 own, all;
    const f64* powers;
    f64* y;
};

// A piece in the hands of a block, in shared memory, beside the shape room.
struct UnitRoom {
    // As the shape room's `work`, of the chunks that end in the piece; of a scan over all tokens its scope begins with the first that takes part.
    OwnShaping own;
    // The whole rollout, as its terms ask of it.
    WholeRollout whole;
    // Chunks in all and in later pieces.
    i64 chunks, after;
    f64 powers[33], apart[33];
    f64 tops[MOST_THREADS];
    f64 carry;
    // While tiles are brought together.
    bool tells;
    JointScan asked;
};

INLINE ShapeRoom& shape_of(const UnitRoom&) { return shared_shape_room(); }
INLINE Unit& unit_of(const Args& args, const UnitRoom& room) { return unit_of(args, shape_of(room).work.i); }

// Positions of a scan: in all, after the piece, and of piece j.
INLINE i64 total_of(const Unit& unit, const UnitRoom& room, Positions by) {
    return by == BY_CHUNK ? room.chunks : by == BY_TOKEN ? unit.total : unit.first < 0 ? 0 : unit.whole - unit.first;
}
INLINE i64 after_of(const Unit& unit, const UnitRoom& room, Positions by) { return by == BY_CHUNK ? room.after : by == BY_TOKEN ? unit.tokens_after : unit.lines_after; }
INLINE i64 positions_of(const Args& args, const Unit& unit, Positions by, i64 j) {
    if (by == BY_CHUNK) return bounded(chunk_counts(args, unit)[j], 1ll << 31);
    const i64* const rows = rows_of(args, unit);
    if (by == BY_TOKEN) return in_scope(rows, j);
    const i64* const row = row_at(rows, j);
    return unit.first < 0 ? 0 : larger(smaller(row[ROW_BEGIN] + row[ROW_SLOTS], row[ROW_WHOLE]) - larger(row[ROW_BEGIN], unit.first), (i64)0);
}
// The piece that has position p, which one has.
INLINE i64 owner_of(const Args& args, const Unit& unit, Positions by, i64 p) {
    i64 end = 0;
    for (i64 j = (i64)unit.pieces - 1; j >= 0; j--) {
        end += positions_of(args, unit, by, j);
        if (p < end) return j;
    }
    return 0;
}

// Do several pieces have positions of tile m?
INLINE bool is_shared_tile(const Args& args, const Unit& unit, Positions by, i64 total, i64 m) {
    return owner_of(args, unit, by, smaller(m * TILE + TILE, total) - 1) != owner_of(args, unit, by, m * TILE);
}
// y at the highest position of such a tile before a carry is added. A warp, in every lane.
OUT_OF_LINE f64 top_of_shared_tile(const Args& args, const UnitRoom& room, i64 m) {
    const Unit& unit = unit_of(args, room);
    const i64 n = smaller(TILE, total_of(unit, room, room.asked.by) - m * TILE);
    const i64* const shared = scan_shared(args, unit, owner_of(args, unit, room.asked.by, m * TILE + n - 1));
    f64 y = lane() < n ? f64_of((u64)shared[lane()]) : 0.0, c = room.asked.powers[1];
    for (i32 d = 1; d < 32; d <<= 1) {
        const f64 before = __shfl_up_sync(WARP, y, d);
        y = y + c * (lane() >= d ? before : 0.0);
        c = c * c;
    }
    return __shfl_sync(WARP, y, (i32)larger(n - 1, (i64)0));
}

// G at the highest position of the tile before tile `m` (0: there is none), in every thread. The block.
OUT_OF_LINE f64 carry_into(const Args& args, UnitRoom& room, i64 m) {
    const JointScan& of_rollout = room.asked;
    const i64 tiles = smaller(m, joint_of(args).tiles);
    auto total = [&] { return total_of(unit_of(args, room), room, of_rollout.by); };
    __syncthreads();
    if (is_first_thread()) room.carry = 0.0;
#pragma unroll 1
    for (i64 base = 0; base < tiles; base += blockDim.x) {
        const i64 own = base + threadIdx.x;
        const bool apart = own < tiles && is_shared_tile(args, unit_of(args, room), of_rollout.by, total(), own);
        if (own < tiles && !apart) room.tops[threadIdx.x] = f64_of((u64)scan_tops(args, unit_of(args, room), of_rollout.scan)[own]);
        for (u32 votes = __ballot_sync(WARP, apart); votes != 0; votes &= votes - 1) {
            const i32 of = 32 * warp() + __ffs((i32)votes) - 1;
            const f64 top = top_of_shared_tile(args, room, base + of);
            if (lane() == 0) room.tops[of] = top;
        }
        __syncthreads();
        if (is_first_thread()) {
            f64 carry = room.carry;
            const i64 all = total();
            for (i64 n = 0; n < smaller(tiles - base, (i64)blockDim.x); n++) carry = room.tops[n] + of_rollout.powers[bounded(all - (base + n) * TILE, TILE)] * carry;
            room.carry = carry;
        }
        __syncthreads();
    }
    __syncthreads();
    return room.carry;
}

// The value of a piece's first chunk, before any scan.
INLINE f64 first_value(const Args& args, const Unit& unit, i64 piece) { return f64_of((u64)scan_shared(args, unit, piece)[TILE]); }

// Tells the tops of the tiles that lie in this piece, the values of those that it shares, and the first value: of `own` values, first position last. The block.
OUT_OF_LINE void tell_scan(const Args& args, const UnitRoom& room) {
    const Unit& unit = unit_of(args, room);
    const i32 scan = room.asked.scan;
    const Positions by = room.asked.by;
    const f64 *const values = room.asked.y, *const powers = room.asked.powers;
    const i64 own = room.asked.own;
    const i64 total = total_of(unit, room, by), low = after_of(unit, room, by), high = low + own;
    if (own == 0) return;
    for (i64 m = low / TILE + warp(); m < (high + TILE - 1) / TILE && m < joint_of(args).tiles; m += warps()) {
        const i64 first = m * TILE, end = smaller(first + TILE, total), p = first + lane();
        if (low <= first && end <= high) {
            f64 y = p < end ? values[high - 1 - p] : 0.0, c = powers[1];
            for (i32 d = 1; d < 32; d <<= 1) {
                const f64 before = __shfl_up_sync(WARP, y, d);
                y = y + c * (lane() >= d ? before : 0.0);
                c = c * c;
            }
            if (p + 1 == end) add_to(scan_tops(args, unit, scan) + m, (i64)bits_of(y));
        } else if (scan == 0) {
            i64* const shared = scan_shared(args, unit, owner_of(args, unit, by, end - 1));
            if (p >= low && p < smaller(end, high)) add_to(shared + lane(), (i64)bits_of(values[high - 1 - p]));
        }
    }
    if (scan == 0 && is_first_thread()) add_to(scan_shared(args, unit, unit.index) + TILE, (i64)bits_of(values[0]));
}

// Credit of a piece, in place: `own` values, first chunk (or token) first, become what the scan of the whole rollout gives them, or stay (broadcast); value `own`, where there are
// `all` > own, becomes that of the chunk that goes on. While the tiles are brought together it tells its own instead. The block meets at the begin and at the end.
OUT_OF_LINE void joint_scan(const Args& args, UnitRoom& room) {
    const JointScan& asked = room.asked;
    auto total = [&] { return total_of(unit_of(args, room), room, asked.by); };
    auto after = [&] { return after_of(unit_of(args, room), room, asked.by); };
    if (room.tells) {
        tell_scan(args, room);
        __syncthreads();
        return;
    }
    if (plan_of(args).credit == CREDIT_BROADCAST) {
        const Unit& unit = unit_of(args, room);
        if (asked.all > asked.own && after() > 0 && is_first_thread()) asked.y[asked.own] = first_value(args, unit, owner_of(args, unit, asked.by, after() - 1));
        __syncthreads();
        return;
    }
    if (asked.own == 0 && after() == total()) {
        // No chunk ends here and none before: the one that goes on is the rollout's first.
        const f64 g = asked.all > 0 ? carry_into(args, room, (total() + TILE - 1) / TILE) : 0.0;
        if (asked.all > 0 && is_first_thread()) asked.y[0] = g;
        __syncthreads();
        return;
    }
    const f64 carry = carry_into(args, room, after() / TILE);
    const i64 m = after() / TILE, low = after() % TILE, own = asked.own, all = asked.all;
    const f64* const powers = asked.powers;
    f64* const y = asked.y;
    const Unit& unit = unit_of(args, room);
    const i64* const shared = low == 0 ? 0 : scan_shared(args, unit, owner_of(args, unit, asked.by, smaller((m + 1) * TILE, total()) - 1));
    scan_lines(own + low, powers, shape_of(room).tops, [&](i64 j) { return j < own ? y[j] : f64_of((u64)shared[own + low - 1 - j]); },
               [&](i64 j, f64 g) { if (j < all) y[j] = g; }, carry);
    if (all > own && low == 0 && is_first_thread()) y[own] = carry;
    __syncthreads();
}

INLINE void joint_scan(const Args& args, UnitRoom& room, const JointScan& asked) {
    __syncthreads();
    if (is_first_thread()) room.asked = asked;
    __syncthreads();
    joint_scan(args, room);
}

// D of the rollout's first chunk (or token), whichever piece has it, in every thread. The block.
INLINE f64 joint_path(const Args& args, UnitRoom& room) {
    const PlanConstants& plan = plan_of(args);
    const bool by_token = plan.credits_tokens;
    __syncthreads();
    if (is_first_thread()) room.asked = JointScan{0, plan.spreads ? BY_LINE : by_token ? BY_TOKEN : BY_CHUNK, 0, 0, room.powers, 0};
    __syncthreads();
    auto all = [&] { return total_of(unit_of(args, room), room, room.asked.by); };
    if (all() <= 0) return 0.0;
    const f64 g = plan.credit == CREDIT_BROADCAST ? first_value(args, unit_of(args, room), owner_of(args, unit_of(args, room), room.asked.by, all() - 1))
                                                  : carry_into(args, room, (all() + TILE - 1) / TILE);
    const i64 total = all();
    const f64 d = plan.k == 0.0 || by_token ? g : g * ((const f64*)plan.divisors)[plan.max_rollout_tokens - total];
    const bool apart = plan.divide_scope == DIVIDE_PROCESS && plan.fusion == FUSION_ADVANTAGE && !by_token;
    const Terms& terms = shape_of(room).terms;
    return apart ? d + (terms.gated ? terms.gated_every : sum_of_terms(terms)) : d;
}

#endif
