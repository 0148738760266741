// passrl.hpp on the worked example of docs/formulas.md, section 6: one group of three rollouts A, B, C, packed. 0 where everything holds.
#include "passrl.hpp"

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>
#if __cplusplus >= 202002L
#include <span>
#endif

static int wrong = 0;
#define HOLDS(what) do { if (!(what)) { std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); wrong++; } } while (0)

// Every allocation of the program's C++ side is counted. Not inlined: g++ would warn of free() beside its own operator new.
#define OUT_OF_LINE __attribute__((noinline))
static long allocations = 0;
static void *take(std::size_t size, std::size_t alignment) {
    allocations++;
    if (void *data = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment)) return data;
    std::abort();
}
OUT_OF_LINE void *operator new(std::size_t size) { return take(size, alignof(std::max_align_t)); }
OUT_OF_LINE void *operator new(std::size_t size, std::align_val_t alignment) { return take(size, static_cast<std::size_t>(alignment)); }
OUT_OF_LINE void *operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t &) noexcept {
    return take(size, static_cast<std::size_t>(alignment));
}
OUT_OF_LINE void operator delete(void *data) noexcept { std::free(data); }
OUT_OF_LINE void operator delete(void *data, std::size_t) noexcept { std::free(data); }
OUT_OF_LINE void operator delete(void *data, std::align_val_t) noexcept { std::free(data); }
void operator delete(void *data, std::size_t, std::align_val_t) noexcept { std::free(data); }

#if defined(__cpp_exceptions)
// What a call throws: its status and sentence; status 0 where it throws nothing.
struct refusal {
    passrl_status status = 0;
    std::string sentence;
};
template <class Call>
static refusal refused(Call call) {
    try {
        call();
    } catch (const passrl::error &e) {
        const std::runtime_error &base = e;
        return {e.status(), base.what()};
    }
    return {};
}
static bool begins(const refusal &r, passrl_status status, const char *with) { return r.status == status && r.sentence.rfind(with, 0) == 0; }

#endif

// 4 + 3 + 5 tokens; the third token of C is out of scope. Steps end (exclusively) at 2, 4 | 3 | 1, 2, 5.
static const std::int32_t cu[] = {0, 4, 7, 12}, step_offsets[] = {0, 2, 3, 6};
static const std::int64_t step_ends[] = {2, 4, 3, 1, 2, 5};
static const bool scope[] = {true, true, true, true, true, true, true, true, true, false, true, true};
static const std::uint8_t ok[] = {1, 1, 0};
static const float scores[] = {1, -1, 0.5F, 0.25F, 0.25F, -0.5F};
static const double outcome[] = {1, 0, 0}, format[] = {1, 1, 0};
static const double want[] = {1.989668793, 1.989668793, 0.224898493, 0.224898493, 0.579672813, 0.579672813,
                              0.579672813, -4.816441028, -4.264801964, 0, -3.464095615, -3.464095615};
static const double want_scores[] = {1.989668793, 0.579672813, -4.816441028};

// Rollouts `from` to `to` of the example as a batch of their own. Holds what the batch points to: neither copied nor moved.
struct slice {
    std::int32_t own_cu[4], own_offsets[4], group[3] = {0, 0, 0};
    passrl_view v_cu, v_mask, v_offsets, v_ends, v_scores, v_outcome, v_format, v_ok, v_group;
    passrl_batch batch = passrl::batch();
    slice(int from, int to) {
        const int n = to - from, token = cu[from], step = step_offsets[from], tokens = cu[to] - token, steps = step_offsets[to] - step;
        for (int i = 0; i <= n; i++) own_cu[i] = cu[from + i] - token, own_offsets[i] = step_offsets[from + i] - step;
        v_cu = passrl::view(own_cu, n + 1), v_mask = passrl::view(scope + token, tokens), v_offsets = passrl::view(own_offsets, n + 1);
        v_ends = passrl::view(step_ends + step, steps), v_scores = passrl::view(scores + step, steps);
        v_outcome = passrl::view(outcome + from, n), v_format = passrl::view(format + from, n), v_ok = passrl::view(ok + from, n);
        v_group = passrl::view(group, n);
        batch.num_rollouts = n, batch.num_groups = 1, batch.group_index = &v_group;
        batch.cu_seqlens = &v_cu, batch.mask = &v_mask;
        batch.step_offsets = &v_offsets, batch.step_ends = &v_ends, batch.step_scores = &v_scores;
        batch.outcome = &v_outcome, batch.format = &v_format, batch.format_ok = &v_ok;
    }
    slice(const slice &) = delete;
    slice &operator=(const slice &) = delete;
};

static void views() {
    double d[6] = {};
    std::uint16_t halves[6] = {};
    const passrl_view a = passrl::view(d, 2, 2, 3), b = passrl::view(halves, passrl::dtype::bf16, 6), c = passrl::view(d, 2, 3);
    const passrl_view e = passrl::view(halves, passrl::dtype::f16, 2, 2, 3);
    HOLDS(a.ndim == 2 && a.shape[0] == 2 && a.shape[1] == 2 && a.stride[0] == 3 && a.stride[1] == 1 && a.dtype == PASSRL_F64 && a.data == d);
    HOLDS(b.ndim == 1 && b.shape[0] == 6 && b.stride[0] == 1 && b.dtype == PASSRL_BF16 && b.data == halves && b.device_type == PASSRL_CPU);
    HOLDS(c.shape[1] == 3 && c.stride[0] == 3 && e.ndim == 2 && e.stride[0] == 3 && e.dtype == PASSRL_F16);
    HOLDS(passrl::view(cu, 4).dtype == PASSRL_I32 && passrl::view(step_ends, 6).dtype == PASSRL_I64 && passrl::view(scores, 6).dtype == PASSRL_F32);
    HOLDS(passrl::view(scope, 12).dtype == PASSRL_BOOL && passrl::view(ok, 3).dtype == PASSRL_U8);
    std::vector<double> v(5);
    const std::array<std::int64_t, 2> w{};
    const passrl_view f = passrl::view(v), g = passrl::view(w), h = passrl::view(scores);
    HOLDS(f.data == v.data() && f.shape[0] == 5 && f.ndim == 1 && f.dtype == PASSRL_F64);
    HOLDS(g.data == w.data() && g.shape[0] == 2 && g.dtype == PASSRL_I64 && h.data == scores && h.shape[0] == 6 && h.dtype == PASSRL_F32);
#if __cplusplus >= 202002L
    std::span<double> s(v.data() + 1, 3);
    HOLDS(passrl::view(s).data == v.data() + 1 && passrl::view(s).shape[0] == 3);
#endif
    static_assert(!std::is_copy_constructible_v<passrl::context> && std::is_nothrow_move_constructible_v<passrl::context>);
    static_assert(!std::is_copy_constructible_v<passrl::plan> && std::is_nothrow_move_assignable_v<passrl::plan>);
    static_assert(!std::is_copy_constructible_v<passrl::workspace> && std::is_nothrow_move_constructible_v<passrl::workspace>);
    static_assert(!std::is_copy_constructible_v<passrl::partials> && std::is_nothrow_move_assignable_v<passrl::partials>);
}

#if defined(__cpp_exceptions)
static passrl::plan make(passrl_limits &limits, passrl_config &config) {
    passrl_context_options options = passrl::context_options();
    options.threads = 2;
    passrl::context first(options), context(std::move(first));
    HOLDS(!first && context && !context.describe().empty() && std::strlen(context.describe().c_str()) == context.describe().size());
    HOLDS(begins(refused([&] { passrl::plan(first, config, limits); }), PASSRL_ERR_NULL, "passrl_plan_create: "));
    return passrl::plan(context, config, limits); // outlives its context
}

static void example() {
    passrl_config config = passrl::config("pass");
    passrl::set(config, "k", "0.7");
    HOLDS(config.k == 0.7);
    passrl_limits limits = passrl::limits();
    limits.rollouts = 3, limits.groups = 1, limits.tokens = 12, limits.rollout_tokens = 5, limits.steps = 6;
    passrl::plan made = make(limits, config), plan(std::move(made));
    HOLDS(!made && plan && plan.phases() == 2 && !plan.describe().empty());
    passrl::workspace first(plan), workspace(std::move(first));
    HOLDS(first.data() == nullptr && first.size() == 0 && workspace.size() == plan.workspace_size());
    HOLDS(reinterpret_cast<std::uintptr_t>(workspace.data()) % 64 == 0);

    // One run: the paper's numbers, nothing allocated.
    slice all(0, 3);
    float advantages[12], paths[3];
    passrl_view v_advantages = passrl::view(advantages, 12), v_paths = passrl::view(paths, 3);
    passrl_report report = passrl::report();
    passrl_outputs outputs = passrl::outputs();
    outputs.advantages = &v_advantages, outputs.path_scores = &v_paths, outputs.report = &report;
    const long before = allocations;
    HOLDS(plan.run(all.batch, outputs, workspace) == PASSRL_OK);
    HOLDS(plan.run(all.batch, outputs, workspace.data(), workspace.size()) == PASSRL_OK);
    HOLDS(plan.try_run(all.batch, outputs, workspace.data(), workspace.size()) == PASSRL_OK);
    HOLDS(allocations == before);
    for (int t = 0; t < 12; t++) HOLDS(std::fabs(advantages[t] - want[t]) <= 1e-6);
    for (int i = 0; i < 3; i++) HOLDS(std::fabs(paths[i] - want_scores[i]) <= 1e-6);
    HOLDS(report.rollouts == 3 && report.tokens == 11 && report.chunks == 6 && report.findings == 0);

    // A and then B, C as micro-batches: the same bits.
    slice head(0, 1), tail(1, 3);
    passrl::partials left(plan), right(plan);
    slice *parts[] = {&head, &tail};
    const long still = allocations;
    for (int round = 0; round < 2; round++) { // the second after init()
        left.init();
        for (std::int32_t phase = 0; phase < plan.phases(); phase++)
            for (slice *part : parts) left.add(phase, part->batch, workspace);
        float shaped[12];
        std::memset(shaped, 0xff, sizeof shaped);
        passrl_view v_head = passrl::view(shaped, 4), v_tail = passrl::view(shaped + 4, 8);
        passrl_outputs sliced = passrl::outputs();
        sliced.advantages = &v_tail;
        HOLDS(left.apply(tail.batch, sliced, workspace) == PASSRL_OK);
        sliced.advantages = &v_head;
        HOLDS(left.apply(head.batch, sliced, workspace) == PASSRL_OK);
        HOLDS(std::memcmp(shaped, advantages, sizeof shaped) == 0);
    }
    HOLDS(allocations == still);
    // Partials and plan moved.
    passrl::plan moved(std::move(plan));
    passrl::partials sum(std::move(right));
    sum.init();
    for (std::int32_t phase = 0; phase < moved.phases(); phase++) {
        HOLDS(!sum.layout(phase).empty());
        sum.add(phase, all.batch, workspace);
    }
    float shaped[12];
    passrl_view v_shaped = passrl::view(shaped, 12);
    passrl_outputs whole = passrl::outputs();
    whole.advantages = &v_shaped;
    HOLDS(sum.apply(all.batch, whole, workspace) == PASSRL_OK);
    HOLDS(std::memcmp(shaped, advantages, sizeof shaped) == 0);
    HOLDS(right.data() == nullptr && right.size() == 0 && refused([&] { right.init(); }).status < 0);

    // Two buffers, merged after their first phase.
    passrl::partials a(moved), b(moved);
    a.add(0, head.batch, workspace), b.add(0, tail.batch, workspace), a.merge(b);
    a.add(1, head.batch, workspace), a.add(1, tail.batch, workspace);
    std::memset(shaped, 0xff, sizeof shaped);
    HOLDS(a.apply(all.batch, whole, workspace) == PASSRL_OK && std::memcmp(shaped, advantages, sizeof shaped) == 0);

    // Refusals throw with the library's sentence; nothing is written.
    std::memset(shaped, 0xff, sizeof shaped);
    float untouched[12];
    std::memcpy(untouched, shaped, sizeof shaped);
    const refusal small = refused([&] { moved.run(all.batch, whole, workspace.data(), 0); });
    HOLDS(begins(small, PASSRL_ERR_WORKSPACE, "passrl_plan_run: "));
    v_shaped.shape[0] = 11;
    HOLDS(begins(refused([&] { moved.run(all.batch, whole, workspace); }), PASSRL_ERR_SHAPE, "passrl_plan_run: "));
    HOLDS(moved.try_run(all.batch, whole, workspace.data(), workspace.size()) == PASSRL_ERR_SHAPE && *passrl::last_error() != '\0');
    v_shaped.shape[0] = 12;
    HOLDS(begins(refused([&] { plan.run(all.batch, whole, workspace); }), PASSRL_ERR_NULL, "passrl_plan_run: "));
    HOLDS(std::memcmp(shaped, untouched, sizeof shaped) == 0);
    HOLDS(begins(refused([] { (void)passrl::config("pas"); }), PASSRL_ERR_UNKNOWN_NAME, "passrl_config_init_preset: "));
    HOLDS(begins(refused([&] { passrl::set(config, "kk", "1"); }), PASSRL_ERR_UNKNOWN_NAME, "passrl_config_set: "));
    limits.rollouts = -1;
    HOLDS(refused([&] { passrl::plan(passrl::context(), config, limits); }).status < 0);

    // Findings in the data are no exception.
    const double bad[] = {1, std::nan(""), 0};
    const passrl_view v_bad = passrl::view(bad, 3);
    all.batch.outcome = &v_bad;
    HOLDS(moved.run(all.batch, whole, workspace) == PASSRL_FINDING_MISSING && *passrl::last_error() != '\0');
    HOLDS(shaped[0] == 0 && shaped[11] == 0);
}

#endif

// By status alone: the same bits as with exceptions, refusals as numbers. Compiled with -fno-exceptions too.
static void by_status() {
    passrl::context context(nullptr);
    passrl::plan plan(nullptr);
    passrl::workspace workspace(nullptr);
    passrl::partials partials(nullptr);
    HOLDS(!context && !plan && workspace.data() == nullptr && partials.size() == 0);
    passrl_limits limits = passrl::limits();
    limits.rollouts = 3, limits.groups = 1, limits.tokens = 12, limits.steps = 6;
    const passrl_config config = passrl::config();
    HOLDS(plan.try_create(context, config, limits) == PASSRL_ERR_NULL && !plan);
    HOLDS(workspace.try_create(plan) == PASSRL_ERR_NULL && partials.try_create(plan) == PASSRL_ERR_NULL);
    passrl_context_options options = passrl::context_options();
    options.threads = -1;
    HOLDS(context.try_create(&options) == PASSRL_ERR_VALUE && !context && context.try_create() == PASSRL_OK && context);
    HOLDS(plan.try_create(context, config, limits) == PASSRL_OK && plan);
    HOLDS(workspace.try_create(plan) == PASSRL_OK && workspace.size() == plan.workspace_size() && partials.try_create(plan) == PASSRL_OK);

    slice all(0, 3);
    float advantages[12], again[12];
    passrl_view v_advantages = passrl::view(advantages), v_again = passrl::view(again);
    passrl_outputs outputs = passrl::outputs();
    outputs.advantages = &v_advantages;
    HOLDS(plan.try_run(all.batch, outputs, workspace) == PASSRL_OK && std::fabs(advantages[0] - want[0]) <= 1e-6);
    for (std::int32_t phase = 0; phase < plan.phases(); phase++)
        HOLDS(partials.try_add(phase, all.batch, workspace.data(), workspace.size()) == PASSRL_OK);
    HOLDS(partials.try_add(9, all.batch, workspace.data(), workspace.size()) < 0);
    HOLDS(partials.try_merge(nullptr, 0) < 0);
    outputs.advantages = &v_again;
    HOLDS(partials.try_apply(all.batch, outputs, workspace.data(), workspace.size()) == PASSRL_OK);
    HOLDS(std::memcmp(advantages, again, sizeof again) == 0);
    passrl_collective collective = passrl::collective();
    HOLDS(collective.struct_size == sizeof collective && collective.all_reduce == nullptr);
}

#if defined(__cpp_exceptions)
int main() {
    if (!passrl::abi_matches()) return 2;
    try {
        views();
        by_status();
        example();
    } catch (const std::exception &e) {
        std::fprintf(stderr, "not expected: %s\n", e.what());
        return 3;
    }
    return wrong != 0;
}
#else
int main() {
    if (!passrl::abi_matches()) return 2;
    views();
    by_status();
    return wrong != 0;
}
#endif
