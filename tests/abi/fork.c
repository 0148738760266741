/* A process forks after it has used the library with several threads: the child runs the parent's plan, makes a plan and a context of its own
 * and destroys them all; nothing hangs, the bits are the same, and the parent goes on. */
#define _GNU_SOURCE
#include "common.h"
#include <sys/wait.h>
#include <unistd.h>

static void run(passrl_plan *plan, sample *s, void *workspace, size_t bytes, const float *want) {
    memset(s->advantages, 0xA5, (size_t)s->tokens * 4);
    OK(passrl_plan_run(plan, &s->batch, &s->outputs, workspace, bytes, NULL));
    CHECK(memcmp(want, s->advantages, (size_t)s->tokens * 4) == 0);
}

int main(void) {
    sample s;
    sample_make(&s, 64, 256, 0, PRM_DENSE);
    passrl_context *context = context_of(3);
    void *workspace;
    size_t bytes;
    passrl_plan *plan = plan_of(context, &s, &workspace, &bytes);
    OK(passrl_plan_run(plan, &s.batch, &s.outputs, workspace, bytes, NULL));
    float *want = malloc((size_t)s.tokens * 4);
    memcpy(want, s.advantages, (size_t)s.tokens * 4);
    for (int round = 0; round < 4; round++) {
        fflush(NULL);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            alarm(20); /* A hang ends the child with a signal. */
            run(plan, &s, workspace, bytes, want);
            void *more;
            size_t more_bytes;
            passrl_plan *own = plan_of(context, &s, &more, &more_bytes);
            run(own, &s, more, more_bytes, want);
            run(plan, &s, workspace, bytes, want);
            passrl_context *fresh = context_of(2);
            void *third;
            size_t third_bytes;
            passrl_plan *newest = plan_of(fresh, &s, &third, &third_bytes);
            run(newest, &s, third, third_bytes, want);
            if (round == 3) {
                /* A child of the child. */
                pid_t grandchild = fork();
                CHECK(grandchild >= 0);
                if (grandchild == 0) {
                    alarm(20);
                    run(own, &s, more, more_bytes, want);
                    passrl_plan_destroy(own);
                    passrl_context_destroy(fresh);
                    _exit(0);
                }
                int status;
                CHECK(waitpid(grandchild, &status, 0) == grandchild && WIFEXITED(status) && WEXITSTATUS(status) == 0);
            }
            passrl_plan_destroy(newest);
            passrl_context_destroy(fresh);
            passrl_plan_destroy(own);
            passrl_plan_destroy(plan);
            passrl_context_destroy(context);
            if (round % 2) _exit(0);
            exit(0);
        }
        run(plan, &s, workspace, bytes, want);
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    /* A child that never touches the library, and one forked before the first plan. */
    passrl_context *early = context_of(2);
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        void *own;
        size_t own_bytes;
        passrl_plan *first = plan_of(early, &s, &own, &own_bytes);
        run(first, &s, own, own_bytes, want);
        passrl_plan_destroy(first);
        passrl_context_destroy(early);
        exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    run(plan, &s, workspace, bytes, want);
    passrl_context_destroy(early);
    passrl_plan_destroy(plan);
    passrl_context_destroy(context);
    free(want), free(workspace);
    sample_free(&s);
    return 0;
}
