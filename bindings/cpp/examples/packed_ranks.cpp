// Packed sequences as Megatron-style trainers have them (cu_seqlens, bf16), spread over the micro-batches of several data-parallel ranks.
//
// A group's rollouts lie on several ranks; its statistics must be those of all of them. Each rank adds its micro-batches to a partials buffer, phase by phase;
// after a phase the buffers' sections are all-reduced (here over the ranks' memory: MPI_Allreduce or ncclAllReduce in a trainer); then each rank shapes
// its own micro-batches. Status 0 where every advantage has the bits of one call on the whole batch.
//   c++ -std=c++20 packed_ranks.cpp $(pkg-config --cflags --libs passrl) -o packed_ranks
#include <passrl.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

namespace {

constexpr int ranks = 4, micro_batches = 3, per_micro_batch = 8, groups = 12, most_tokens = 96;
constexpr int rollouts = ranks * micro_batches * per_micro_batch;

// The upper half of an f32, rounded to nearest even.
std::uint16_t bf16(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Rollouts, packed one after the other: tokens of rollout i are cu[i] .. cu[i+1]. bf16 process signal a token, and a mask (0: tool output).
struct data {
    std::vector<std::int32_t> cu{0}, group;
    std::vector<std::uint16_t> signal;
    std::vector<std::uint8_t> mask, format_ok;
    std::vector<float> outcome, format;

    static data made() {
        data all;
        std::mt19937 random(7);
        for (int i = 0; i < rollouts; i++) {
            const int tokens = 1 + static_cast<int>(random() % most_tokens);
            float score = 0;
            for (int t = 0; t < tokens; t++) {
                if (t % 16 == 0) score = static_cast<float>(random() % 1000) / 500 - 1; // a step's score stands on each of its tokens
                all.signal.push_back(bf16(score)), all.mask.push_back(random() % 8 != 0);
            }
            all.cu.push_back(all.cu.back() + tokens);
            all.group.push_back(static_cast<std::int32_t>(random() % groups)); // any order, over all ranks
            all.outcome.push_back(static_cast<float>(random() % 2)), all.format_ok.push_back(random() % 5 != 0), all.format.push_back(all.format_ok.back());
        }
        return all;
    }
};

// Rollouts `from` to `to` as a batch of their own: only cu_seqlens, which begins at 0, is new memory. Not moved: the batch points into it.
struct slice {
    std::vector<std::int32_t> own_cu;
    passrl_view cu, signal, mask, group, outcome, format, ok;
    passrl_batch batch = passrl::batch();

    slice(const data &all, int from, int to) {
        const auto first = static_cast<std::size_t>(from);
        const std::int32_t token = all.cu[first], n = to - from, tokens = all.cu[static_cast<std::size_t>(to)] - token;
        for (int i = from; i <= to; i++) own_cu.push_back(all.cu[static_cast<std::size_t>(i)] - token);
        cu = passrl::view(own_cu), signal = passrl::view(all.signal.data() + token, passrl::dtype::bf16, tokens);
        mask = passrl::view(all.mask.data() + token, tokens), group = passrl::view(all.group.data() + first, n);
        outcome = passrl::view(all.outcome.data() + first, n), format = passrl::view(all.format.data() + first, n);
        ok = passrl::view(all.format_ok.data() + first, n);
        batch.num_rollouts = n, batch.num_groups = groups, batch.cu_seqlens = &cu, batch.signal[0] = &signal, batch.mask = &mask;
        batch.group_index = &group, batch.outcome = &outcome, batch.format = &format, batch.format_ok = &ok;
    }
    slice(const slice &) = delete;
    slice &operator=(const slice &) = delete;
};

template <class T>
void reduce(std::vector<passrl::partials> &buffers, const passrl_section &section) {
    std::vector<T> sum(section.count), part(section.count);
    for (std::size_t rank = 0; rank < buffers.size(); rank++) {
        std::memcpy(part.data(), static_cast<const char *>(buffers[rank].data()) + section.offset, section.count * sizeof(T));
        for (std::size_t i = 0; i < sum.size(); i++)
            sum[i] = rank == 0 ? part[i] : section.op == PASSRL_REDUCE_SUM ? static_cast<T>(sum[i] + part[i]) : std::max(sum[i], part[i]);
    }
    for (auto &buffer : buffers) std::memcpy(static_cast<char *>(buffer.data()) + section.offset, sum.data(), section.count * sizeof(T));
}

// What a collective does: afterwards every rank's section holds the sum, or the maximum, of all.
void all_reduce(std::vector<passrl::partials> &buffers, std::int32_t phase) {
    for (const passrl_section &section : buffers.front().layout(phase)) {
        if (section.dtype == PASSRL_I64) reduce<std::int64_t>(buffers, section);
        else reduce<std::int32_t>(buffers, section);
    }
}

} // namespace

int main() {
    const data all = data::made();
    const auto tokens = static_cast<std::size_t>(all.cu.back());
    passrl_limits limits = passrl::limits();
    limits.rollouts = rollouts, limits.groups = groups, limits.rollout_tokens = most_tokens, limits.tokens = all.cu.back();
    const passrl::plan plan(passrl::context(), passrl::config("pass"), limits);
    passrl::workspace workspace(plan);
    passrl_outputs outputs = passrl::outputs();

    // One call on everything.
    std::vector<std::uint16_t> whole(tokens), parts(tokens, 0xffff);
    slice everything(all, 0, rollouts);
    passrl_view out = passrl::view(whole.data(), passrl::dtype::bf16, static_cast<std::int64_t>(tokens));
    outputs.advantages = &out;
    plan.run(everything.batch, outputs, workspace);

    // Rank by rank, micro-batch by micro-batch.
    std::vector<passrl::partials> buffers;
    for (int rank = 0; rank < ranks; rank++) buffers.emplace_back(plan);
    const auto begin = [](int rank, int m) { return (rank * micro_batches + m) * per_micro_batch; };
    for (std::int32_t phase = 0; phase < plan.phases(); phase++) {
        for (int rank = 0; rank < ranks; rank++)
            for (int m = 0; m < micro_batches; m++) {
                slice micro(all, begin(rank, m), begin(rank, m) + per_micro_batch);
                buffers[static_cast<std::size_t>(rank)].add(phase, micro.batch, workspace);
            }
        all_reduce(buffers, phase);
    }
    for (int rank = 0; rank < ranks; rank++)
        for (int m = 0; m < micro_batches; m++) {
            slice micro(all, begin(rank, m), begin(rank, m) + per_micro_batch);
            const std::int32_t token = all.cu[static_cast<std::size_t>(begin(rank, m))];
            out = passrl::view(parts.data() + token, passrl::dtype::bf16, micro.own_cu.back());
            buffers[static_cast<std::size_t>(rank)].apply(micro.batch, outputs, workspace);
        }

    const bool same = std::memcmp(whole.data(), parts.data(), tokens * sizeof whole[0]) == 0;
    const auto other = std::count_if(whole.begin(), whole.end(), [](std::uint16_t bits) { return (bits & 0x7fff) != 0; });
    std::printf("%d ranks of %d micro-batches, %zu tokens, %td advantages other than 0: %s\n", ranks, micro_batches, tokens, static_cast<std::ptrdiff_t>(other),
                same ? "the bits of one call" : "NOT the bits of one call");
    return same && other > static_cast<std::ptrdiff_t>(tokens / 2) ? 0 : 1;
}
