/* Ways for a process and its threads to end: argument "main" (runs under way in other threads while main returns), "handler" (an exit handler and a
 * destructor run the plan and destroy it), "key" (a thread's destructor runs after the library's own thread-locals may be gone), "stack" (threads of 64
 * KiB). Exit status 0, nothing said. */
#define _GNU_SOURCE
#include "../abi/common.h"
#include <limits.h>
#include <pthread.h>
#include <unistd.h>

static sample s;
static passrl_context *context;
static passrl_plan *plan;
static void *workspace;
static size_t bytes;
static float *want;
static int at_end;

static void run_own(void) {
    sample own;
    sample_make(&own, 32, 64, 0, PRM_CSR);
    void *memory = aligned_alloc(64, (bytes + 127) / 64 * 64);
    OK(passrl_plan_run(plan, &own.batch, &own.outputs, memory, bytes, NULL));
    CHECK(memcmp(want, own.advantages, (size_t)own.tokens * 4) == 0);
    CHECK(passrl_plan_run(plan, &own.batch, &own.outputs, memory, 1, NULL) < 0 && passrl_last_error()[0]);
    free(memory);
    sample_free(&own);
}

static void *for_ever(void *none) {
    for (;;) run_own();
    return none;
}
static void *once(void *none) { run_own(); return none; }

static void end(void) {
    run_own();
    passrl_plan *another;
    void *memory;
    size_t size;
    another = plan_of(context, &s, &memory, &size);
    passrl_plan_destroy(another);
    passrl_plan_destroy(plan);
    passrl_context_destroy(context);
    free(memory);
}

static void handler(void) { if (at_end == 1) end(); }
__attribute__((destructor)) static void last_of_all(void) { if (at_end == 2) end(); }

/* glibc runs these after the C++ and Rust destructors of the thread; setting the key again asks for another round. */
static pthread_key_t key;
static void thread_end(void *round) {
    run_own();
    if ((long)round < PTHREAD_DESTRUCTOR_ITERATIONS) CHECK(pthread_setspecific(key, (void *)((long)round + 1)) == 0);
}
static void *with_key(void *none) {
    run_own();
    CHECK(pthread_setspecific(key, (void *)1L) == 0);
    return none;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    const char *mode = argv[1];
    sample_make(&s, 32, 64, 0, PRM_CSR);
    context = context_of(3);
    plan = plan_of(context, &s, &workspace, &bytes);
    OK(passrl_plan_run(plan, &s.batch, &s.outputs, workspace, bytes, NULL));
    want = s.advantages;
    pthread_t threads[4];
    if (!strcmp(mode, "main")) {
        for (int i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, for_ever, NULL) == 0);
        usleep(3000);
    } else if (!strcmp(mode, "handler")) {
        at_end = 1;
        CHECK(atexit(handler) == 0);
    } else if (!strcmp(mode, "destructor")) {
        at_end = 2;
    } else if (!strcmp(mode, "key")) {
        CHECK(pthread_key_create(&key, thread_end) == 0);
        for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, with_key, NULL) == 0);
        for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    } else if (!strcmp(mode, "stack")) {
        pthread_attr_t small;
        CHECK(pthread_attr_init(&small) == 0 && pthread_attr_setstacksize(&small, 64 * 1024) == 0);
        for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], &small, once, NULL) == 0);
        for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    } else {
        CHECK(!"a mode");
    }
    return 0;
}
