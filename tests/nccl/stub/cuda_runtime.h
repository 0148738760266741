/* What nccl.h needs of CUDA's headers, which are not here: the types of a stream and an event. */
#include <stddef.h>
typedef struct CUstream_st *cudaStream_t;
typedef struct CUevent_st *cudaEvent_t;
