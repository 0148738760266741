// Chunk boundaries without values: the detector of kind prm (prepare.cuh, chunk.cuh) on a dense signal or on scores, a block a rollout. Twin of primitives/chunks.rs.
#ifndef PASSRL_PRIMITIVES_CHUNKS_CUH
#define PASSRL_PRIMITIVES_CHUNKS_CUH
#include "outputs.cuh"
#include "prepare.cuh"
#include "primitives.cuh"

// A rollout that is in no group: nothing but its chunks is asked for. One thread.
INLINE void open_chunks_room(const Args& args, i64 i, Room& room) {
    room.work.i = i;
    room.work.e = extent(args, i);
    room.work.scope = span_scope(0, 0);
    room.work.kept = Rollout{NO_GROUP, 0, 0, 0, 0, 0, 0, 0};
    room.steps = StepRange{0, 0, true};
    if (is_given(args.batch.step_offsets)) room.steps = step_numbers(args, i);
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS, BLOCKS_AT_ONCE) passrl_primitive_chunks(const __grid_constant__ Args args) {
    open_plan(args);
    SHARED(Room, shared_room, [1]);
    Room& room = shared_room[0];
    const Outputs& o = args.outputs;
    const i64 i = blockIdx.x;
    if (i >= args.batch.rollouts) return;
    if (is_first_thread()) open_chunks_room(args, i, room);
    __syncthreads();
    // Of offsets that do not fit no rollout has a place.
    if (!counts_of(args).bad_offsets && !is_absent(args.batch, i)) prepare_rollout(args, room);
    const Work& w = room.work;
    const i64 k = w.kept.chunks;
    if (is_given(o.num_chunks) && is_first_thread()) store_int(o.num_chunks, i * o.num_chunks.stride[0], k);
    if (!is_given(o.chunk_ends)) return;
    const u32* const last = list_of<u32>(args.work.last, w.e);
    for (i64 j = threadIdx.x; j < k; j += blockDim.x) store_int(o.chunk_ends, chunk_slot(w.e, o.chunk_ends, j), (i64)last[j] + 1);
}

#endif
