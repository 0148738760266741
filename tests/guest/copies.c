/* Two files of the library in one process, symbols global, each used by its own handle; then closed and opened again, with and without something left
 * alive. Arguments: the two files. */
#define _GNU_SOURCE
#include "passrl.h"
#include <dlfcn.h>
#include <pthread.h>
typedef struct api {
    void *handle;
#define NAMES(X) X(config_init) X(limits_init) X(batch_init) X(outputs_init) X(context_options_init) X(context_create) X(context_destroy) X(plan_create) \
    X(plan_destroy) X(plan_workspace_size) X(plan_run) X(last_error) X(version)
#define FIELD(name) __typeof__(&passrl_##name) name;
    NAMES(FIELD)
} api;
/* The common part calls the library of this thread. */
static _Thread_local const api *lib;
#define passrl_config_init lib->config_init
#define passrl_limits_init lib->limits_init
#define passrl_batch_init lib->batch_init
#define passrl_outputs_init lib->outputs_init
#define passrl_context_options_init lib->context_options_init
#define passrl_context_create lib->context_create
#define passrl_plan_create lib->plan_create
#define passrl_plan_workspace_size lib->plan_workspace_size
#define passrl_last_error lib->last_error
#include "../abi/common.h"
#include "proc.h"

static api open_at(const char *path, int flags) {
    api a;
    a.handle = dlopen(path, flags);
    if (!a.handle) fprintf(stderr, "%s\n", dlerror()), exit(1);
#define FIND(name) *(void **)&a.name = dlsym(a.handle, "passrl_" #name);
    NAMES(FIND)
    return a;
}

static const float *want;

static void use(const api *of) {
    lib = of;
    sample s;
    sample_make(&s, 32, 64, 0, PRM_CSR);
    passrl_context *context = context_of(3);
    void *workspace;
    size_t bytes;
    passrl_plan *plan = plan_of(context, &s, &workspace, &bytes);
    OK(lib->plan_run(plan, &s.batch, &s.outputs, workspace, bytes, NULL));
    if (want) CHECK(memcmp(want, s.advantages, (size_t)s.tokens * 4) == 0);
    else want = memcpy(malloc((size_t)s.tokens * 4), s.advantages, (size_t)s.tokens * 4);
    s.batch.num_rollouts = -5;
    CHECK(lib->plan_run(plan, &s.batch, &s.outputs, workspace, bytes, NULL) < 0 && strstr(lib->last_error(), "is -5"));
    lib->plan_destroy(plan);
    lib->context_destroy(context);
    free(workspace);
    sample_free(&s);
}

static void *on_a_thread(void *of) {
    for (int i = 0; i < 20; i++) use(of);
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    /* Its code stays after a close, also of a library that nothing was called of. */
    for (int i = 1; i < 3; i++) {
        api opened = open_at(argv[i], RTLD_NOW | RTLD_LOCAL);
        CHECK(dlclose(opened.handle) == 0);
        CHECK((opened.handle = dlopen(argv[i], RTLD_NOW | RTLD_NOLOAD)) != NULL && dlclose(opened.handle) == 0);
    }
    for (int flags = 0; flags < 2; flags++) {
        int how = RTLD_NOW | (flags ? RTLD_LOCAL : RTLD_GLOBAL);
        api one = open_at(argv[1], how), two = open_at(argv[2], how);
        CHECK(one.plan_run != two.plan_run);
        use(&one), use(&two), use(&one);
        /* An error in one is not the other's. */
        passrl_config config;
        CHECK(one.config_init(NULL, 0) < 0);
        OK(two.config_init(&config, sizeof config));
        CHECK(strstr(one.last_error(), "NULL") && !two.last_error()[0] && one.last_error() != two.last_error());
        pthread_t threads[4];
        for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, on_a_thread, i % 2 ? &one : &two) == 0);
        for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK(dlclose(one.handle) == 0 && dlclose(two.handle) == 0);
    }
    /* Closed and opened again; a thread that has used it ends after the close, and a context with its threads outlives it. */
    for (int i = 0; i < 10; i++) {
        api again = open_at(argv[1 + i % 2], RTLD_NOW | RTLD_GLOBAL);
        use(&again);
        if (i % 5 == 0) {
            context_of(2);
            sample s;
            sample_make(&s, 32, 64, 0, PRM_CSR);
            passrl_context *left = context_of(2);
            void *workspace;
            size_t bytes;
            plan_of(left, &s, &workspace, &bytes);
            free(workspace);
            sample_free(&s);
        }
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, on_a_thread, &again) == 0);
        int closed_early = i % 2;
        if (closed_early) CHECK(dlclose(again.handle) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        if (!closed_early) CHECK(dlclose(again.handle) == 0);
    }
    CHECK(dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD) != NULL);
    return 0;
}
