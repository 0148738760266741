/* What the C tests share: a check that names its line, and a batch of a size made from a formula. */
#ifndef COMMON_H
#define COMMON_H
#include "passrl.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(truth) do { if (!(truth)) { fprintf(stderr, "%s:%d: %s; last error \"%s\"\n", __FILE__, __LINE__, #truth, passrl_last_error()); exit(1); } } while (0)
#define OK(call) CHECK((call) == PASSRL_OK)

/* A view of one or two dimensions (columns 0: one). */
static inline passrl_view view_of(void *data, int64_t rows, int64_t columns, int32_t dtype) {
    passrl_view v = {data, {rows, columns ? columns : 1}, {columns ? columns : 1, 1}, columns ? 2 : 1, dtype, PASSRL_CPU, 0};
    return v;
}

enum { PRM_CSR, PRM_DENSE, KL, OPD };

/* A batch of `rollouts` rows of up to `row` tokens, in groups of 8, packed or padded, its plan and its memory. */
typedef struct sample {
    int64_t rollouts, row, tokens;
    int padded, kind;
    int64_t *begins, *lengths, *step_offsets, *step_ends, *index;
    uint8_t *mask;
    float *signal, *teacher, *scores, *outcome, *format, *advantages, *returns;
    passrl_view v[16];
    passrl_batch batch;
    passrl_outputs outputs;
    passrl_config config;
    passrl_limits limits;
} sample;

static inline uint32_t noise(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static inline void sample_make(sample *s, int64_t rollouts, int64_t row, int padded, int kind) {
    uint32_t state = 12345;
    int64_t steps = 0, token = 0, slots = rollouts * row;
    memset(s, 0, sizeof *s);
    s->rollouts = rollouts, s->row = row, s->padded = padded, s->kind = kind;
    s->begins = calloc((size_t)rollouts + 1, 8), s->lengths = calloc((size_t)rollouts, 8), s->index = calloc((size_t)rollouts, 8);
    s->step_offsets = calloc((size_t)rollouts + 1, 8), s->step_ends = calloc((size_t)slots, 8);
    s->mask = malloc((size_t)slots), s->signal = calloc((size_t)slots, 4), s->teacher = calloc((size_t)slots, 4);
    s->scores = calloc((size_t)slots, 4), s->outcome = calloc((size_t)rollouts, 4), s->format = calloc((size_t)rollouts, 4);
    s->advantages = calloc((size_t)slots, 4), s->returns = calloc((size_t)slots, 4);
    for (int64_t i = 0; i < rollouts; i++) {
        int64_t length = row - (int64_t)(noise(&state) % (uint32_t)(row / 2)), at = padded ? i * row : token;
        for (int64_t t = 0; t < length; t++) {
            s->mask[at + t] = noise(&state) % 16 != 0;
            s->signal[at + t] = -(float)(noise(&state) % 64) / 16.0f;
            s->teacher[at + t] = -(float)(noise(&state) % 64) / 32.0f;
        }
        for (int64_t end = 0; end < length;) {
            end += 1 + noise(&state) % 7;
            s->step_ends[steps] = end < length ? end : length;
            s->scores[steps++] = (float)(noise(&state) % 5) / 4.0f;
        }
        s->lengths[i] = length, s->index[i] = i / 8, token += length;
        s->begins[i + 1] = token, s->step_offsets[i + 1] = steps;
        s->outcome[i] = (float)(noise(&state) % 3), s->format[i] = (float)(noise(&state) % 2);
    }
    s->tokens = padded ? slots : token;
    int64_t r = padded ? rollouts : token, c = padded ? row : 0;
    s->v[0] = view_of(s->begins, rollouts + 1, 0, PASSRL_I64), s->v[1] = view_of(s->lengths, rollouts, 0, PASSRL_I64);
    s->v[2] = view_of(s->mask, r, c, PASSRL_U8), s->v[3] = view_of(s->signal, r, c, PASSRL_F32);
    s->v[4] = view_of(s->teacher, r, c, PASSRL_F32), s->v[5] = view_of(s->step_offsets, rollouts + 1, 0, PASSRL_I64);
    s->v[6] = view_of(s->step_ends, steps, 0, PASSRL_I64), s->v[7] = view_of(s->scores, steps, 0, PASSRL_F32);
    s->v[8] = view_of(s->outcome, rollouts, 0, PASSRL_F32), s->v[9] = view_of(s->format, rollouts, 0, PASSRL_F32);
    s->v[10] = view_of(s->advantages, r, c, PASSRL_F32), s->v[11] = view_of(s->returns, r, c, PASSRL_F32);
    s->v[12] = view_of(s->index, rollouts, 0, PASSRL_I64);
    OK(passrl_config_init(&s->config, sizeof s->config));
    OK(passrl_limits_init(&s->limits, sizeof s->limits));
    OK(passrl_batch_init(&s->batch, sizeof s->batch));
    OK(passrl_outputs_init(&s->outputs, sizeof s->outputs));
    s->config.kind = kind == KL || kind == OPD ? PASSRL_KIND_KL : PASSRL_KIND_PRM;
    s->limits.rollouts = rollouts, s->limits.groups = (rollouts + 7) / 8, s->limits.tokens = slots, s->limits.rollout_tokens = row;
    s->batch.num_rollouts = rollouts, s->batch.group_index = &s->v[12], s->batch.mask = &s->v[2];
    s->batch.outcome = &s->v[8], s->batch.format = &s->v[9];
    if (padded) s->batch.layout = PASSRL_PADDED, s->batch.lengths = &s->v[1];
    else s->batch.cu_seqlens = &s->v[0];
    if (kind == PRM_CSR) s->batch.step_offsets = &s->v[5], s->batch.step_ends = &s->v[6], s->batch.step_scores = &s->v[7];
    else if (kind == OPD) s->batch.logp_policy = &s->v[3], s->batch.logp_teacher = &s->v[4];
    else s->batch.signal[0] = &s->v[3];
    s->outputs.advantages = &s->v[10], s->outputs.returns = &s->v[11];
}

static inline void sample_free(sample *s) {
    void *all[] = {s->begins, s->lengths, s->step_offsets, s->step_ends, s->index, s->mask, s->signal,
                   s->teacher, s->scores, s->outcome, s->format, s->advantages, s->returns};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static inline passrl_context *context_of(int threads) {
    passrl_context_options options;
    passrl_context *context = NULL;
    OK(passrl_context_options_init(&options, sizeof options));
    options.threads = threads, options.small_call_bytes = 0;
    OK(passrl_context_create(&options, &context));
    return context;
}

static inline passrl_plan *plan_of(passrl_context *context, const sample *s, void **workspace, size_t *bytes) {
    passrl_plan *plan = NULL;
    OK(passrl_plan_create(context, &s->config, &s->limits, NULL, &plan));
    OK(passrl_plan_workspace_size(plan, bytes));
    *workspace = aligned_alloc(64, (*bytes + 127) / 64 * 64);
    CHECK(*workspace != NULL);
    memset(*workspace, 0xA5, (*bytes + 127) / 64 * 64);
    return plan;
}

#endif
