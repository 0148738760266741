/* The library touches nothing of the process's: no environment, signal handler, locale, folder, output, exit handler; no file but those that say how many
 * processors there are. The program has those functions itself, so it sees each call; the state is compared too. Findings, refusals and an internal error
 * (a plan that was damaged for it) are part of it. */
#define _GNU_SOURCE
#include "../abi/common.h"
#include "proc.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <locale.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/stat.h>

static atomic_int watching, files_allowed, calls;
static const char *last = "";

static void seen(const char *what) {
    if (!atomic_load(&watching)) return;
    atomic_fetch_add(&calls, 1);
    last = what;
}
#define REAL(name) (__extension__(__typeof__(&name))dlsym(RTLD_NEXT, #name))

extern char **environ;
static char *lookup(const char *name) {
    size_t n = strlen(name);
    for (char **e = environ; *e; e++) if (!strncmp(*e, name, n) && (*e)[n] == '=') return *e + n + 1;
    return NULL;
}
char *getenv(const char *name) { seen("getenv"); return lookup(name); }
char *secure_getenv(const char *name) { seen("secure_getenv"); return lookup(name); }
int setenv(const char *a, const char *b, int c) { seen("setenv"); return REAL(setenv)(a, b, c); }
int unsetenv(const char *a) { seen("unsetenv"); return REAL(unsetenv)(a); }
int sigaction(int a, const struct sigaction *b, struct sigaction *c) { seen("sigaction"); return REAL(sigaction)(a, b, c); }
int sigaltstack(const stack_t *a, stack_t *b) { seen("sigaltstack"); return REAL(sigaltstack)(a, b); }
char *setlocale(int a, const char *b) { seen("setlocale"); return REAL(setlocale)(a, b); }
struct lconv *localeconv(void) { seen("localeconv"); return REAL(localeconv)(); }
double strtod(const char *a, char **b) { seen("strtod"); return REAL(strtod)(a, b); }
int chdir(const char *a) { seen("chdir"); return REAL(chdir)(a); }
mode_t umask(mode_t a) { seen("umask"); return REAL(umask)(a); }
ssize_t write(int a, const void *b, size_t c) { seen("write"); return REAL(write)(a, b, c); }
int atexit(void (*f)(void)) { seen("atexit"); (void)f; return 0; }
void abort(void) { seen("abort"); _exit(99); }
static int opened(const char *path) {
    if (atomic_load(&files_allowed) && (!strncmp(path, "/proc/self/", 11) || !strncmp(path, "/sys/fs/cgroup/", 15))) return 1;
    seen(path);
    return 0;
}
int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    int mode = va_arg(more, int);
    va_end(more);
    opened(path);
    return openat(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    int mode = va_arg(more, int);
    va_end(more);
    opened(path);
    return openat(AT_FDCWD, path, flags, mode);
}

/* What a process has that a guest may change. */
typedef struct state {
    struct sigaction handlers[65];
    sigset_t mask;
    stack_t stack;
    char folder[1024], locale[256];
    char **environment;
    size_t variables;
    mode_t mode;
    int files;
} state;

static state now(void) {
    state n;
    memset(&n, 0, sizeof n);
    for (int i = 1; i < 65; i++) (void)sigaction(i, NULL, &n.handlers[i]);
    CHECK(sigprocmask(SIG_BLOCK, NULL, &n.mask) == 0 && sigaltstack(NULL, &n.stack) == 0);
    CHECK(getcwd(n.folder, sizeof n.folder));
    snprintf(n.locale, sizeof n.locale, "%s", setlocale(LC_ALL, NULL));
    n.environment = environ;
    for (char **e = environ; *e; e++) n.variables = n.variables * 31 + strlen(*e) + (size_t)(*e)[0];
    n.mode = umask(0);
    umask(n.mode);
    n.files = files_here();
    return n;
}

static int same_set(const sigset_t *a, const sigset_t *b) {
    for (int i = 1; i < 65; i++) if (sigismember(a, i) != sigismember(b, i)) return 0;
    return 1;
}

static void compare(const state *a, const state *b) {
    for (int i = 1; i < 65; i++) {
        const struct sigaction *x = &a->handlers[i], *y = &b->handlers[i];
        CHECK(x->sa_handler == y->sa_handler && x->sa_flags == y->sa_flags && same_set(&x->sa_mask, &y->sa_mask));
    }
    CHECK(same_set(&a->mask, &b->mask));
    CHECK(a->stack.ss_sp == b->stack.ss_sp && a->stack.ss_flags == b->stack.ss_flags);
    CHECK(!strcmp(a->folder, b->folder) && !strcmp(a->locale, b->locale));
    CHECK(a->environment == b->environment && a->variables == b->variables);
    CHECK(a->mode == b->mode && a->files == b->files);
}

static void everything(int threads) {
    sample s;
    sample_make(&s, 64, 64, 0, PRM_DENSE);
    for (int findings = 0; findings < 2; findings++) {
        if (findings) s.signal[3] = NAN, s.outcome[20] = INFINITY;
        passrl_report report;
        OK(passrl_report_init(&report, sizeof report));
        s.outputs.report = &report;
        passrl_context *context = context_of(threads);
        void *workspace;
        size_t bytes, need;
        char text[4096];
        passrl_plan *plan = plan_of(context, &s, &workspace, &bytes);
        OK(passrl_plan_describe(plan, text, sizeof text, &need));
        OK(passrl_context_describe(context, text, sizeof text, &need));
        int status = passrl_plan_run(plan, &s.batch, &s.outputs, workspace, bytes, NULL);
        CHECK(findings ? status > 0 && passrl_last_error()[0] : status == 0);
        passrl_batch bad = s.batch;
        bad.group_size = -1;
        CHECK(passrl_plan_run(plan, &bad, &s.outputs, workspace, bytes, NULL) < 0);
        passrl_plan_destroy(plan);
        passrl_context_destroy(context);
        free(workspace);
    }
    sample_free(&s);
}

/* Tells a plan that it needs less workspace than it does: its parts then lie outside what it is lent, which the library's own assertions catch, on the
 * calling thread or on those of the pool. Nothing else can be broken from outside, by a caller who keeps to the header. */
static int internal_errors(int threads) {
    sample s;
    int found = 0;
    sample_make(&s, 64, 64, 0, PRM_DENSE);
    passrl_context *context = context_of(threads);
    void *workspace;
    size_t bytes;
    passrl_plan *plan = plan_of(context, &s, &workspace, &bytes);
    OK(passrl_plan_run(plan, &s.batch, &s.outputs, workspace, bytes, NULL));
    float *want = malloc((size_t)s.tokens * 4);
    memcpy(want, s.advantages, (size_t)s.tokens * 4);
    size_t *word = (size_t *)(void *)plan, *need = NULL;
    for (size_t i = 0; i < malloc_usable_size(plan) / sizeof *word; i++) if (word[i] == bytes) need = &word[i];
    CHECK(need != NULL);
    for (size_t cut = 64; cut < bytes; cut += 64 + bytes / 40) {
        *need = bytes - cut;
        int status = passrl_plan_run(plan, &s.batch, &s.outputs, workspace, bytes - cut, NULL);
        CHECK(status == PASSRL_OK || status == PASSRL_ERR_INTERNAL);
        if (status) found++;
        if (status) CHECK(strstr(passrl_last_error(), "passrl_plan_run: internal error ("));
        /* And goes on. */
        *need = bytes;
        memset(s.advantages, 0xA5, (size_t)s.tokens * 4);
        OK(passrl_plan_run(plan, &s.batch, &s.outputs, workspace, bytes, NULL));
        CHECK(memcmp(want, s.advantages, (size_t)s.tokens * 4) == 0);
    }
    passrl_plan_destroy(plan);
    passrl_context_destroy(context);
    free(workspace), free(want);
    sample_free(&s);
    return found;
}

int main(void) {
    /* The shims see calls at all. */
    atomic_store(&watching, 1);
    CHECK(getenv("PATH") && atomic_exchange(&calls, 0) == 1);
    atomic_store(&watching, 0);
    int talk[2], own_out = dup(1), own_err = dup(2), errors = 0;
    CHECK(pipe2(talk, O_NONBLOCK) == 0);
    state before = now();
    fflush(NULL);
    CHECK(dup2(talk[1], 1) == 1 && dup2(talk[1], 2) == 2);
    atomic_store(&watching, 1);
    everything(1);
    everything(3);
    atomic_store(&files_allowed, 1);
    everything(0);
    atomic_store(&files_allowed, 0);
    errors += internal_errors(1);
    errors += internal_errors(3);
    passrl_config config;
    OK(passrl_config_init_preset(&config, sizeof config, "grpo_process"));
    OK(passrl_config_set(&config, "gamma", "0.875"));
    int parsed = config.gamma == 0.875;
    atomic_store(&watching, 0);
    CHECK(dup2(own_out, 1) == 1 && dup2(own_err, 2) == 2);
    state after = now();
    char said[256] = "";
    ssize_t n = read(talk[0], said, sizeof said - 1);
    if (atomic_load(&calls)) fprintf(stderr, "%d calls, the last of %s\n", atomic_load(&calls), last);
    CHECK(atomic_load(&calls) == 0);
    if (n > 0) fprintf(stderr, "the library said: %s\n", said);
    CHECK(n < 0 && parsed);
    compare(&before, &after);
    printf("%d internal errors in silence\n", errors);
    CHECK(errors >= 10);
    return 0;
}
