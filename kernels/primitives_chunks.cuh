// Chunk boundaries without values: the detector of kind prm (prepare.cuh, chunk.cuh) on a dense signal or on scores, a block a rollout. Twin of primitives/chunks.rs.
#ifndef PASSRL_PRIMITIVES_CHUNKS_CUH
#define PASSRL_PRIMITIVES_CHUNKS_CUH
#include "outputs.cuh"
#include "prepare.cuh"
#include "primitives.cuh"

// A rollout that is in no group: nothing but its chunks is asked for. One thread.
INLINE void open_chunks_room(const Args& args, i64 i, Room& room) {
    room.task = Task{i, -1, 0, -1, 0, true};
    shared_work().i = i;
    shared_work().e = extent(args, i);
    shared_work().scope = span_scope(0, 0);
    shared_work().kept = Rollout{NO_GROUP, 0, 0, 0, 0, 0, 0, 0};
    room.steps = StepRange{0, 0, true};
    if (is_given(args.batch.step_offsets)) room.steps = step_numbers(args, i);
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS, BLOCKS_AT_ONCE) passrl_primitive_chunks(const __grid_constant__ Args given) {
    const Args& args = open_args(given);
    Room& room = shared_room();
    const Outputs& o = args.outputs;
    const i64 i = blockIdx.x;
    if (i >= args.batch.rollouts) return;
    if (is_first_thread()) open_chunks_room(args, i, room);
    __syncthreads();
    // Of offsets that do not fit no rollout has a place.
    if (!counts_of(args).bad_offsets && !is_absent(args.batch, i)) prepare_rollout(args, room);
    const Work& w = shared_work();
    const i64 k = w.kept.chunks;
    if (is_given(o.num_chunks) && is_first_thread()) store_int(o.num_chunks, i * o.num_chunks.stride[0], k);
    if (!is_given(o.chunk_ends)) return;
    const u32* const last = list_of<u32>(args.work.last, w.e);
    for (i64 j = threadIdx.x; j < k; j += blockDim.x) store_int(o.chunk_ends, chunk_slot(w.e, o.chunk_ends, j), (i64)last[j] + 1);
}

#endif
