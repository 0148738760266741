/* Run under count_alloc.so: from the first run on, passrl_plan_run, passrl_partials_add and passrl_plan_apply take no memory, whatever the threads. */
#define _GNU_SOURCE
#include "common.h"
#include <dlfcn.h>
#include <unistd.h>

static long (*taken)(void), (*given)(void);
static void (*counting)(int);

static void *symbol(const char *name) {
    void *found = dlsym(RTLD_DEFAULT, name);
    if (!found) fprintf(stderr, "%s is missing: preload count_alloc.so\n", name), exit(1);
    return found;
}

int main(void) {
    *(void **)&taken = symbol("count_alloc_taken"), *(void **)&given = symbol("count_alloc_given"), *(void **)&counting = symbol("count_alloc_set");
    /* The shim counts at all. */
    counting(1);
    void *volatile probe = malloc(10);
    free(probe);
    counting(0);
    CHECK(taken() == 1 && given() == 1);
    const int whitens[] = {PASSRL_WHITEN_NONE, PASSRL_WHITEN_TOKENS, PASSRL_WHITEN_ROLLOUTS};
    for (int threads = 1; threads <= 3; threads++) for (int padded = 0; padded < 2; padded++) for (int kind = PRM_CSR; kind <= OPD; kind++) for (int w = 0; w < 3; w++) {
        sample s;
        sample_make(&s, 32, 64, padded, kind);
        s.config.whiten = whitens[w];
        passrl_context *context = context_of(threads);
        void *workspace;
        size_t bytes, part;
        passrl_plan *plan = plan_of(context, &s, &workspace, &bytes);
        OK(passrl_partials_size(plan, &part));
        void *buffer = malloc(part);
        int32_t phases;
        OK(passrl_plan_phases(plan, &phases));
        OK(passrl_partials_init(plan, buffer, part));
        int calls = 0, status = 0;
        long before = taken(), back = given();
        counting(1);
        for (int run = 0; run < 50; run++, calls++) status |= passrl_plan_run(plan, &s.batch, &s.outputs, workspace, bytes, NULL);
        for (int32_t phase = 0; phase < phases; phase++, calls++)
            status |= passrl_partials_add(plan, phase, &s.batch, buffer, part, workspace, bytes, NULL);
        for (int run = 0; run < 50; run++, calls++) status |= passrl_plan_apply(plan, &s.batch, buffer, part, &s.outputs, workspace, bytes, NULL);
        counting(0);
        CHECK(status == PASSRL_OK);
        long more = taken() - before, less = given() - back;
        if (more || less) {
            fprintf(stderr, "threads %d, padded %d, kind %d, whiten %d: %ld allocations and %ld releases in %d calls\n", threads, padded, kind, w, more, less, calls);
            return 1;
        }
        /* A refusal takes none either. */
        passrl_batch bad = s.batch;
        bad.group_size = -1;
        before = taken();
        counting(1);
        status = passrl_plan_run(plan, &bad, &s.outputs, workspace, bytes, NULL);
        counting(0);
        CHECK(status == PASSRL_ERR_VALUE && taken() == before);
        passrl_plan_destroy(plan);
        passrl_context_destroy(context);
        free(workspace), free(buffer);
        sample_free(&s);
    }
    return 0;
}
