/* A process forks while another of its threads is inside the library: at every block of memory that thread takes, from the very first call on, and
 * at any moment of its runs. Each child uses the library in full and destroys what it has inherited; a lock that stayed locked would hang it. */
#define _GNU_SOURCE
#include "../abi/common.h"
#include "heap.h"
#include "proc.h"
#include <pthread.h>
#include <sys/wait.h>

static _Thread_local int watched;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;
static int inside, stops, ended;

/* The watched thread stops here until the main thread has forked. */
static void heap_gate(void) {
    if (!watched) return;
    watched = 0;
    pthread_mutex_lock(&lock);
    inside = 1, stops++;
    pthread_cond_broadcast(&turn);
    while (inside) pthread_cond_wait(&turn, &lock);
    pthread_mutex_unlock(&lock);
    watched = 1;
}

static sample s;
static passrl_context *context;
static passrl_plan *plan;
static void *workspace;
static size_t bytes;
static float *want;

static void run(passrl_plan *which, void *memory, size_t size, sample *of) {
    memset(of->advantages, 0xA5, (size_t)of->tokens * 4);
    OK(passrl_plan_run(which, &of->batch, &of->outputs, memory, size, NULL));
    if (want) CHECK(memcmp(want, of->advantages, (size_t)of->tokens * 4) == 0);
}

/* All of it, on memory of its own. */
static void use_everything(void) {
    sample own;
    sample_make(&own, 32, 64, 0, PRM_CSR);
    passrl_context *fresh = context_of(3);
    void *memory;
    size_t size;
    passrl_plan *newest = plan_of(fresh, &own, &memory, &size);
    run(newest, memory, size, &own);
    passrl_batch bad = own.batch;
    bad.num_rollouts = -1;
    CHECK(passrl_plan_run(newest, &bad, &own.outputs, memory, size, NULL) < 0 && strstr(passrl_last_error(), "num_rollouts is -1"));
    passrl_plan_destroy(newest);
    passrl_context_destroy(fresh);
    free(memory);
    sample_free(&own);
}

/* What a child does: the parent's plan (on this thread alone, none of the parent's threads being here), a plan of the parent's context (threads again), all
 * the rest, and the end of the parent's handles. */
static void child(int number) {
    alarm(20); /* A hang ends the child with a signal. */
    if (plan && number % 3 == 0) {
        /* At once: the threads that it would end are not here. */
        passrl_plan_destroy(plan);
        passrl_context_destroy(context);
        plan = NULL;
    }
    use_everything();
    if (plan) {
        sample own;
        sample_make(&own, 32, 64, 0, PRM_CSR);
        CHECK(threads_settle(1) == 1);
        run(plan, workspace, bytes, &own);
        CHECK(threads_here() == 1);
        void *memory;
        size_t size;
        passrl_plan *next = plan_of(context, &own, &memory, &size);
        CHECK(threads_here() == 3); /* This one and the context's two. */
        run(next, memory, size, &own);
        run(plan, workspace, bytes, &own);
        passrl_plan_destroy(next);
        passrl_plan_destroy(plan);
        passrl_context_destroy(context);
        free(memory);
        sample_free(&own);
    }
    exit(0);
}

static void fork_one(int at) {
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) child(at);
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status)) {
        fprintf(stderr, "child forked at stop %d ended with status %#x (%s)\n", at, status, WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? "it hung" : "see above");
        exit(1);
    }
}

static void *first_call(void *none) {
    passrl_config config;
    watched = 1;
    OK(passrl_config_init(&config, sizeof config));
    watched = 0;
    pthread_mutex_lock(&lock);
    ended = 1;
    pthread_cond_broadcast(&turn);
    pthread_mutex_unlock(&lock);
    return none;
}

static void *whole_life(void *none) {
    for (int whole = 0; whole < 2; whole++) {
        sample own;
        sample_make(&own, 32, 64, 0, PRM_CSR);
        watched = 1;
        passrl_context *mine = context_of(3);
        void *memory;
        size_t size;
        passrl_plan *runs = plan_of(mine, &own, &memory, &size);
        run(runs, memory, size, &own);
        CHECK(passrl_plan_run(runs, &own.batch, &own.outputs, memory, 1, NULL) < 0);
        passrl_plan_destroy(runs);
        passrl_context_destroy(mine);
        watched = 0;
        free(memory);
        sample_free(&own);
    }
    pthread_mutex_lock(&lock);
    ended = 1;
    pthread_cond_broadcast(&turn);
    pthread_mutex_unlock(&lock);
    return none;
}

static void at_every_block(void *(*life)(void *), int least) {
    pthread_t thread;
    ended = stops = 0;
    CHECK(pthread_create(&thread, NULL, life, NULL) == 0);
    for (;;) {
        pthread_mutex_lock(&lock);
        while (!inside && !ended) pthread_cond_wait(&turn, &lock);
        int over = !inside;
        pthread_mutex_unlock(&lock);
        if (over) break;
        fork_one(stops);
        pthread_mutex_lock(&lock);
        inside = 0;
        pthread_cond_broadcast(&turn);
        pthread_mutex_unlock(&lock);
    }
    CHECK(pthread_join(thread, NULL) == 0);
    printf("%d forks\n", stops);
    CHECK(stops >= least);
}

static atomic_int stop;

static void *runs_on(void *none) {
    sample own;
    sample_make(&own, 32, 64, 0, PRM_CSR);
    void *memory = aligned_alloc(64, (bytes + 127) / 64 * 64);
    while (!atomic_load(&stop)) run(plan, memory, bytes, &own);
    free(memory);
    sample_free(&own);
    return none;
}

int main(void) {
    at_every_block(first_call, 1);
    sample_make(&s, 32, 64, 0, PRM_CSR);
    context = context_of(3);
    plan = plan_of(context, &s, &workspace, &bytes);
    run(plan, workspace, bytes, &s);
    want = malloc((size_t)s.tokens * 4);
    memcpy(want, s.advantages, (size_t)s.tokens * 4);
    at_every_block(whole_life, 10);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, runs_on, NULL) == 0);
    for (int i = 0; i < 40; i++) {
        fork_one(i);
        run(plan, workspace, bytes, &s);
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    passrl_plan_destroy(plan);
    passrl_context_destroy(context);
    CHECK(threads_settle(1) == 1);
    return 0;
}
