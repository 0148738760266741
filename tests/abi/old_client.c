/* A client compiled against an older header: its structs are shorter, and a canary stands behind each. Newer fields have their defaults,
 * nothing is written beyond struct_size, newer bytes that are set are refused. */
#include "common.h"
#include <stddef.h>

#define CANARY 64
/* Memory for a struct cut at `field`, with a canary behind it. */
#define OLD(type, field) offsetof(type, field)

static void *room(size_t size) {
    unsigned char *p = malloc(size + CANARY);
    memset(p, 0xC5, size + CANARY);
    return p;
}

static void alive(const void *memory, size_t size, const char *what) {
    const unsigned char *p = (const unsigned char *)memory + size;
    for (int i = 0; i < CANARY; i++)
        if (p[i] != 0xC5) {
            fprintf(stderr, "%s: byte %d behind the struct was written\n", what, i);
            exit(1);
        }
}

int main(void) {
    sample s;
    sample_make(&s, 16, 32, 0, PRM_CSR);
    void *workspace;
    size_t bytes;
    passrl_context *new_context = context_of(1);
    passrl_plan *new_plan = plan_of(new_context, &s, &workspace, &bytes);
    OK(passrl_plan_run(new_plan, &s.batch, &s.outputs, workspace, bytes, NULL));
    float *want = malloc((size_t)s.tokens * 4);
    memcpy(want, s.advantages, (size_t)s.tokens * 4);
    memset(s.advantages, 0, (size_t)s.tokens * 4);

    /* Every struct as the older client knows it. */
    size_t n_options = OLD(passrl_context_options, cache_dir), n_limits = OLD(passrl_limits, group_rollouts), n_batch = OLD(passrl_batch, step_marks),
           n_outputs = OLD(passrl_outputs, path_scores), n_report = OLD(passrl_report, missing_values), n_config = OLD(passrl_config, streams[6]),
           n_collective = OLD(passrl_collective, rank);
    passrl_context_options *options = room(n_options);
    passrl_limits *limits = room(n_limits);
    passrl_batch *batch = room(n_batch);
    passrl_outputs *outputs = room(n_outputs);
    passrl_report *report = room(n_report);
    passrl_config *config = room(n_config);
    passrl_collective *collective = room(n_collective);
    OK(passrl_context_options_init(options, (uint32_t)n_options));
    OK(passrl_limits_init(limits, (uint32_t)n_limits));
    OK(passrl_batch_init(batch, (uint32_t)n_batch));
    OK(passrl_report_init(report, (uint32_t)n_report));
    OK(passrl_collective_init(collective, (uint32_t)n_collective));
    OK(passrl_config_init_preset(config, (uint32_t)n_config, "pass"));
    alive(config, n_config, "passrl_config_init_preset");
    OK(passrl_config_init(config, (uint32_t)n_config));
    OK(passrl_config_set(config, "gamma", "0.5"));
    OK(passrl_config_set(config, "gamma", "1"));
    /* A field that this client does not have cannot be set, nor a preset that needs one: it would be another estimator under the name. */
    CHECK(passrl_config_set(config, "extra_0.weight", "2") == PASSRL_ERR_STRUCT_SIZE && strstr(passrl_last_error(), "recompile with this library's passrl.h"));
    CHECK(passrl_config_set(config, "rho_clip", "2") == PASSRL_ERR_STRUCT_SIZE && config->struct_size == n_config);
    CHECK(passrl_config_init_preset(config, (uint32_t)n_config, "verl.grpo") == PASSRL_ERR_STRUCT_SIZE && strstr(passrl_last_error(), "preset \"verl.grpo\" sets kl_in_reward = k1"));
    OK(passrl_config_init(config, (uint32_t)n_config));
    /* Output structs end with the report, which an older client without it does not know. */
    OK(passrl_outputs_init(outputs, (uint32_t)n_outputs));

    passrl_context *context;
    passrl_plan *plan;
    OK(passrl_context_create(options, &context));
    limits->rollouts = s.limits.rollouts, limits->groups = s.limits.groups, limits->tokens = s.limits.tokens;
    limits->rollout_tokens = s.limits.rollout_tokens;
    OK(passrl_plan_create(context, config, limits, NULL, &plan));
    batch->num_rollouts = s.rollouts, batch->cu_seqlens = s.batch.cu_seqlens, batch->mask = s.batch.mask, batch->group_index = s.batch.group_index;
    batch->outcome = s.batch.outcome, batch->format = s.batch.format, batch->step_offsets = s.batch.step_offsets;
    batch->step_ends = s.batch.step_ends, batch->step_scores = s.batch.step_scores;
    outputs->advantages = s.outputs.advantages;
    size_t old_bytes;
    OK(passrl_plan_workspace_size(plan, &old_bytes));
    void *old_workspace = aligned_alloc(64, (old_bytes + 127) / 64 * 64);
    OK(passrl_plan_run(plan, batch, outputs, old_workspace, old_bytes, NULL));
    CHECK(memcmp(want, s.advantages, (size_t)s.tokens * 4) == 0);
    /* A new outputs struct with an old report. */
    s.outputs.report = report;
    OK(passrl_plan_run(plan, batch, &s.outputs, old_workspace, old_bytes, NULL));
    CHECK(report->struct_size == n_report && report->rollouts == s.rollouts && report->first_rollout == -1);
    OK(passrl_report_status(report));
    OK(passrl_report_merge(report, report));
    CHECK(report->rollouts == 2 * s.rollouts && report->struct_size == n_report);
    alive(options, n_options, "passrl_context_options");
    alive(limits, n_limits, "passrl_limits");
    alive(batch, n_batch, "passrl_batch");
    alive(outputs, n_outputs, "passrl_outputs");
    alive(report, n_report, "passrl_report");
    alive(config, n_config, "passrl_config");
    alive(collective, n_collective, "passrl_collective");

    /* A newer client: bytes behind the known ones are zeroed by init, may stay zero, and are refused when set. */
    unsigned char newer[sizeof(passrl_config) + 32];
    memset(newer, 0xC5, sizeof newer);
    passrl_config *future = (passrl_config *)(void *)newer;
    OK(passrl_config_init(future, sizeof newer));
    for (size_t i = sizeof(passrl_config); i < sizeof newer; i++) CHECK(newer[i] == 0);
    passrl_plan *more;
    OK(passrl_plan_create(context, future, limits, NULL, &more));
    passrl_plan_destroy(more);
    for (size_t i = sizeof(passrl_config); i < sizeof newer; i++) {
        newer[i] = 1;
        more = (passrl_plan *)(void *)newer;
        CHECK(passrl_plan_create(context, future, limits, NULL, &more) == PASSRL_ERR_STRUCT_SIZE);
        CHECK(more == (passrl_plan *)(void *)newer && strstr(passrl_last_error(), "newer than this library's"));
        newer[i] = 0;
    }
    /* Every size from the smallest on: never a byte too many. */
    for (uint32_t size = 0; size <= sizeof(passrl_config); size++) {
        unsigned char *cut = room(size);
        int status = passrl_config_init((passrl_config *)(void *)cut, size);
        CHECK(status == (size < 8 || size % 8 ? PASSRL_ERR_STRUCT_SIZE : PASSRL_OK));
        alive(cut, size, "passrl_config_init");
        free(cut);
    }
    void *all[] = {options, limits, batch, outputs, report, config, collective, workspace, old_workspace, want};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    passrl_plan_destroy(plan);
    passrl_plan_destroy(new_plan);
    passrl_plan_destroy(NULL);
    passrl_context_destroy(context);
    passrl_context_destroy(new_context);
    passrl_context_destroy(NULL);
    sample_free(&s);
    return 0;
}
