/* libpassrl_tvmffi: the library for apache-tvm-ffi, so that what speaks tvm-ffi (Python, C++, Rust, ...) calls it with its own tensors, unconverted.
 *
 *   module = tvm_ffi.load_module("libpassrl_tvmffi.so")
 *   status = module.shape(advantages, signal, extents, mask, groups, outcome, format, format_ok, "pass", "k=0.5", step_offsets, step_ends, step_scores)
 *
 * Tensors are DLPack's (torch, NumPy and JAX arrays among them), read and written where they are; None, or left out at the end: not given. extents: cu_seqlens
 * [R+1] of packed arrays [N], lengths [R] of padded arrays [R, T]. groups: an int (group_size), or [R] integers of any value. The result's
 * tensor comes first and is written. Every function returns 0, or a positive PASSRL_FINDING_* where the data has findings; a refusal raises, with the library's sentence.
 * A call makes its plan and workspace and frees them: hot loops are the C interface's. Any thread.
 *
 * tvm-ffi's calling convention is declared here; none of its headers and libraries is needed. Its error function is looked up in the process that calls.
 */
#define _GNU_SOURCE
#include "passrl.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- tvm-ffi's ABI, as of 0.1 (tvm/ffi/c_api.h) */

enum { ANY_NONE = 0, ANY_INT = 1, ANY_BOOL = 2, ANY_FLOAT = 3, ANY_DLTENSOR = 7, ANY_RAW_STRING = 8, ANY_SMALL_STRING = 11, ANY_STRING = 65, ANY_TENSOR = 70 };
enum { OBJECT_HEAD = 24 }; /* reference count, type, deleter */

typedef struct any {
    int32_t type;
    uint32_t small_length;
    union {
        int64_t i;
        double f;
        const void *p;
        char bytes[8];
    } v;
} any;

typedef struct bytes {
    const char *data;
    size_t size;
} bytes;

#define EXPORT(name) __attribute__((visibility("default"))) int __tvm_ffi_##name(void *self, const any *args, int32_t count, any *result)

/* Raises in the caller's language; the value of a failed call. */
static int raise(const char *kind, const char *sentence) {
    void (*set)(const char *, const char *);
    void *found = dlsym(RTLD_DEFAULT, "TVMFFIErrorSetRaisedFromCStr");
    if (found == NULL) {
        /* Python opens its libraries for itself alone. */
        void *library = dlopen("libtvm_ffi.so", RTLD_NOW | RTLD_NOLOAD);
        if (library != NULL) found = dlsym(library, "TVMFFIErrorSetRaisedFromCStr");
    }
    if (found != NULL) {
        memcpy(&set, &found, sizeof set);
        set(kind, sentence);
    } else {
        fprintf(stderr, "passrl_tvmffi: %s: %s (no tvm-ffi in this process to raise it)\n", kind, sentence);
    }
    return -1;
}

static int refuse(const char *function, const char *what, const char *wanted) {
    char sentence[256];
    snprintf(sentence, sizeof sentence, "%s: %s; %s", function, what, wanted);
    return raise("TypeError", sentence);
}

/* A status of the library: raised where negative, else the call's result. */
static int done(passrl_status status, any *result) {
    if (status < 0) return raise(status == PASSRL_ERR_DTYPE ? "TypeError" : status == PASSRL_ERR_NOT_YET ? "NotImplementedError" : "ValueError", passrl_last_error());
    result->type = ANY_INT, result->small_length = 0, result->v.i = status;
    return 0;
}

/* ---- Arguments. Each function counts through its own. */

typedef struct call {
    const char *function;
    const any *args;
    int32_t count, at;
    bool failed;
    any none;
} call;

static const any *next(call *c) { return c->at < c->count ? &c->args[c->at++] : (c->at++, &c->none); }

static void fail(call *c, const char *name, const char *wanted) {
    char what[64];
    snprintf(what, sizeof what, "argument %d (%s) is of another type", c->at, name);
    if (!c->failed) refuse(c->function, what, wanted);
    c->failed = true;
}

/* View of a tensor; NULL where none is given. `view` is its memory. */
static passrl_view *tensor(call *c, const char *name, passrl_view *view) {
    const any *a = next(c);
    if (c->failed || a->type == ANY_NONE) return NULL;
    const void *dl = a->type == ANY_DLTENSOR ? a->v.p : a->type == ANY_TENSOR ? (const char *)a->v.p + OBJECT_HEAD : NULL;
    if (dl == NULL) {
        fail(c, name, "give a tensor or None");
        return NULL;
    }
    if (passrl_view_from_dlpack(dl, view) < 0) {
        raise("TypeError", passrl_last_error());
        c->failed = true;
        return NULL;
    }
    return view;
}

static passrl_view *needed(call *c, const char *name, passrl_view *view) {
    passrl_view *found = tensor(c, name, view);
    if (found == NULL) fail(c, name, "it must be a tensor");
    return found;
}

static double number(call *c, const char *name) {
    const any *a = next(c);
    if (a->type == ANY_FLOAT) return a->v.f;
    if (a->type == ANY_INT) return (double)a->v.i;
    fail(c, name, "it must be a number");
    return 0;
}

/* A string, zero-terminated, in `buffer`; `otherwise` where none is given. */
static const char *string(call *c, const char *name, const char *otherwise, char *buffer, size_t capacity) {
    const any *a = next(c);
    bytes found = {NULL, 0};
    if (a->type == ANY_NONE) return otherwise;
    if (a->type == ANY_RAW_STRING) found = (bytes){a->v.p, strlen(a->v.p)};
    else if (a->type == ANY_SMALL_STRING) found = (bytes){a->v.bytes, a->small_length};
    else if (a->type == ANY_STRING) memcpy(&found, (const char *)a->v.p + OBJECT_HEAD, sizeof found);
    if (found.data == NULL || found.size >= capacity) {
        fail(c, name, "it must be a string of no more than 1023 bytes");
        return otherwise;
    }
    memcpy(buffer, found.data, found.size);
    buffer[found.size] = 0;
    return buffer;
}

/* ---- What the functions share */

/* The process's context; made once, never destroyed. */
static passrl_context *context(void) {
    static passrl_context *made;
    passrl_context *found = __atomic_load_n(&made, __ATOMIC_ACQUIRE), *other = NULL;
    if (found != NULL) return found;
    if (passrl_context_create(NULL, &found) < 0) return NULL;
    if (!__atomic_compare_exchange_n(&made, &other, found, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        passrl_context_destroy(found);
        return other;
    }
    return found;
}

/* A batch and what it points to. */
typedef struct given {
    passrl_batch batch;
    passrl_limits limits;
    passrl_view extents, mask, groups, index;
    int64_t *numbers;
} given;

/* Extents and mask; `tokens` is a token-shaped array of the call. */
static void layout(call *c, given *g, const passrl_view *tokens) {
    passrl_batch_init(&g->batch, sizeof g->batch);
    passrl_limits_init(&g->limits, sizeof g->limits);
    const passrl_view *extents = tensor(c, "extents", &g->extents);
    g->batch.mask = tensor(c, "mask", &g->mask);
    if (c->failed || tokens == NULL) return;
    int64_t slots = tokens->shape[0], rollouts = tokens->shape[0];
    if (tokens->ndim == 2) {
        g->batch.layout = PASSRL_PADDED, g->batch.row_tokens = g->limits.rollout_tokens = tokens->shape[1], g->batch.lengths = extents;
        slots *= tokens->shape[1];
    } else {
        g->batch.cu_seqlens = extents;
        rollouts = extents == NULL ? 0 : extents->shape[0] - 1;
    }
    g->batch.num_rollouts = rollouts;
    g->limits.rollouts = rollouts > 0 ? rollouts : 1, g->limits.tokens = slots > 0 ? slots : 1;
}

/* groups: an int, or any integers [R], which become dense numbers. */
static void groups(call *c, given *g) {
    if (!c->failed && c->at < c->count && c->args[c->at].type == ANY_INT) {
        g->batch.group_size = next(c)->v.i;
        return;
    }
    const passrl_view *keys = tensor(c, "groups", &g->groups);
    if (c->failed || keys == NULL) return;
    const int64_t n = keys->shape[0];
    g->numbers = malloc(sizeof(int64_t) * (size_t)(n > 0 ? n : 1));
    if (g->numbers == NULL) {
        raise("MemoryError", "passrl_tvmffi: no memory for the groups' numbers");
        c->failed = true;
        return;
    }
    g->index = (passrl_view){g->numbers, {n, 1}, {1, 1}, 1, PASSRL_I64, PASSRL_CPU, 0};
    if (passrl_group_index(keys, &g->index, &g->batch.num_groups) < 0) {
        raise("ValueError", passrl_last_error());
        c->failed = true;
    }
    g->batch.group_index = &g->index;
}

static void *memory(size_t size) { return aligned_alloc(64, (size + 64) / 64 * 64); }

/* Sets fields from "k=0.5, outcome.ddof=0" (which is written to). */
static passrl_status set(passrl_config *config, char *fields) {
    for (char *rest = fields, *part; (part = strtok_r(rest, ",", &rest)) != NULL;) {
        char *value = strchr(part, '=');
        if (value != NULL) *value++ = 0;
        while (*part == ' ') part++;
        for (char *end = part + strlen(part); end > part && end[-1] == ' ';) *--end = 0;
        while (value != NULL && *value == ' ') value++;
        const passrl_status status = passrl_config_set(config, part, value == NULL ? "" : value);
        if (status < 0) return status;
    }
    return PASSRL_OK;
}

/* ---- Functions */

EXPORT(abi_version) {
    (void)self, (void)args, (void)count;
    return done((passrl_status)passrl_abi_version(), result);
}

/* advantages, signal, extents, mask, groups, outcome, format, format_ok, preset = "pass", fields = "", step_offsets, step_ends, step_scores */
EXPORT(shape) {
    (void)self;
    call c = {.function = "shape", .args = args, .count = count};
    given g = {.numbers = NULL};
    char preset_text[1024], field_text[1024] = "";
    passrl_view advantages, signal, outcome, format, format_ok, offsets, ends, scores;
    const passrl_view *out = needed(&c, "advantages", &advantages);
    const passrl_view *process = tensor(&c, "signal", &signal);
    layout(&c, &g, out);
    groups(&c, &g);
    g.batch.signal[0] = process;
    g.batch.outcome = tensor(&c, "outcome", &outcome);
    g.batch.format = tensor(&c, "format", &format);
    g.batch.format_ok = tensor(&c, "format_ok", &format_ok);
    const char *preset = string(&c, "preset", "pass", preset_text, sizeof preset_text);
    string(&c, "fields", "", field_text, sizeof field_text);
    g.batch.step_offsets = tensor(&c, "step_offsets", &offsets);
    g.batch.step_ends = tensor(&c, "step_ends", &ends);
    g.batch.step_scores = tensor(&c, "step_scores", &scores);
    if (!c.failed && count > c.at) {
        refuse("shape", "more than 13 arguments", "further ones are in the C interface");
        c.failed = true;
    }
    if (c.failed) {
        free(g.numbers);
        return -1;
    }
    passrl_config config;
    passrl_outputs outputs;
    passrl_plan *plan = NULL;
    void *workspace = NULL;
    size_t size = 0;
    passrl_outputs_init(&outputs, sizeof outputs);
    outputs.advantages = out;
    if (g.batch.step_ends != NULL) g.limits.steps = ends.shape[0] > 0 ? ends.shape[0] : 1;
    passrl_status status = passrl_config_init_preset(&config, sizeof config, preset);
    if (status >= 0) status = set(&config, field_text);
    if (status >= 0) status = passrl_plan_create(context(), &config, &g.limits, NULL, &plan);
    if (status >= 0) status = passrl_plan_workspace_size(plan, &size);
    if (status >= 0) workspace = memory(size), status = passrl_plan_run(plan, &g.batch, &outputs, workspace, size, NULL);
    const int answer = done(status, result);
    passrl_plan_destroy(plan);
    free(workspace), free(g.numbers);
    return answer;
}

/* Runs one stage with a workspace of its size. */
#define STAGE(g, expression) \
    size_t size = 0; \
    void *workspace = NULL; \
    passrl_status status = passrl_primitive_workspace_size(context(), &(g).limits, &size); \
    if (status >= 0) workspace = memory(size), status = (expression); \
    const int answer = done(status, result); \
    free(workspace), free((g).numbers); \
    return answer

/* out, x, groups */
EXPORT(group_standardize) {
    (void)self;
    call c = {.function = "group_standardize", .args = args, .count = count};
    given g = {.numbers = NULL};
    passrl_view out, x;
    needed(&c, "out", &out);
    needed(&c, "x", &x);
    passrl_batch_init(&g.batch, sizeof g.batch);
    passrl_limits_init(&g.limits, sizeof g.limits);
    groups(&c, &g);
    if (c.failed) {
        free(g.numbers);
        return -1;
    }
    passrl_config config;
    passrl_config_init(&config, sizeof config);
    g.batch.num_rollouts = x.shape[0];
    g.limits.rollouts = g.limits.tokens = x.shape[0] > 0 ? x.shape[0] : 1;
    STAGE(g, passrl_group_standardize(context(), &g.batch, &config.streams[PASSRL_STREAM_OUTCOME], &x, &out, NULL, NULL, NULL, NULL, workspace, size, NULL));
}

/* out, rewards, extents, mask, gamma */
EXPORT(discounted_returns) {
    (void)self;
    call c = {.function = "discounted_returns", .args = args, .count = count};
    given g = {.numbers = NULL};
    passrl_view out, rewards;
    needed(&c, "out", &out);
    needed(&c, "rewards", &rewards);
    layout(&c, &g, &rewards);
    const double gamma = number(&c, "gamma");
    if (c.failed) return -1;
    STAGE(g, passrl_discounted_returns(context(), &g.batch, gamma, &rewards, &out, workspace, size, NULL));
}

/* advantages, returns (may be None), rewards, values, extents, mask, gamma, lam, bootstrap */
EXPORT(gae) {
    (void)self;
    call c = {.function = "gae", .args = args, .count = count};
    given g = {.numbers = NULL};
    passrl_view out, returns, rewards, values, bootstrap;
    needed(&c, "advantages", &out);
    const passrl_view *also = tensor(&c, "returns", &returns);
    needed(&c, "rewards", &rewards);
    needed(&c, "values", &values);
    layout(&c, &g, &rewards);
    const double gamma = number(&c, "gamma"), lam = number(&c, "lam");
    const passrl_view *last = tensor(&c, "bootstrap", &bootstrap);
    if (c.failed) return -1;
    STAGE(g, passrl_gae(context(), &g.batch, gamma, lam, &rewards, &values, last, &out, also, workspace, size, NULL));
}

/* out, x, extents, mask, k */
EXPORT(divide_length) {
    (void)self;
    call c = {.function = "divide_length", .args = args, .count = count};
    given g = {.numbers = NULL};
    passrl_view out, x;
    needed(&c, "out", &out);
    needed(&c, "x", &x);
    layout(&c, &g, &x);
    const double k = number(&c, "k");
    if (c.failed) return -1;
    STAGE(g, passrl_divide_length(context(), &g.batch, k, &x, &out, workspace, size, NULL));
}

/* out, x, extents, mask */
EXPORT(whiten) {
    (void)self;
    call c = {.function = "whiten", .args = args, .count = count};
    given g = {.numbers = NULL};
    passrl_view out, x;
    needed(&c, "out", &out);
    needed(&c, "x", &x);
    layout(&c, &g, &x);
    if (c.failed) return -1;
    passrl_config config;
    passrl_config_init(&config, sizeof config);
    STAGE(g, passrl_whiten(context(), &g.batch, &config, &x, &out, workspace, size, NULL));
}
