/* Nothing stays behind: threads, file descriptors, blocks of memory and address space over many lives of contexts and plans, in both orders of
 * destruction, over refusals, over threads that come and go, and over pools that could not be started. A block a cycle fails. */
#define _GNU_SOURCE
#include "../abi/common.h"
#include "heap.h"
#include "proc.h"
#include <dlfcn.h>
#include <pthread.h>

static void heap_gate(void) {}

static sample s;

static void life(int threads, int context_first) {
    passrl_context *context = context_of(threads);
    void *workspace;
    size_t bytes, part;
    passrl_plan *plan = plan_of(context, &s, &workspace, &bytes);
    OK(passrl_plan_run(plan, &s.batch, &s.outputs, workspace, bytes, NULL));
    OK(passrl_partials_size(plan, &part));
    void *buffer = malloc(part);
    OK(passrl_partials_init(plan, buffer, part));
    for (int phase = 0; phase < 2; phase++) OK(passrl_partials_add(plan, phase, &s.batch, buffer, part, workspace, bytes, NULL));
    OK(passrl_plan_apply(plan, &s.batch, buffer, part, &s.outputs, workspace, bytes, NULL));
    if (context_first) passrl_context_destroy(context);
    passrl_plan_destroy(plan);
    if (!context_first) passrl_context_destroy(context);
    free(buffer), free(workspace);
}

static void one_thread(void) { life(1, 0); }
static void pool(void) { life(3, 0); }
static void pool_context_first(void) { life(2, 1); }

static void refusals(void) {
    passrl_context_options options;
    passrl_context *context = NULL;
    passrl_plan *plan = NULL;
    OK(passrl_context_options_init(&options, sizeof options));
    options.threads = -1;
    CHECK(passrl_context_create(&options, &context) < 0);
    options.threads = 0, options.backend = PASSRL_CUDA, options.device = 1 << 20; /* none, whatever driver there is */
    CHECK(passrl_context_create(&options, &context) < 0);
    passrl_config config = s.config;
    CHECK(passrl_config_set(&config, "gama", "1") == PASSRL_ERR_UNKNOWN_NAME);
    CHECK(passrl_config_set(&config, "chunk", "by_valu") < 0);
    CHECK(passrl_config_init_preset(&config, sizeof config, "pas") < 0);
    context = context_of(2);
    config = s.config, config.k = 9;
    CHECK(passrl_plan_create(context, &config, &s.limits, NULL, &plan) < 0);
    passrl_limits limits = s.limits;
    limits.rollout_tokens = limits.tokens = (int64_t)1 << 50;
    CHECK(passrl_plan_create(context, &s.config, &limits, NULL, &plan) < 0);
    passrl_context_destroy(context);
}

static passrl_plan *shared;
static size_t shared_bytes;

static void *visitor(void *none) {
    sample own;
    sample_make(&own, 8, 16, 0, PRM_CSR);
    void *workspace = aligned_alloc(64, (shared_bytes + 127) / 64 * 64);
    OK(passrl_plan_run(shared, &own.batch, &own.outputs, workspace, shared_bytes, NULL));
    own.batch.num_rollouts = 77;
    CHECK(passrl_plan_run(shared, &own.batch, &own.outputs, workspace, shared_bytes, NULL) < 0);
    CHECK(strstr(passrl_last_error(), "77"));
    free(workspace);
    sample_free(&own);
    return none;
}

/* Threads of the host that come, run, fail and go. */
static void visitors(void) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, visitor, NULL) == 0);
    for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

/* The system's limit of threads, met by the third: the pool is refused with a sentence, and those that did start are gone. */
static atomic_int may_start = -1;
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*work)(void *), void *argument) {
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    if (atomic_load(&may_start) == 0) return EAGAIN;
    if (atomic_load(&may_start) > 0) atomic_fetch_sub(&may_start, 1);
    return real(thread, attributes, work, argument);
}

static void no_room(void) {
    passrl_context *context = context_of(6);
    passrl_plan *plan = NULL;
    atomic_store(&may_start, 2);
    int status = passrl_plan_create(context, &s.config, &s.limits, NULL, &plan);
    atomic_store(&may_start, -1);
    CHECK(status == PASSRL_ERR_RESOURCE && strstr(passrl_last_error(), "6 threads could not be started"));
    CHECK(threads_settle(1) == 1);
    passrl_context_destroy(context);
}

static void held(const char *name, void (*cycle)(void), int warm, int cycles) {
    int threads = threads_here(), files = files_here();
    for (int i = 0; i < warm; i++) cycle();
    CHECK(threads_settle(threads) == threads);
    long live = atomic_load(&heap_live), taken = atomic_load(&heap_taken), size = statm(0), resident = statm(1);
    for (int i = 0; i < cycles; i++) cycle();
    CHECK(threads_settle(threads) == threads);
    long more = atomic_load(&heap_live) - live, grown = statm(0) - size, kept = statm(1) - resident;
    printf("%s: %d cycles, %ld blocks taken, %ld more are out, address space +%ld KiB, memory +%ld KiB\n", name, cycles,
           atomic_load(&heap_taken) - taken, more, grown, kept);
    CHECK(files_here() == files);
    /* The queues of a thread pool give their garbage back in batches: that much may be out at any moment. A block a cycle is far beyond it. */
    CHECK(more < cycles / 4);
    CHECK(atomic_load(&heap_taken) - taken > cycles);
    CHECK(kept < 4096 && grown < 300 * 1024);
}

int main(void) {
    sample_make(&s, 8, 16, 0, PRM_CSR);
    held("one thread", one_thread, 50, 2000);
    held("pool of 3", pool, 50, 1000);
    held("pool of 2, context first", pool_context_first, 50, 1000);
    held("refusals", refusals, 50, 1000);
    passrl_context *context = context_of(2);
    void *workspace;
    shared = plan_of(context, &s, &workspace, &shared_bytes);
    held("visiting threads", visitors, 100, 500);
    passrl_plan_destroy(shared);
    passrl_context_destroy(context);
    held("no room for threads", no_room, 50, 500);
    free(workspace);
    sample_free(&s);
    return 0;
}
