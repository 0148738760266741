/* Signals of the host are the host's: a thread of the library takes none. A host that blocks a signal, to wait for it or to keep it away for a while, is not
 * surprised by its handler on a thread that it does not know. */
#define _GNU_SOURCE
#include "../abi/common.h"
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

static atomic_int handled;
static void handler(int signal) { (void)signal; atomic_fetch_add(&handled, 1); }

int main(void) {
    sample s;
    sample_make(&s, 64, 128, 0, PRM_DENSE);
    passrl_context *context = context_of(4);
    void *workspace;
    size_t bytes;
    sigset_t kept, all, set;
    CHECK(sigprocmask(SIG_BLOCK, NULL, &kept) == 0);
    passrl_plan *plan = plan_of(context, &s, &workspace, &bytes);
    /* Making the threads has left the caller's mask. */
    CHECK(sigprocmask(SIG_BLOCK, NULL, &set) == 0);
    for (int i = 1; i < NSIG; i++) CHECK(sigismember(&set, i) == sigismember(&kept, i));
    struct sigaction act;
    memset(&act, 0, sizeof act);
    act.sa_handler = handler;
    const int signals[] = {SIGUSR1, SIGTERM, SIGINT, SIGALRM, SIGCHLD, SIGHUP, SIGPROF};
    enum { N = sizeof signals / sizeof *signals };
    for (int i = 0; i < N; i++) CHECK(sigaction(signals[i], &act, NULL) == 0);
    CHECK(sigfillset(&all) == 0 && sigprocmask(SIG_BLOCK, &all, NULL) == 0);
    for (int round = 0; round < 50; round++) {
        int sent = signals[round % N];
        CHECK(kill(getpid(), sent) == 0);
        OK(passrl_plan_run(plan, &s.batch, &s.outputs, workspace, bytes, NULL));
        CHECK(atomic_load(&handled) == 0);
        /* It waits for the thread that asks for it. */
        struct timespec soon = {1, 0};
        CHECK(sigtimedwait(&all, NULL, &soon) == sent);
    }
    passrl_plan_destroy(plan);
    passrl_context_destroy(context);
    free(workspace);
    sample_free(&s);
    return 0;
}
