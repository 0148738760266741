// Per-step discounted return-to-go over the lines of a rollout (eq. 3, eq. 7). Positions are counted from the rollout's end, so that gaps, padding and
// compressed input cannot shift the tiles (numerics contract 5.5). Twin of returns.rs and tile.rs.
#ifndef PASSRL_RETURNS_CUH
#define PASSRL_RETURNS_CUH
#include "args.cuh"
#include "block.cuh"

// What a scan keeps in shared memory: the tiles' tops of two rounds, so that one barrier a round is enough; c, c^2, c^4, c^8, c^16, which would take ten
// registers of every thread; and c^0 .. c^32, which are the plan's.
struct ScanTops {
    f64 tops[2][MOST_WARPS];
    f64 steps[5];
    f64 powers[33];
    // What enters the round's first tile, a copy a warp.
    f64 carries[MOST_WARPS];
};

// Makes the coefficients ready for all: the block meets after it.
INLINE void open_scan(const f64 *powers, ScanTops &shared) {
    for (i32 m = (i32)threadIdx.x; m < 33; m += (i32)blockDim.x) shared.powers[m] = powers[m];
    if (!is_first_thread()) return;
    shared.steps[0] = powers[1];
    for (i32 d = 1; d < 5; d++) shared.steps[d] = shared.steps[d - 1] * shared.steps[d - 1];
}

// powers[m] = c^m, m = 0 .. 32, by repeated multiplication: of a coefficient that only the rollout knows. One thread; the block meets after it.
INLINE void decay_powers(f64 c, f64 *powers) {
    f64 power = 1.0;
    // (One after another: so many at once would take the registers of all that is around it.)
#pragma unroll 1
    for (i32 m = 0; m <= 32; m++) {
        powers[m] = power;
        power *= c;
    }
}

// G_j = sum over j' >= j of c^(j'-j) y_j' for j in 0 .. n(), y_j = load(j), handed to store(j, G_j). All threads of the block; n() is the block's.
// A warp takes a tile of 32 positions, lane p the p-th from the tile's end: neighbouring lanes read neighbouring elements. Log steps by shuffles, then the
// carries of the tiles in their order: every warp walks the chain of the round's tops, a lane holding each, so none waits for another warp's carry.
// store(j) may overwrite what load(j) reads, and nothing that another position's load reads. The block meets before the first load and after the last store.
// UNIT: c is 1, and what is multiplied by it is as it is. CALLS: load and store call functions, which leave few registers: what a thread knows from round to round
// stands in shared memory or is asked again. `carry`: G after the last line. `scans` false: nothing is added up, and store(j) has what load(j) has.
template <bool UNIT, bool CALLS, class Count, class Load, class Store>
INLINE void scan_lines_by(Count n, const f64 *powers, ScanTops &shared, Load load, Store store, f64 carry = 0.0, bool scans = true) {
    auto thread = [&] { return (i32)(CALLS ? THREAD_NUMBER() : threadIdx.x); };
    auto own_lane = [&] { return thread() & 31; };
    auto own_warp = [&] { return thread() >> 5; };
    // (A rollout has less than 2^31 lines: numbers of 32 bits take half the registers.)
    auto lines = [&] { return (u32)n(); };
    if (!UNIT) open_scan(powers, shared);
    if (CALLS && own_lane() == 0) shared.carries[own_warp()] = carry;
    __syncthreads();
    // (The lowest bit is the round's; above it stands how many lines are done, which is even.)
    for (u32 at = 0; (at & ~1u) < lines(); at = (at + 32 * (u32)warps()) ^ 1) {
        auto line = [&] { return (i32)(lines() - 1 - ((at & ~1u) + (u32)thread())); };
        f64 y = line() >= 0 ? load((i64)line()) : 0.0;
        if (scans) {
#pragma unroll
            for (i32 d = 0; d < 5; d++) {
                const f64 before = __shfl_up_sync(WARP, y, 1 << d);
                const f64 taken = own_lane() >= 1 << d ? before : 0.0;
                y = y + (UNIT ? taken : shared.steps[d] * taken);
            }
            if (own_lane() == 31) shared.tops[at & 1][own_warp()] = y;
            __syncthreads();
            const f64 top = own_lane() < warps() ? shared.tops[at & 1][own_lane()] : 0.0, power = UNIT ? 1.0 : shared.powers[32];
            if (CALLS) carry = shared.carries[own_warp()];
            f64 entering = carry;
            for (i32 w = 0; w < warps(); w++) {
                if (w == own_warp()) entering = carry;
                const f64 own_top = __shfl_sync(WARP, top, w);
                carry = own_top + (UNIT ? carry : power * carry);
            }
            if (CALLS && own_lane() == 0) shared.carries[own_warp()] = carry;
            y = y + (UNIT ? entering : shared.powers[own_lane() + 1] * entering);
        }
        if (line() >= 0) store((i64)line(), y);
    }
    __syncthreads();
}
template <class Load, class Store>
INLINE void scan_lines(i64 n, const f64 *powers, ScanTops &shared, Load load, Store store, f64 carry = 0.0) {
    scan_lines_by<false, false>([&] { return n; }, powers, shared, load, store, carry);
}

#endif
