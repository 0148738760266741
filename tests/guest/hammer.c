/* Three contexts, four plans, eight threads: some run any of the plans with their own workspace, some make and destroy contexts and plans of their own all the
 * while. Every result has the bits of a run alone. */
#include "../abi/common.h"
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { PLANS = 4, THREADS = 8, RUNNERS = 5 };
static const int kinds[PLANS] = {PRM_CSR, PRM_DENSE, KL, OPD}, padded[PLANS] = {0, 1, 0, 1};
static passrl_plan *plans[PLANS];
static size_t sizes[PLANS];
static float *want[PLANS];
static atomic_int stop;
static atomic_long runs, lives;

static void make(sample *s, int p) {
    sample_make(s, 32, 64, padded[p], kinds[p]);
    if (p % 2) s->config.whiten = PASSRL_WHITEN_TOKENS;
}

static void check(passrl_plan *plan, sample *s, void *workspace, size_t bytes, int p) {
    memset(s->advantages, 0xA5, (size_t)s->tokens * 4);
    OK(passrl_plan_run(plan, &s->batch, &s->outputs, workspace, bytes, NULL));
    CHECK(memcmp(want[p], s->advantages, (size_t)s->tokens * 4) == 0);
}

static void *runner(void *id) {
    uint32_t state = (uint32_t)(long)id;
    sample own[PLANS];
    void *memory[PLANS];
    for (int p = 0; p < PLANS; p++) make(&own[p], p), memory[p] = aligned_alloc(64, (sizes[p] + 127) / 64 * 64);
    while (!atomic_load(&stop)) {
        int p = (int)(noise(&state) % PLANS);
        check(plans[p], &own[p], memory[p], sizes[p], p);
        atomic_fetch_add(&runs, 1);
    }
    for (int p = 0; p < PLANS; p++) sample_free(&own[p]), free(memory[p]);
    return NULL;
}

static void *maker(void *id) {
    uint32_t state = (uint32_t)(long)id;
    while (!atomic_load(&stop)) {
        int p = (int)(noise(&state) % PLANS);
        sample own;
        make(&own, p);
        passrl_context *context = context_of(1 + (int)(noise(&state) % 4));
        void *memory;
        size_t bytes;
        passrl_plan *plan = plan_of(context, &own, &memory, &bytes);
        if (noise(&state) % 2) passrl_context_destroy(context), context = NULL;
        check(plan, &own, memory, bytes, p);
        passrl_plan_destroy(plan);
        passrl_context_destroy(context);
        free(memory);
        sample_free(&own);
        atomic_fetch_add(&lives, 1);
    }
    return NULL;
}

int main(void) {
    passrl_context *contexts[3], *alone = context_of(1);
    for (int c = 0; c < 3; c++) contexts[c] = context_of(1 + c);
    for (int p = 0; p < PLANS; p++) {
        sample s;
        void *memory;
        make(&s, p);
        passrl_plan *serial = plan_of(alone, &s, &memory, &sizes[p]);
        OK(passrl_plan_run(serial, &s.batch, &s.outputs, memory, sizes[p], NULL));
        want[p] = memcpy(malloc((size_t)s.tokens * 4), s.advantages, (size_t)s.tokens * 4);
        free(memory);
        passrl_plan_destroy(serial);
        plans[p] = plan_of(contexts[p % 3], &s, &memory, &sizes[p]);
        free(memory);
        sample_free(&s);
    }
    pthread_t threads[THREADS];
    for (long i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, i < RUNNERS ? runner : maker, (void *)(i + 1)) == 0);
    struct timespec second = {1, 500000000};
    nanosleep(&second, NULL);
    atomic_store(&stop, 1);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    for (int p = 0; p < PLANS; p++) passrl_plan_destroy(plans[p]), free(want[p]);
    for (int c = 0; c < 3; c++) passrl_context_destroy(contexts[c]);
    passrl_context_destroy(alone);
    printf("%ld runs beside %ld lives of contexts\n", atomic_load(&runs), atomic_load(&lives));
    CHECK(atomic_load(&runs) > 100 && atomic_load(&lives) > 20);
    return 0;
}
