/* A host program in C: two groups of rollouts shaped on the device and on the CPU; every byte of the outputs is the same. The driver is found at run time. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <passrl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OK(call)                                                                                  \
    do {                                                                                          \
        passrl_status status_ = (call);                                                           \
        if (status_ != PASSRL_OK) {                                                               \
            fprintf(stderr, "%s: %s: %s\n", #call, passrl_status_name(status_), passrl_last_error()); \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)
#define CUDA(name, ...) cuda(#name, name(__VA_ARGS__))

enum { R = 6, N = 60, S = 18, G = 2 };

/* The driver's functions, as cuda.h has them. */
static int (*cuInit)(unsigned), (*cuDevicePrimaryCtxRetain)(void **, int), (*cuCtxSetCurrent)(void *), (*cuMemAlloc_v2)(uint64_t *, size_t),
    (*cuMemFree_v2)(uint64_t), (*cuMemcpyHtoD_v2)(uint64_t, const void *, size_t), (*cuMemcpyDtoH_v2)(void *, uint64_t, size_t),
    (*cuStreamCreate)(void **, unsigned), (*cuStreamSynchronize)(void *), (*cuStreamDestroy_v2)(void *);

static void load(void *driver, const char *name, void *to) {
    void *found = dlsym(driver, name);
    if (!found) {
        fprintf(stderr, "no %s\n", name);
        exit(1);
    }
    memcpy(to, &found, sizeof found);
}

static void cuda(const char *name, int error) {
    if (error) {
        fprintf(stderr, "%s: error %d\n", name, error);
        exit(1);
    }
}

/* Host memory and, where the run is on the device, a copy of it. */
typedef struct {
    void *host;
    size_t bytes;
    uint64_t device;
    passrl_view view;
} array;

static passrl_view *place(array *a, void *host, int64_t rows, int64_t columns, int dtype, size_t each, int device) {
    a->host = host;
    a->bytes = (size_t)(rows * columns) * each;
    a->view = (passrl_view){host, {rows, columns}, {columns, 1}, columns > 1 ? 2 : 1, dtype, device ? PASSRL_CUDA : PASSRL_CPU, 0};
    if (columns == 1) a->view.stride[0] = 1;
    if (device) {
        CUDA(cuMemAlloc_v2, &a->device, a->bytes);
        CUDA(cuMemcpyHtoD_v2, a->device, host, a->bytes);
        a->view.data = (void *)(uintptr_t)a->device;
    }
    return &a->view;
}

static void back(array *a) {
    if (a->device) {
        CUDA(cuMemcpyDtoH_v2, a->host, a->device, a->bytes);
        CUDA(cuMemFree_v2, a->device);
    }
}

/* Advantages, counts of chunks, statistics; what the report says. */
typedef struct {
    float advantages[N];
    int64_t chunks[R];
    double means[G * PASSRL_MAX_STREAMS];
    passrl_report report;
} result;

static void shape(int device, const char *nvrtc, result *out) {
    static float scores[S], outcome[R];
    static int32_t lens[R + 1], steps[R + 1], ends[S], groups[R];
    for (int i = 0; i < R; i++) {
        lens[i + 1] = lens[i] + 8 + i % 3 * 2;
        steps[i + 1] = steps[i] + 3;
        groups[i] = i % G;
        outcome[i] = (float)(i % 4) / 3;
        for (int j = 0; j < 3; j++) {
            ends[3 * i + j] = j == 2 ? lens[i + 1] - lens[i] : 3 * (j + 1);
            scores[3 * i + j] = (float)((7 * i + 3 * j) % 5) / 4;
        }
    }
    passrl_context_options options;
    passrl_config config;
    passrl_limits limits;
    passrl_batch batch;
    passrl_outputs outputs;
    passrl_context *context;
    passrl_plan *plan;
    OK(passrl_context_options_init(&options, sizeof options));
    options.cache_dir = "";
    options.nvrtc = nvrtc;
    if (device) options.backend = PASSRL_CUDA, options.device = -1, options.kernels = PASSRL_KERNELS_NVRTC;
    OK(passrl_context_create(&options, &context));
    OK(passrl_config_init_preset(&config, sizeof config, "pass"));
    OK(passrl_limits_init(&limits, sizeof limits));
    limits.rollouts = R, limits.groups = G, limits.tokens = N, limits.rollout_tokens = 16, limits.steps = S;
    OK(passrl_plan_create(context, &config, &limits, NULL, &plan));
    array a[10] = {{0}};
    OK(passrl_batch_init(&batch, sizeof batch));
    OK(passrl_outputs_init(&outputs, sizeof outputs));
    batch.num_rollouts = R;
    batch.cu_seqlens = place(&a[0], lens, R + 1, 1, PASSRL_I32, 4, device);
    batch.step_offsets = place(&a[1], steps, R + 1, 1, PASSRL_I32, 4, device);
    batch.step_ends = place(&a[2], ends, S, 1, PASSRL_I32, 4, device);
    batch.step_scores = place(&a[3], scores, S, 1, PASSRL_F32, 4, device);
    batch.group_index = place(&a[4], groups, R, 1, PASSRL_I32, 4, device);
    batch.outcome = place(&a[5], outcome, R, 1, PASSRL_F32, 4, device);
    outputs.advantages = place(&a[6], out->advantages, N, 1, PASSRL_F32, 4, device);
    outputs.num_chunks = place(&a[7], out->chunks, R, 1, PASSRL_I64, 8, device);
    outputs.stats_mean = place(&a[8], out->means, G, PASSRL_MAX_STREAMS, PASSRL_F64, 8, device);
    OK(passrl_report_init(&out->report, sizeof out->report));
    outputs.report = place(&a[9], &out->report, 1, 1, PASSRL_U8, sizeof out->report, device)->data;
    size_t bytes;
    OK(passrl_plan_workspace_size(plan, &bytes));
    void *workspace = NULL, *stream = NULL;
    uint64_t memory = 0;
    if (device) {
        CUDA(cuMemAlloc_v2, &memory, bytes);
        CUDA(cuStreamCreate, &stream, 1);
        workspace = (void *)(uintptr_t)memory;
    } else {
        workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
    }
    OK(passrl_plan_run(plan, &batch, &outputs, workspace, bytes, stream));
    if (device) {
        CUDA(cuStreamSynchronize, stream);
        CUDA(cuMemFree_v2, memory);
        CUDA(cuStreamDestroy_v2, stream);
    } else {
        free(workspace);
    }
    for (int i = 0; i < 10; i++) back(&a[i]);
    OK(passrl_report_status(&out->report));
    passrl_plan_destroy(plan);
    passrl_context_destroy(context);
}

int main(int count, char **words) {
    static result cpu, cuda_result;
    void *context;
    void *driver = dlopen("libcuda.so", RTLD_NOW);
    if (count < 2 || !driver) {
        fprintf(stderr, "usage: shape NVRTC, with a libcuda.so to be found\n");
        return 2;
    }
#define LOAD(name) load(driver, #name, &name)
    LOAD(cuInit), LOAD(cuDevicePrimaryCtxRetain), LOAD(cuCtxSetCurrent), LOAD(cuMemAlloc_v2), LOAD(cuMemFree_v2), LOAD(cuMemcpyHtoD_v2);
    LOAD(cuMemcpyDtoH_v2), LOAD(cuStreamCreate), LOAD(cuStreamSynchronize), LOAD(cuStreamDestroy_v2);
    CUDA(cuInit, 0);
    CUDA(cuDevicePrimaryCtxRetain, &context, 0);
    CUDA(cuCtxSetCurrent, context);
    memset(&cuda_result, 0x5a, sizeof cuda_result);
    shape(0, NULL, &cpu);
    shape(1, words[1], &cuda_result);
    if (memcmp(cpu.advantages, cuda_result.advantages, sizeof cpu.advantages) || memcmp(cpu.chunks, cuda_result.chunks, sizeof cpu.chunks) ||
        memcmp(cpu.means, cuda_result.means, sizeof cpu.means) || cpu.report.tokens != cuda_result.report.tokens || cpu.advantages[0] == 0) {
        fprintf(stderr, "the device has other bits than the CPU\n");
        return 1;
    }
    printf("%lld tokens, the same bits\n", (long long)cpu.report.tokens);
    return 0;
}
