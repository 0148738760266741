// A libtorch program without Python: an autograd policy gradient on padded rollouts [R, T], whose advantages PASS writes into a tensor's own memory.
//
// The policy learns to write 7s and then to stop. Status 0 where the share of 7s among what it writes rose from below 0.3 to above 0.9.
// Built by this folder's CMakeLists.txt with -DTORCH_DIR=<the installed torch package>; tested by `make frameworks`.
#include <passrl.hpp>
#include <torch/torch.h>

#include <cstdio>
#include <stdexcept>

namespace {

constexpr std::int64_t digits = 10, end_token = 10, vocabulary = 11, group_size = 8, rollouts = 64, most_tokens = 16;

passrl::dtype dtype_of(const torch::Tensor &x) {
    switch (x.scalar_type()) {
    case torch::kFloat64: return passrl::dtype::f64;
    case torch::kFloat32: return passrl::dtype::f32;
    case torch::kFloat16: return passrl::dtype::f16;
    case torch::kBFloat16: return passrl::dtype::bf16;
    case torch::kInt64: return passrl::dtype::i64;
    case torch::kInt32: return passrl::dtype::i32;
    case torch::kUInt8: return passrl::dtype::u8;
    case torch::kBool: return passrl::dtype::boolean;
    default: throw std::invalid_argument("a tensor of a type that passrl has no name for");
    }
}

// A tensor's memory as it lies, of any strides; the tensor must outlive the view.
passrl_view view(const torch::Tensor &x) {
    passrl_view v = x.dim() == 1 ? passrl::view(x.data_ptr(), dtype_of(x), x.size(0)) : passrl::view(x.data_ptr(), dtype_of(x), x.size(0), x.size(1), x.stride(0));
    v.stride[x.dim() - 1] = x.stride(x.dim() - 1);
    return v;
}

// Tokens [R, T] until the end token, and the mask of what was written.
std::pair<torch::Tensor, torch::Tensor> sample(const torch::Tensor &logits) {
    const torch::NoGradGuard no_gradient;
    const torch::Tensor p = torch::softmax(logits, 1);
    torch::Tensor before = torch::zeros({rollouts}, torch::kInt64), alive = torch::ones({rollouts}, torch::kBool);
    std::vector<torch::Tensor> tokens, mask;
    for (std::int64_t t = 0; t < most_tokens; t++) {
        const torch::Tensor next = torch::multinomial(p.index_select(0, before), 1).squeeze(1);
        tokens.push_back(next), mask.push_back(alive);
        alive = alive.logical_and(next.ne(end_token)), before = next;
    }
    return {torch::stack(tokens, 1), torch::stack(mask, 1)};
}

} // namespace

int main() {
    torch::manual_seed(1);
    torch::Tensor logits = torch::zeros({vocabulary, vocabulary}, torch::requires_grad());
    torch::optim::SGD optimizer({logits}, torch::optim::SGDOptions(1.0));

    passrl_limits limits = passrl::limits();
    limits.rollouts = rollouts, limits.groups = rollouts / group_size, limits.tokens = rollouts * most_tokens, limits.rollout_tokens = most_tokens;
    const passrl::plan plan(passrl::context(), passrl::config("pass"), limits);
    passrl::workspace workspace(plan);

    double first = 0, last = 0;
    for (int iteration = 0; iteration <= 150; iteration++) {
        const auto [tokens, mask] = sample(logits);
        const torch::Tensor written = mask.to(torch::kFloat32), sevens = tokens.eq(7).to(torch::kFloat32) * written;
        const torch::Tensor process = (2 * sevens - 1 + 2 * tokens.eq(end_token).to(torch::kFloat32)).to(torch::kBFloat16);
        const torch::Tensor outcome = sevens.sum(1) / most_tokens, format = tokens.eq(end_token).logical_and(mask).any(1).to(torch::kFloat32);

        // Nothing is copied: PASS reads the tensors above and writes this one.
        torch::Tensor advantages = torch::empty({rollouts, most_tokens});
        const passrl_view v_mask = view(mask), v_process = view(process), v_outcome = view(outcome), v_format = view(format), v_out = view(advantages);
        passrl_batch batch = passrl::batch();
        batch.layout = PASSRL_PADDED, batch.num_rollouts = rollouts, batch.row_tokens = most_tokens, batch.group_size = group_size;
        batch.mask = &v_mask, batch.signal[0] = &v_process, batch.outcome = &v_outcome, batch.format = &v_format;
        passrl_outputs outputs = passrl::outputs();
        outputs.advantages = &v_out;
        plan.run(batch, outputs, workspace);

        const torch::Tensor before = torch::cat({torch::zeros({rollouts, 1}, torch::kInt64), tokens.slice(1, 0, most_tokens - 1)}, 1);
        const torch::Tensor logp = torch::log_softmax(logits, 1).index({before, tokens});
        const torch::Tensor loss = -(advantages * logp * written).sum() / written.sum();
        optimizer.zero_grad();
        loss.backward();
        optimizer.step();

        const double share = (sevens.sum() / written.sum()).item<double>();
        if (iteration == 0) first = share;
        last = share;
        if (iteration % 30 == 0) std::printf("iteration %3d: share of sevens %.3f, tokens a rollout %.2f\n", iteration, share, written.sum().item<double>() / rollouts);
    }
    return first < 0.3 && last > 0.9 ? 0 : 1;
}
