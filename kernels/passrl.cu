// All kernels: one translation unit, compiled by nvcc into a fatbin, by NVRTC from the embedded source, and by the simulated driver of the tests. Compile
// with --fmad=false --ftz=false --prec-div=true --prec-sqrt=true: the bits are part of the contract.
#include "args.cuh"
#include "device.cuh"
#include "gae_run.cuh"
#include "pieces.cuh"
#include "prepare.cuh"
#include "primitives.cuh"
#include "primitives_chunks.cuh"
#include "primitives_groups.cuh"
#include "ranks.cuh"
#include "shape.cuh"
#include "sums.cuh"
