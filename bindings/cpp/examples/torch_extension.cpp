// A torch extension on torch's stable ABI: torch.ops.passrl_example.shape, one build for every later torch (it uses no C++ symbol of torch).
//
//   torch.ops.load_library("libtorch_extension.so")
//   advantages = torch.ops.passrl_example.shape(signal, cu_seqlens, outcome, group_size)       # [N], as signal [N]
// Built by this folder's CMakeLists.txt with -DTORCH_DIR=<the installed torch package>; tested by `make frameworks`.
#include <passrl.hpp>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <stdexcept>
#include <string>

namespace {

using torch::stable::Tensor;

// A CPU tensor [n] as it lies; the tensor must outlive the view.
passrl_view view(const Tensor &x, const char *name) {
    using torch::headeronly::ScalarType;
    passrl::dtype dtype;
    switch (x.scalar_type()) {
    case ScalarType::Double: dtype = passrl::dtype::f64; break;
    case ScalarType::Float: dtype = passrl::dtype::f32; break;
    case ScalarType::Half: dtype = passrl::dtype::f16; break;
    case ScalarType::BFloat16: dtype = passrl::dtype::bf16; break;
    case ScalarType::Long: dtype = passrl::dtype::i64; break;
    case ScalarType::Int: dtype = passrl::dtype::i32; break;
    default: throw std::invalid_argument(std::string("passrl_example: ") + name + " has a type that is not served here");
    }
    if (x.dim() != 1) throw std::invalid_argument(std::string("passrl_example: ") + name + " has " + std::to_string(x.dim()) + " dimensions; it must have 1");
    passrl_view v = passrl::view(x.data_ptr(), dtype, x.size(0));
    v.stride[0] = x.stride(0);
    return v;
}

Tensor shape(const Tensor &signal, const Tensor &cu_seqlens, const Tensor &outcome, std::int64_t group_size, double k) {
    // A trainer keeps its plan; an operator that is called with any size makes one that fits.
    static const passrl::context context;
    passrl_config config = passrl::config("pass");
    config.k = k;
    passrl_limits limits = passrl::limits();
    limits.rollouts = std::max<std::int64_t>(outcome.size(0), 1), limits.tokens = limits.steps = std::max<std::int64_t>(signal.size(0), 1);
    const passrl::plan plan(context, config, limits);
    passrl::workspace workspace(plan);

    Tensor advantages = torch::stable::empty_like(signal);
    const passrl_view v_signal = view(signal, "signal"), v_cu = view(cu_seqlens, "cu_seqlens"), v_outcome = view(outcome, "outcome"), v_out = view(advantages, "advantages");
    passrl_batch batch = passrl::batch();
    batch.num_rollouts = outcome.size(0), batch.group_size = group_size;
    batch.cu_seqlens = &v_cu, batch.signal[0] = &v_signal, batch.outcome = &v_outcome;
    passrl_outputs outputs = passrl::outputs();
    outputs.advantages = &v_out;
    plan.run(batch, outputs, workspace);
    return advantages;
}

} // namespace

STABLE_TORCH_LIBRARY(passrl_example, m) {
    m.def("shape(Tensor signal, Tensor cu_seqlens, Tensor outcome, int group_size, float k=0.7) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(passrl_example, CPU, m) { m.impl("shape", TORCH_BOX(&shape)); }
