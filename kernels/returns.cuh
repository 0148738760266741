// Per-step discounted return-to-go over the lines of a rollout (eq. 3, eq. 7). Positions are counted from the rollout's end, so that gaps, padding and
// compressed input cannot shift the tiles (numerics contract 5.5). Twin of returns.rs and tile.rs.
#ifndef PASSRL_RETURNS_CUH
#define PASSRL_RETURNS_CUH
#include "args.cuh"
#include "block.cuh"

// What a scan keeps in shared memory: the tiles' tops of two rounds, so that one barrier a round is enough.
struct ScanTops {
    f64 tops[2][MOST_WARPS];
};

// powers[m] = c^m, m = 0 .. 32, by repeated multiplication: of a coefficient that only the rollout knows. One thread; the block meets after it.
INLINE void decay_powers(f64 c, f64 *powers) {
    powers[0] = 1.0;
    for (i32 m = 1; m <= 32; m++) powers[m] = powers[m - 1] * c;
}

// G_j = sum over j' >= j of c^(j'-j) y_j' for j in 0 .. n, y_j = load(j), handed to store(j, G_j). All threads of the block; n is the block's.
// A warp takes a tile of 32 positions, lane p the p-th from the tile's end: neighbouring lanes read neighbouring elements. Log steps by shuffles, then the
// carries of the tiles in their order: every thread walks the chain of the round's tops, so none waits for another warp's carry.
// store(j) may overwrite what load(j) reads, and nothing that another position's load reads. The block meets before the first load and after the last store.
template <class Load, class Store>
INLINE void scan_lines(i64 n, const f64 *powers, ScanTops &shared, Load load, Store store) {
    const i32 own_lane = lane(), own_warp = warp(), count = warps();
    const f64 c1 = powers[1], c2 = c1 * c1, c4 = c2 * c2, c8 = c4 * c4, c16 = c8 * c8, c32 = powers[32], own = powers[own_lane + 1];
    f64 carry = 0.0;
    i32 round = 0;
    __syncthreads();
    for (i64 done = 0; done < n; done += 32 * (i64)count, round ^= 1) {
        const i64 j = n - 1 - (done + 32 * (i64)own_warp + own_lane);
        f64 y = j >= 0 ? load(j) : 0.0;
        f64 before;
#define PASSRL_SCAN_STEP(distance, c)                            \
    before = __shfl_up_sync(WARP, y, distance);             \
    y = y + (c) * (own_lane >= distance ? before : 0.0);
        PASSRL_SCAN_STEP(1, c1)
        PASSRL_SCAN_STEP(2, c2)
        PASSRL_SCAN_STEP(4, c4)
        PASSRL_SCAN_STEP(8, c8)
        PASSRL_SCAN_STEP(16, c16)
#undef PASSRL_SCAN_STEP
        if (own_lane == 31) shared.tops[round][own_warp] = y;
        __syncthreads();
        f64 entering = carry;
        for (i32 w = 0; w < count; w++) {
            if (w == own_warp) entering = carry;
            carry = shared.tops[round][w] + c32 * carry;
        }
        if (j >= 0) store(j, y + own * entering);
    }
    __syncthreads();
}

#endif
