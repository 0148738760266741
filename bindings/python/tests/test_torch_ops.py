"""`torch.ops.passrl.*`: the functions' own bits, eagerly and under torch.compile, and torch's own check of an operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import passrl

torch = pytest.importorskip("torch", reason="SKIPPED: torch is not installed, its operators were not tested (make frameworks brings it)")
import passrl.torch_ops  # noqa: E402, F401

R = 6
LENGTHS = [4, 1, 7, 3, 2, 5]
CU = torch.tensor([0, *np.cumsum(LENGTHS)])
N = sum(LENGTHS)


def tensors() -> dict[str, Any]:
    random = torch.Generator().manual_seed(2)
    names = ("signal", "values", "logp_policy", "logp_teacher", "logp_base")
    return {name: torch.randn(N, generator=random) for name in names} | {
        "outcome": torch.randn(R, generator=random), "mask": torch.rand(N, generator=random) < 0.8}


T = tensors()
OP = torch.ops.passrl
CALLS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "shape": (
        lambda: OP.shape(T["signal"], cu_seqlens=CU, mask=T["mask"], outcome=T["outcome"], group_size=3, fields="k=0.5, outcome.ddof=0"),
        lambda: passrl.shape(signal=T["signal"], cu_seqlens=CU, mask=T["mask"], outcome=T["outcome"], group_size=3, k=0.5, **{"outcome.ddof": 0}).advantages),
    "shape, steps, bf16": (
        lambda: OP.shape(mask=T["mask"], cu_seqlens=CU, outcome=T["outcome"], groups=torch.tensor([5, 9, 5, 9, 5, 9]), dtype=torch.bfloat16, preset="grpo_process",
                         step_offsets=torch.arange(R + 1), step_ends=torch.tensor(LENGTHS), step_scores=T["signal"][:R]),
        lambda: passrl.shape("grpo_process", mask=T["mask"], cu_seqlens=CU, outcome=T["outcome"], groups=[0, 1, 0, 1, 0, 1], dtype="bf16",
                             steps=passrl.Steps(np.arange(R + 1), np.array(LENGTHS), T["signal"][:R])).advantages),
    "shape, padded": (
        lambda: OP.shape(T["signal"][:20].reshape(4, 5)[:, :4], lengths=torch.tensor([1, 4, 2, 3]), outcome=T["outcome"][:4], group_size=2),
        lambda: passrl.shape(signal=T["signal"][:20].reshape(4, 5)[:, :4], lengths=[1, 4, 2, 3], outcome=T["outcome"][:4], group_size=2).advantages),
    "shape, opd": (
        lambda: OP.shape(logp_policy=T["logp_policy"], logp_teacher=T["logp_teacher"], cu_seqlens=CU, group_size=3),
        lambda: passrl.shape(logp_policy=T["logp_policy"], logp_teacher=T["logp_teacher"], cu_seqlens=CU, group_size=3).advantages),
    "shape, token baseline": (
        lambda: OP.shape(logp_policy=T["logp_policy"], sum_pi_squared=T["values"].sigmoid(), outcome=T["outcome"], cu_seqlens=CU, group_size=3, preset="verl.optimal_token_baseline"),
        lambda: passrl.shape("verl.optimal_token_baseline", logp_policy=T["logp_policy"], sum_pi_squared=T["values"].sigmoid(), outcome=T["outcome"], cu_seqlens=CU, group_size=3).advantages),
    "shape, given statistics": (
        lambda: OP.shape(T["signal"], outcome=T["outcome"], cu_seqlens=CU, group_size=3, fields="outcome.center=given", stats_mean=torch.full((2, 16), 0.25, dtype=torch.float64)),
        lambda: passrl.shape(signal=T["signal"], outcome=T["outcome"], cu_seqlens=CU, group_size=3, stats_mean={"outcome": 0.25}, **{"outcome.center": "given"}).advantages),
    "group_standardize": (lambda: OP.group_standardize(T["outcome"], group_size=2), lambda: passrl.group_standardize(T["outcome"], group_size=2)),
    "discounted_returns": (
        lambda: OP.discounted_returns(T["signal"], 0.9, cu_seqlens=CU), lambda: passrl.discounted_returns(T["signal"], 0.9, cu_seqlens=CU)),
    "gae": (lambda: OP.gae(T["signal"], T["values"], 0.99, 0.95, cu_seqlens=CU, mask=T["mask"]),
            lambda: passrl.gae(T["signal"], T["values"], 0.99, 0.95, cu_seqlens=CU, mask=T["mask"])),
    "divide_length": (lambda: OP.divide_length(T["signal"].half(), cu_seqlens=CU), lambda: passrl.divide_length(T["signal"].half(), cu_seqlens=CU)),
    "opd_signal": (lambda: OP.opd_signal(T["logp_policy"], T["logp_teacher"], T["logp_base"], cu_seqlens=CU),
                   lambda: passrl.opd_signal(T["logp_policy"], T["logp_teacher"], T["logp_base"], cu_seqlens=CU)),
    "whiten": (lambda: OP.whiten(T["signal"], mask=T["mask"], cu_seqlens=CU), lambda: passrl.whiten(T["signal"], T["mask"], cu_seqlens=CU)),
}


def same(found: Any, wanted: Any) -> None:
    for ours, theirs in zip(found if isinstance(found, tuple) else (found,), wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        assert torch.equal(ours, theirs) and ours.abs().sum() > 0


@pytest.mark.parametrize("name", CALLS)
def test_the_functions_own_bits(name: str) -> None:
    operator, function = CALLS[name]
    same(operator(), function())


@pytest.mark.parametrize("name", CALLS)
def test_compiled_whole(name: str) -> None:
    operator, function = CALLS[name]
    torch._dynamo.reset()
    same(torch.compile(operator, fullgraph=True, backend="aot_eager")(), function())


def test_a_loss_under_inductor() -> None:
    def loss(logits: Any, signal: Any, cu: Any, outcome: Any) -> Any:
        advantages = torch.ops.passrl.shape(signal * 2, cu_seqlens=cu, outcome=outcome, group_size=2)
        return -(advantages * torch.nn.functional.logsigmoid(logits)).mean()

    logits = torch.zeros(N, requires_grad=True)
    compiled = torch.compile(loss, fullgraph=True, dynamic=True)
    compiled(logits, T["signal"], CU, T["outcome"]).backward()
    found, logits.grad = logits.grad, None
    loss(logits, T["signal"], CU, T["outcome"]).backward()
    assert found is not None and found.abs().sum() > 0
    torch.testing.assert_close(found, logits.grad)
    # Another number of tokens in the same graph.
    compiled(torch.zeros(9, requires_grad=True), torch.ones(9), torch.tensor([0, 2, 9]), torch.tensor([1.0, 0])).backward()


def test_torchs_check_of_an_operator() -> None:
    torch.library.opcheck(OP.shape.default, (T["signal"],), {"cu_seqlens": CU, "outcome": T["outcome"], "group_size": 3})
    torch.library.opcheck(OP.gae.default, (T["signal"], T["values"]), {"cu_seqlens": CU})
    torch.library.opcheck(OP.group_standardize.default, (T["outcome"],), {"group_size": 2})


def test_advantages_are_constants_to_autograd() -> None:
    values = T["values"].clone().requires_grad_()
    advantages, returns = OP.gae(T["signal"], values, cu_seqlens=CU)
    assert not advantages.requires_grad and not returns.requires_grad


def test_refusals_and_findings() -> None:
    with pytest.raises(passrl.UnknownNameError, match="gama"):
        OP.shape(T["signal"], cu_seqlens=CU, fields="gama=1")
    with pytest.raises(passrl.ArgumentError, match='write fields="k=0.5'):
        OP.shape(T["signal"], cu_seqlens=CU, fields="k")
    with pytest.raises(passrl.ArgumentError, match="give the mask"):
        OP.shape(outcome=T["outcome"], cu_seqlens=CU)
    with pytest.warns(passrl.FindingWarning, match="rollout 0"):
        OP.shape(torch.full((N,), float("nan")), cu_seqlens=CU, group_size=1)
