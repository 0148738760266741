/* PASS on one group of three rollouts A, B, C with step scores, in both layouts.
 *   cc -Iinclude bindings/cpp/examples/c_minimal.c -Ltarget/release -lpassrl -lm -o c_minimal */
#include "passrl.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* A call that must give 0; a sentence otherwise. */
#define OK(call) do { if ((call) != PASSRL_OK) { fprintf(stderr, "%s\n", passrl_last_error()); exit(1); } } while (0)

static passrl_view line(void *data, int64_t n, int32_t dtype) {
    passrl_view v = {data, {n, 1}, {1, 1}, 1, dtype, PASSRL_CPU, 0};
    return v;
}

static passrl_view grid(void *data, int64_t rows, int64_t columns, int32_t dtype) {
    passrl_view v = {data, {rows, columns}, {columns, 1}, 2, dtype, PASSRL_CPU, 0};
    return v;
}

int main(void) {
    /* 4 + 3 + 5 tokens; the third token of C is out of scope. Steps end (exclusively) at 2, 4 | 3 | 1, 2, 5. */
    int32_t begins[] = {0, 4, 7, 12}, lengths[] = {4, 3, 5}, step_offsets[] = {0, 2, 3, 6}, step_ends[] = {2, 4, 3, 1, 2, 5};
    uint8_t scope[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1}, scope_rows[] = {1, 1, 1, 1, 0, 1, 1, 1, 0, 0, 1, 1, 0, 1, 1}, ok[] = {1, 1, 0};
    float scores[] = {1, -1, 0.5f, 0.25f, 0.25f, -0.5f}, outcome[] = {1, 0, 0}, format[] = {1, 1, 0}, packed[12], rows[15];
    const double want[] = {1.989668793, 1.989668793, 0.224898493, 0.224898493, 0.579672813, 0.579672813,
                           0.579672813, -4.816441028, -4.264801964, 0, -3.464095615, -3.464095615};

    passrl_config config;
    passrl_limits limits;
    passrl_context *context;
    passrl_plan *plan;
    size_t bytes;
    OK(passrl_config_init_preset(&config, sizeof config, "pass"));
    OK(passrl_limits_init(&limits, sizeof limits));
    limits.rollouts = 3, limits.groups = 1, limits.tokens = 15, limits.rollout_tokens = 5, limits.steps = 6;
    OK(passrl_context_create(NULL, &context));
    OK(passrl_plan_create(context, &config, &limits, NULL, &plan));
    OK(passrl_plan_workspace_size(plan, &bytes));
    void *workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);

    passrl_batch batch;
    passrl_outputs outputs;
    OK(passrl_batch_init(&batch, sizeof batch));
    OK(passrl_outputs_init(&outputs, sizeof outputs));
    passrl_view v_begins = line(begins, 4, PASSRL_I32), v_mask = line(scope, 12, PASSRL_U8), v_offsets = line(step_offsets, 4, PASSRL_I32),
                v_ends = line(step_ends, 6, PASSRL_I32), v_scores = line(scores, 6, PASSRL_F32), v_outcome = line(outcome, 3, PASSRL_F32),
                v_format = line(format, 3, PASSRL_F32), v_ok = line(ok, 3, PASSRL_U8), v_packed = line(packed, 12, PASSRL_F32);
    batch.num_rollouts = 3, batch.group_size = 3, batch.cu_seqlens = &v_begins, batch.mask = &v_mask;
    batch.step_offsets = &v_offsets, batch.step_ends = &v_ends, batch.step_scores = &v_scores;
    batch.outcome = &v_outcome, batch.format = &v_format, batch.format_ok = &v_ok;
    outputs.advantages = &v_packed;
    OK(passrl_plan_run(plan, &batch, &outputs, workspace, bytes, NULL));

    /* The same as rows of five slots. */
    passrl_view v_lengths = line(lengths, 3, PASSRL_I32), v_scope = grid(scope_rows, 3, 5, PASSRL_U8), v_rows = grid(rows, 3, 5, PASSRL_F32);
    batch.layout = PASSRL_PADDED, batch.cu_seqlens = NULL, batch.lengths = &v_lengths, batch.mask = &v_scope;
    outputs.advantages = &v_rows;
    OK(passrl_plan_run(plan, &batch, &outputs, workspace, bytes, NULL));

    int wrong = 0;
    for (int i = 0, t = 0; i < 3; i++) {
        printf("%c:", 'A' + i);
        for (int j = 0; j < lengths[i]; j++, t++) {
            printf(" %.6f", packed[t]);
            wrong += fabs(packed[t] - want[t]) > 1e-6 || packed[t] != rows[5 * i + j];
        }
        printf("\n");
    }
    free(workspace);
    passrl_plan_destroy(plan);
    passrl_context_destroy(context);
    return wrong != 0;
}
