// What a block keeps in shared memory while it shapes, each at one address in all kernels: what is handed to a function takes no register over its calls.
#ifndef PASSRL_SHAPE_ROOM_CUH
#define PASSRL_SHAPE_ROOM_CUH
#include "fuse.cuh"
#include "outputs.cuh"
#include "parts.cuh"

struct ShapeRoom {
    Terms terms;
    FusedStreams fusion;
    ScanTops tops;
    Shaping work;
    Whitening whitening;
    // D of the rollout's first line, before the temperature.
    f64 path;
    // The batch's offsets do not fit.
    bool bad_batch;
    // The rollout's way is one scan; its results go to their tokens at once (`direct`).
    bool one_pass, direct;
    // Is it whitened, by statistics that are known?
    bool whitens;
};

INLINE ShapeRoom& shared_shape_room() {
    SHARED(ShapeRoom, room_of_block, [1]);
    return room_of_block[0];
}

constexpr i64 MOST_TILES = MOST_THREADS * PART_ROUNDS / 32;

// What the threads of a part share beside the block's room. Chunks low .. high of the rollout; where the part, and the one after it, stand in the queue (-1: nowhere).
struct PartRoom {
    f64 tops[MOST_TILES], entering[MOST_TILES];
    i64 low, high, own, next;
};

// Chunks whose results and last tokens stay in shared memory from the scan to the output, in the kernel whose way is one scan.
constexpr i64 CHUNKS_AT_HAND = 512;
union Chunks {
    struct {
        f64 d[CHUNKS_AT_HAND];
        u32 last[CHUNKS_AT_HAND];
    };
    // Of a rollout in parts there is none.
    PartRoom part;
};

// Of the kernel whose blocks may have a part of a rollout.
INLINE Task& shared_shape_task() {
    SHARED(Task, task_of_block, [1]);
    return task_of_block[0];
}
INLINE Chunks& shared_chunks() {
    SHARED(Chunks, chunks_of_block, [1]);
    return chunks_of_block[0];
}

#endif
