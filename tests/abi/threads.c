/* Many threads run one plan, each with its own workspace and outputs, some through partials; every result has the bits of the first. */
#include "common.h"
#include <pthread.h>

enum { THREADS = 12, RUNS = 12 };
static sample shared;
static passrl_plan *plan;
static float *want;

static void *work(void *argument) {
    long id = (long)argument;
    size_t bytes, part;
    OK(passrl_plan_workspace_size(plan, &bytes));
    OK(passrl_partials_size(plan, &part));
    void *workspace = aligned_alloc(64, (bytes + 127) / 64 * 64), *buffer = malloc(part);
    float *mine = malloc((size_t)shared.tokens * 4);
    passrl_view view = shared.v[10];
    passrl_outputs outputs;
    OK(passrl_outputs_init(&outputs, sizeof outputs));
    view.data = mine;
    outputs.advantages = &view;
    for (int run = 0; run < RUNS; run++) {
        memset(mine, 0xA5, (size_t)shared.tokens * 4);
        if ((run + id) % 3) {
            OK(passrl_plan_run(plan, &shared.batch, &outputs, workspace, bytes, NULL));
        } else {
            int32_t phases;
            OK(passrl_plan_phases(plan, &phases));
            OK(passrl_partials_init(plan, buffer, part));
            for (int32_t phase = 0; phase < phases; phase++)
                OK(passrl_partials_add(plan, phase, &shared.batch, buffer, part, workspace, bytes, NULL));
            OK(passrl_plan_apply(plan, &shared.batch, buffer, part, &outputs, workspace, bytes, NULL));
        }
        CHECK(memcmp(want, mine, (size_t)shared.tokens * 4) == 0);
        /* Last errors are each thread's own. */
        char words[64];
        snprintf(words, sizeof words, "limits.rollouts allows 0 to %lld", (long long)shared.rollouts);
        passrl_batch bad = shared.batch;
        bad.num_rollouts = 1000000 + id;
        CHECK(passrl_plan_run(plan, &bad, &outputs, workspace, bytes, NULL) == PASSRL_ERR_LIMIT);
        char number[32];
        snprintf(number, sizeof number, "is %ld;", 1000000 + id);
        CHECK(strstr(passrl_last_error(), number) && strstr(passrl_last_error(), words));
    }
    free(workspace), free(buffer), free(mine);
    return NULL;
}

int main(void) {
    for (int kind = PRM_CSR; kind <= KL; kind += 2) {
        for (int threads = 1; threads <= 4; threads += 3) {
            sample_make(&shared, 48, 96, kind == KL, kind);
            shared.config.whiten = PASSRL_WHITEN_TOKENS;
            passrl_context *context = context_of(threads);
            void *workspace;
            size_t bytes;
            plan = plan_of(context, &shared, &workspace, &bytes);
            OK(passrl_plan_run(plan, &shared.batch, &shared.outputs, workspace, bytes, NULL));
            want = shared.advantages;
            pthread_t all[THREADS];
            for (long i = 0; i < THREADS; i++) CHECK(pthread_create(&all[i], NULL, work, (void *)i) == 0);
            for (int i = 0; i < THREADS; i++) CHECK(pthread_join(all[i], NULL) == 0);
            free(workspace);
            passrl_plan_destroy(plan);
            passrl_context_destroy(context);
            sample_free(&shared);
        }
    }
    return 0;
}
