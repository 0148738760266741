// A whole trainer without Python (C++20): a softmax policy learns to count on from a digit to 9 and to stop, by policy gradient on PASS advantages.
//
// Per iteration: sample a group of rollouts for each prompt, grade every token (process), the whole answer (outcome) and its end (format), shape with
// PASS, take a step along the sum of A log pi(token). Prints the share of right answers; status 0 where it rose from below 0.1 to above 0.9.
//   c++ -std=c++20 trainer.cpp $(pkg-config --cflags --libs passrl) -o trainer
#include <passrl.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

namespace {

constexpr int digits = 10, end_token = 10, vocabulary = 11;
constexpr int prompts = 9, group_size = 16, most_tokens = 12, rollouts = prompts * group_size;

// Logits of the next token, given the one before.
struct policy {
    std::array<std::array<double, vocabulary>, vocabulary> logits{};

    [[nodiscard]] std::array<double, vocabulary> probabilities(int before) const {
        std::array<double, vocabulary> p{};
        const auto &row = logits[static_cast<std::size_t>(before)];
        const double most = *std::max_element(row.begin(), row.end());
        double sum = 0;
        for (std::size_t i = 0; i < p.size(); i++) sum += p[i] = std::exp(row[i] - most);
        for (double &value : p) value /= sum;
        return p;
    }
};

// Packed rollouts: tokens of rollout i are cu[i] .. cu[i+1].
struct samples {
    std::vector<std::int32_t> cu{0};
    std::vector<int> before, token;
    std::vector<float> process, outcome, format;
    std::vector<std::uint8_t> format_ok;

    // One rollout after `prompt`, and its grades. The right answer counts on to 9 and ends.
    void sample(const policy &policy, int prompt, std::mt19937_64 &random) {
        bool right = true, ended = false;
        for (int at = prompt, n = 0; n < most_tokens && !ended; n++) {
            const auto p = policy.probabilities(at);
            // By hand: the standard's distributions differ from one library to the next.
            double u = static_cast<double>(random() >> 11) * 0x1p-53;
            int next = 0;
            while (next + 1 < vocabulary && (u -= p[static_cast<std::size_t>(next)]) >= 0) next++;
            const bool good = next == (at == digits - 1 ? end_token : at + 1);
            before.push_back(at), token.push_back(next), process.push_back(good ? 1.0F : -1.0F);
            right &= good, ended = next == end_token, at = next;
        }
        outcome.push_back(right && ended ? 1.0F : 0.0F), format.push_back(ended ? 1.0F : 0.0F), format_ok.push_back(ended);
        cu.push_back(static_cast<std::int32_t>(token.size()));
    }
};

// The library's side: made once, used every iteration.
class shaper {
public:
    shaper() : plan_(passrl::context(), passrl::config("pass"), limits()), workspace_(plan_) {}

    // Advantages of every token.
    std::vector<float> operator()(const samples &batch) {
        std::vector<float> advantages(batch.token.size());
        const passrl_view cu = passrl::view(batch.cu), process = passrl::view(batch.process), outcome = passrl::view(batch.outcome);
        const passrl_view format = passrl::view(batch.format), ok = passrl::view(batch.format_ok), out = passrl::view(advantages);
        passrl_batch given = passrl::batch();
        given.num_rollouts = rollouts, given.group_size = group_size, given.cu_seqlens = &cu, given.signal[0] = &process;
        given.outcome = &outcome, given.format = &format, given.format_ok = &ok;
        passrl_outputs outputs = passrl::outputs();
        outputs.advantages = &out;
        if (plan_.run(given, outputs, workspace_) != PASSRL_OK) std::fprintf(stderr, "%s\n", passrl::last_error()); // findings in the data
        return advantages;
    }

private:
    static passrl_limits limits() {
        passrl_limits most = passrl::limits();
        most.rollouts = rollouts, most.groups = prompts, most.rollout_tokens = most_tokens, most.tokens = rollouts * most_tokens;
        return most;
    }
    passrl::plan plan_;
    passrl::workspace workspace_;
};

// One step along the sum of A log pi, an iteration's tokens weighted alike.
void step(policy &policy, const samples &batch, const std::vector<float> &advantages, double rate) {
    auto changed = policy.logits;
    for (std::size_t t = 0; t < batch.token.size(); t++) {
        const auto row = static_cast<std::size_t>(batch.before[t]);
        const auto p = policy.probabilities(batch.before[t]);
        const double size = rate * static_cast<double>(advantages[t]) / rollouts;
        for (std::size_t i = 0; i < p.size(); i++) changed[row][i] += size * ((static_cast<int>(i) == batch.token[t]) - p[i]);
    }
    policy.logits = changed;
}

} // namespace

int main() {
    if (!passrl::abi_matches()) return std::fprintf(stderr, "libpassrl %s is of another ABI than its header\n", passrl_version()), 2;
    policy policy;
    shaper shape;
    std::mt19937_64 random(1);
    double first = 0, last = 0;
    for (int iteration = 0; iteration <= 200; iteration++) {
        samples batch;
        for (int i = 0; i < rollouts; i++) batch.sample(policy, i / group_size, random);
        step(policy, batch, shape(batch), 2);
        double right = 0;
        for (float x : batch.outcome) right += static_cast<double>(x) / rollouts;
        if (iteration == 0) first = right;
        last = right;
        if (iteration % 20 == 0) std::printf("iteration %3d: right answers %.3f, tokens a rollout %.2f\n", iteration, right, static_cast<double>(batch.token.size()) / rollouts);
    }
    return first < 0.1 && last > 0.9 ? 0 : 1;
}
