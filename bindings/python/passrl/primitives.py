"""Stages of a run on their own, on token-shaped arrays: chunks, returns, GAE, Divide-Length, OPD signal, whitening.

Layout arguments are those of `passrl.shape`: `cu_seqlens` `[R+1]` or `lengths` `[R]` with packed arrays `[N]` (neither: the array is one rollout);
`lengths` and `pad_side`, or the mask alone, with padded arrays `[R, T]`. mask: token-shaped scope. absent `[R]`: placeholders, all 0. Floats go in as f32, bf16, f16 or f64
(rounded to f32 where not said otherwise) and come out rounded once, 0 out of scope and in the padding. Arrays are never copied.

out: memory for the result, of any float type and strides; may be the first argument (in place). dtype: the result's type otherwise, by
default that of the first argument. Results are in the caller's framework and on its device.

Errors: `passrl.Error` with the library's sentence, nothing written. A rollout with a NaN or an infinity in scope is 0 everywhere and a
`passrl.FindingWarning` has the library's sentence. Bits are those of `passrl.shape` for the same stage.

On a CUDA device (where the arrays are, or `backend="cuda"`) a call is put on `stream`, or the framework's current one, and does not wait (`chunk` does, whose
offsets are made on the host): there is no warning, a rollout with a finding is 0.
"""
from __future__ import annotations

from ctypes import byref
from typing import Any, NamedTuple

from . import _ffi, arrays
from ._primitive import Primitive, warn
from .batch import Arguments
from .config import Config
from .errors import number
from .results import csr
from .steps import Steps


class Chunks(NamedTuple):
    """Chunks of R rollouts. num_chunks `[R]` i64: K. offsets `[R+1]` i64: chunks of rollout i are `offsets[i] .. offsets[i+1]`. ends `[C]` i32
    (or of the type of `out`): exclusive end of each chunk in tokens of its rollout."""

    num_chunks: Any
    offsets: Any
    ends: Any


def chunk(
    signal: Any = None, *, steps: Steps | None = None, step_ends: Any = None, eta: float = 1e-8, boundary_rule: str = "adjacent",
    merge_equal_steps: bool = False, bridge_scope_gaps: bool = False, missing: str = "error",
    cu_seqlens: Any = None, lengths: Any = None, pad_side: str = "right", mask: Any = None, absent: Any = None,
    out: Any = None, backend: str | None = None, stream: Any = None,
) -> Chunks:
    """Chunk-by-Value: where the chunks of a process signal end (arXiv 2606.29296, eq. 6, Algorithm 2, the PRM case).

    A new chunk begins at token t where |u_t - u_(t-1)| > eta, where a given step ends (unless `merge_equal_steps`) and after an out-of-scope
    span (unless `bridge_scope_gaps`). signal: token-shaped f32, bf16 or f16, alone or beside step_ends (a tuple (offsets `[R+1]`, ends `[S]`), or
    a list of R lists of ends, as to `passrl.shape`); or steps: `Steps(offsets, ends, scores, begins=None)`. boundary_rule: "adjacent", or "anchored" (compared with the
    chunk's first token). missing: "error", "zero" or "exclude", what a NaN is. out: token-shaped i32 or i64 memory, where the ends of rollout i are
    written from its first slot on and the rest is left alone.

    Findings (`FindingWarning`): values that are not finite (a NaN is unequal to everything), steps that do not fit (K = 0).
    """
    config = Config(eta=eta, boundary_rule=boundary_rule, merge_equal_steps=merge_equal_steps, bridge_scope_gaps=bridge_scope_gaps)
    config.set("process_0.missing", missing)
    made = Primitive(
        Arguments(signal=signal, steps=steps, step_ends=step_ends, cu_seqlens=cu_seqlens, lengths=lengths, pad_side=pad_side, mask=mask,
                  absent=absent), {}, out=out, backend=backend, stream=stream)
    batch = made.batch
    ends = made.make("ends", batch.token_shape, _ffi.I32) if batch.out is None else made.give("ends", batch.out)
    counts = made.make("num_chunks", (batch.rollouts,), _ffi.I64)
    status = made.call("chunk_boundaries", byref(config._raw), counts, ends)
    warn(status)
    found = csr(made.host("num_chunks"), batch.token_offsets, made.host("ends"))
    offsets, short = (batch.maker.place(part) if made.on_device else batch.maker.native(part) for part in found)
    return Chunks(made.result("num_chunks"), offsets, short)


def discounted_returns(
    rewards: Any, gamma: float = 1.0, *,
    cu_seqlens: Any = None, lengths: Any = None, pad_side: str = "right", mask: Any = None, absent: Any = None,
    out: Any = None, dtype: Any = None, backend: str | None = None, stream: Any = None,
) -> Any:
    """Discounted return-to-go over the in-scope tokens of each rollout: G_t = r_t + gamma G_(t+1) (arXiv 2606.29296, eqs. 3 and 7 before the
    division, a chunk a token).

    rewards: token-shaped. gamma: 0 to 1. Tokens out of scope are skipped: they take no discount. Returns G, token-shaped.
    """
    made = Primitive(_layout(cu_seqlens, lengths, pad_side, mask, absent), {"rewards": rewards}, out=out, backend=backend, stream=stream)
    result = made.out(made.batch.token_shape, dtype, "rewards")
    warn(made.call("discounted_returns", number(gamma, "gamma"), made.view("rewards"), result))
    return made.result()


def gae(
    rewards: Any, values: Any, gamma: float = 1.0, lam: float = 1.0, *, bootstrap: Any = None, returns: Any = True,
    cu_seqlens: Any = None, lengths: Any = None, pad_side: str = "right", mask: Any = None, absent: Any = None,
    out: Any = None, dtype: Any = None, backend: str | None = None, stream: Any = None,
) -> tuple[Any, Any]:
    """Generalised advantage estimation over the in-scope tokens of each rollout (Schulman et al., arXiv 1506.02438).

    delta_t = r_t + gamma V_(t+1) - V_t, A_t = delta_t + gamma lam A_(t+1), returns = A + V. rewards, values: token-shaped. bootstrap `[R]`: V
    after the last token, 0 without. gamma, lam: 0 to 1. returns: True for new memory, False for none, or the memory itself. Returns
    (advantages, returns or None).
    """
    made = Primitive(_layout(cu_seqlens, lengths, pad_side, mask, absent), {"rewards": rewards, "values": values}, out=out, backend=backend, stream=stream)
    tail = None if bootstrap is None else made.add("bootstrap", bootstrap)
    result = made.out(made.batch.token_shape, dtype, "rewards")
    if returns is True:
        second = made.make("returns", made.batch.token_shape, result.contents.dtype)
    else:
        second = None if returns is False or returns is None else made.give("returns", arrays.output(returns, "returns"))
    warn(made.call("gae", number(gamma, "gamma"), number(lam, "lam"), made.view("rewards"), made.view("values"), tail, result, second))
    return made.result(), made.result("returns")


def divide_length(
    x: Any, k: float = 0.7, *,
    cu_seqlens: Any = None, lengths: Any = None, pad_side: str = "right", mask: Any = None, absent: Any = None,
    out: Any = None, dtype: Any = None, backend: str | None = None, stream: Any = None,
) -> Any:
    """Divide-Length (arXiv 2606.29296, eq. 7, Algorithm 3): x_j (K - j + 1)^-k for the j-th of the K in-scope values of each rollout, j from 1.

    x: one value a chunk: a chunk list, packed with `cu_seqlens` the chunk offsets; or token-shaped with a mask on one token of each chunk. f64 is
    not rounded on load. k: 0 (off) to 8; the paper takes 0.7.
    """
    made = Primitive(_layout(cu_seqlens, lengths, pad_side, mask, absent), {"x": x}, out=out, backend=backend, stream=stream)
    result = made.out(made.batch.token_shape, dtype, "x")
    warn(made.call("divide_length", number(k, "k"), made.view("x"), result))
    return made.result()


def opd_signal(
    logp_policy: Any, logp_teacher: Any, logp_base: Any = None, opd_lambda: float = 1.25, *,
    cu_seqlens: Any = None, lengths: Any = None, pad_side: str = "right", mask: Any = None, absent: Any = None,
    out: Any = None, dtype: Any = None, backend: str | None = None, stream: Any = None,
) -> Any:
    """Signal of on-policy distillation (arXiv 2606.29296, section 4): OPD, logp_teacher - logp_policy; with logp_base G-OPD, opd_lambda
    (logp_teacher - logp_base) - (logp_policy - logp_base).

    All token-shaped. Formed in f64 from unrounded inputs, rounded to f32: the result is f32 unless `dtype` or `out` says otherwise, and is what
    `passrl.shape` makes of the same log-probabilities. opd_lambda: -1e6 to 1e6; 1 is OPD.
    """
    names = {"logp_policy": logp_policy, "logp_teacher": logp_teacher, "logp_base": logp_base}
    made = Primitive(_layout(cu_seqlens, lengths, pad_side, mask, absent), names, out=out, backend=backend, stream=stream)
    result = made.out(made.batch.token_shape, dtype, None)
    warn(made.call("opd_signal", number(opd_lambda, "opd_lambda"), *(made.view(name) for name in names), result))
    return made.result()


def kl_in_reward(
    logp_policy: Any, logp_reference: Any, rewards: Any = None, *, kind: str = "k1", coef: float = 1.0,
    log_ratio_clamp: float = float("inf"), clamp: float = float("inf"),
    cu_seqlens: Any = None, lengths: Any = None, pad_side: str = "right", mask: Any = None, absent: Any = None,
    out: Any = None, dtype: Any = None, backend: str | None = None, stream: Any = None,
) -> Any:
    """Rewards less coef times the divergence of policy and reference, token by token.

    All token-shaped; rewards None: 0. With d = logp_policy - logp_reference, not below -log_ratio_clamp, kind: "k1" d, "k2" d^2/2, "k3" exp(-d) - 1 + d,
    "abs" |d|; limited to [-clamp, clamp]. What `passrl.shape` takes with `kl_place="reward"`. The result is f32 unless `dtype` or `out` says otherwise.
    """
    names = {"logp_policy": logp_policy, "logp_reference": logp_reference, "rewards": rewards}
    config = Config(kl_in_reward=kind, kl_coef=coef, kl_log_ratio_clamp=log_ratio_clamp, kl_clamp=clamp, kl_place="reward", chunk="token")
    made = Primitive(_layout(cu_seqlens, lengths, pad_side, mask, absent), names, out=out, backend=backend, stream=stream)
    result = made.out(made.batch.token_shape, dtype, None)
    warn(made.call("kl_in_reward", byref(config._raw), *(made.view(name) for name in names), result))
    return made.result()


def whiten(
    x: Any, mask: Any = None, *, ddof: int = 1, epsilon: float = 1e-8, epsilon_mode: str = "add_var", shift: bool = True,
    fill_padding: bool = True, in_stats: Any = None,
    cu_seqlens: Any = None, lengths: Any = None, pad_side: str = "right", absent: Any = None,
    out: Any = None, dtype: Any = None, backend: str | None = None, stream: Any = None,
) -> Any:
    """Masked whitening over the in-scope tokens of the batch: (x - mean) / sqrt(var + epsilon), from exact sums of x rounded to f32.

    x: token-shaped. ddof, epsilon, epsilon_mode ("add_std", "add_var", "floor_std", "floor_var"), shift (False: the mean is added back, the
    frameworks' `shift_mean=False`), fill_padding (False: slots beyond a rollout's end are left alone): the configuration's `whiten_...`
    fields. in_stats `[R]`: a rollout with 0 is whitened and counts for nothing. All values equal: the result is 0.
    """
    config = Config(whiten_ddof=ddof, whiten_epsilon=epsilon, whiten_epsilon_mode=epsilon_mode, whiten_shift=shift, fill_padding=fill_padding)
    made = Primitive(_layout(cu_seqlens, lengths, pad_side, mask, absent, in_stats), {"x": x}, out=out, backend=backend, stream=stream)
    result = made.out(made.batch.token_shape, dtype, "x")
    warn(made.call("whiten", byref(config._raw), made.view("x"), result))
    return made.result()


def _layout(cu_seqlens: Any, lengths: Any, pad_side: str, mask: Any, absent: Any, in_stats: Any = None) -> Arguments:
    return Arguments(cu_seqlens=cu_seqlens, lengths=lengths, pad_side=pad_side, mask=mask, absent=absent, in_stats=in_stats)
