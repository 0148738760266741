"""`passrl.shape`: one batch, one call."""
from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from . import _ffi
from .batch import ARGUMENTS, Arguments, Batch, Steps
from .config import Config, unknown_argument
from .errors import ERR_NOT_YET, ERR_VALUE, UnknownNameError, refuse
from .plan import Call, Plan
from .ready import remembered
from .results import Shaped

_plans: OrderedDict[Any, Plan] = OrderedDict()
_MOST_PLANS = 16


def _up(n: int) -> int:
    """The next of 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, ...: batches of like size share a plan."""
    step = 1 << max(n.bit_length() - 3, 0)
    return -(-n // step) * step


def _configured(preset: str | Config, fields: dict[str, Any], a: Arguments) -> Config:
    config = Config(preset)
    for key, value in fields.items():
        try:
            # An array is no field's value; its name is looked up all the same, so that a misspelt argument is told its nearest.
            config.set(key, "an array" if getattr(value, "ndim", 0) else value)
        except UnknownNameError as fault:
            raise unknown_argument(fault, key, [*ARGUMENTS, "preset", "out", "dtype", "returns", "backend", "threads", "stream", "comm"]) from None
    alone = a.logp_policy is not None and a.logp_reference is None and a.logp_behavior is None and config.token_baseline == "none"
    logps = a.logp_teacher is not None or alone
    if logps and a.steps is None and a.step_ends is None and a.step_marks is None and "kind" not in config.told and config.kind == "prm":
        config.set("kind", "kl")
    if a.chunk_ends is not None and "chunk" not in config.told:
        config.set("chunk", "given")
    return config


def fitted(config: Config, batch: Batch, a: Arguments) -> None:
    """Makes room in the configuration for the batch's process streams and further streams, named and weighted as the caller says."""
    extra = a.extra()
    if batch.process_streams > config.num_process and "num_process" not in config.told:
        config.set("num_process", batch.process_streams)
    if len(extra) > config.num_extra:
        config.set("num_extra", len(extra))
    for index, (name, _, weight) in enumerate(extra):
        encoded = name.encode()
        if not 0 < len(encoded) < 32:
            refuse(ERR_VALUE, f"passrl: streams has the name {name!r} of {len(encoded)} bytes; a name has 1 to 31")
        config._raw.streams[_ffi.STREAM_EXTRA + index].name = encoded
        if weight is not None:
            config.set(f"extra_{index}.weight", weight)


def _plan(config: Config, batch: Batch, backend: str | None, threads: int) -> Plan:
    rollouts, elements = batch.largest_group(config)
    views = batch.keep_views()
    device = (int(views[0][0].view.device_type), int(views[0][0].view.device_id)) if views else (_ffi.CPU, 0)
    limits = {
        "rollouts": max(batch.rollouts, 1), "groups": max(batch.groups, 1), "tokens": max(batch.slots, 1),
        "rollout_tokens": max(batch.longest, 1), "steps": max(batch.num_steps, 1),
    }
    # Exact sums have limits of their own (2^17 rollouts a group): those are told as they are.
    limits = {name: _up(value) for name, value in limits.items()} | {"group_rollouts": rollouts, "group_elements": elements}
    for name, most in (("group_rollouts", (1 << 17) - 1), ("group_elements", (1 << 17) - 1)):
        limits[name] = min(_up(limits[name]), most) if limits[name] <= most else _up(limits[name])
    key = (config.key(), tuple(limits.items()), backend, threads, device)
    # No lock (see `plan.context`): each step is one of the dict's own; a key that another thread has dropped between them is no matter.
    plan = _plans.get(key)
    if plan is None:
        plan = _plans.setdefault(key, Plan(config, backend=backend, threads=threads, comm=None, _device=device, **limits))
    with contextlib.suppress(KeyError):
        _plans.move_to_end(key)
        while len(_plans) > _MOST_PLANS:
            _plans.popitem(last=False)
    return plan


@remembered
def shape(
    preset: str | Config = "pass",
    *,
    signal: Any = None,
    steps: Steps | None = None,
    step_ends: Any = None,
    step_marks: Any = None,
    chunk_ends: Any = None,
    logp_policy: Any = None,
    logp_teacher: Any = None,
    logp_base: Any = None,
    logp_reference: Any = None,
    logp_behavior: Any = None,
    sum_pi_squared: Any = None,
    token_ratio: Any = None,
    cu_seqlens: Any = None,
    lengths: Any = None,
    pad_side: str = "right",
    mask: Any = None,
    groups: Any = None,
    group_size: int | None = None,
    group_offsets: Any = None,
    outcome: Any = None,
    format: Any = None,
    format_ok: Any = None,
    streams: Mapping[str, Any] | None = None,
    values: Any = None,
    token_rewards: Any = None,
    bootstrap: Any = None,
    baselines: Any = None,
    rollout_lam: Any = None,
    in_stats: Any = None,
    absent: Any = None,
    stats_mean: Any = None,
    stats_std: Any = None,
    stats_in: Any = None,
    out: Any = None,
    dtype: Any = None,
    returns: Any = None,
    backend: str | None = None,
    threads: int = 0,
    stream: Any = None,
    comm: Any = None,
    **fields: Any,
) -> Shaped:
    """Turns rewards into per-token advantages.

    R rollouts, N tokens packed or `[R, T]` padded, G groups. Arrays are NumPy, torch, jax or anything with `__dlpack__`; none is copied.
    Lists are taken for what is small. Floats are f32, bf16, f16 and, where not a signal, f64; integers i32 or i64; masks bool, u8, i32,
    i64, f32 or bf16.

    preset: "pass" (default), another name of `passrl.presets()`, or a `Config`; any field follows as a keyword (`k=0.5`, `chunk="step"`,
    `standardize="abs_max"`, `outcome`'s row as `**{"outcome.ddof": 0}`).

    Process signal, one of (none with `kind="none"`):
      signal: token-shaped f32, bf16, f16; a list of up to 4 arrays gives several process streams. kind="prm" (default) or "kl". Beside
        it step_ends: (offsets `[R+1]`, ends `[S]`) or R lists of ends; or step_marks: token-shaped, nonzero where a token ends a step.
      steps: `Steps(offsets, ends, scores, begins=None)`.
      logp_policy, logp_teacher (and logp_base): token-shaped; OPD (G-OPD with `opd_lambda`). Without steps `kind` becomes "kl".
    chunk_ends: token-shaped marks of chunk ends; `chunk` becomes "given".

    Extents: cu_seqlens `[R+1]` or lengths `[R]` of packed arrays; with 2-D arrays lengths (and pad_side, "right" or "left") or the
    mask alone. mask: token-shaped scope, nonzero where the policy wrote the token.

    Groups, one of: groups `[R]`, any integers or strings; group_size; group_offsets `[G+1]`.

    Per rollout `[R]`: outcome, format (rewards), format_ok (indicator), in_stats (0: in no set), absent (placeholder), streams:
    `{"name": array}` or `{"name": (array, weight)}`. GAE: values, token_rewards (token-shaped), bootstrap, rollout_lam
    `[R]`. `center="given"`: baselines `[R]`, or stats_mean; `scale="given"`: stats_std:
    `{"outcome": 0.4}`, `{"outcome": [G]}` or `[G, 16]`. `kl_in_reward`: logp_policy, logp_reference; `credit="vtrace"`: logp_policy, logp_behavior.
    `token_baseline`: logp_policy, sum_pi_squared (sum over the vocabulary of squared probabilities), token_ratio (importance ratio, 1), token-shaped.

    out: memory for the advantages, of any float type and strides; may be the signal itself. dtype: their type otherwise, f32 by default
    whatever the input's. returns: True or memory to have the returns (default: with credit="gae").
    backend: "cpu", "cuda", or None for where the arrays are. threads: 0 for the library's choice; results do not depend on it.
    stream: CUDA stream. comm: refused; `Plan(..., comm=)` serves groups over ranks.

    Returns a `Shaped`. Errors: `passrl.Error` with the library's sentence, nothing written. Findings in the data (NaN, steps that do not fit)
    are no errors: `Shaped.status` is positive and the bad groups have advantage 0; with `strict=True` they are refused.
    """
    if comm is not None:
        refuse(ERR_NOT_YET, "passrl: shape takes no comm: every rank's limits and group numbers must be those of the whole batch, which a share does not show; "
                            "make a passrl.Plan with comm=")
    a = Arguments(
        signal=signal, steps=steps, step_ends=step_ends, step_marks=step_marks, chunk_ends=chunk_ends, logp_policy=logp_policy,
        logp_teacher=logp_teacher, logp_base=logp_base, logp_reference=logp_reference, logp_behavior=logp_behavior, sum_pi_squared=sum_pi_squared,
        token_ratio=token_ratio, cu_seqlens=cu_seqlens, lengths=lengths,
        pad_side=pad_side, mask=mask, groups=groups, group_size=group_size, group_offsets=group_offsets, outcome=outcome, format=format,
        format_ok=format_ok, streams=streams, values=values, token_rewards=token_rewards, bootstrap=bootstrap, baselines=baselines,
        rollout_lam=rollout_lam, in_stats=in_stats, absent=absent, stats_mean=stats_mean, stats_std=stats_std, stats_in=stats_in,
    )
    config = _configured(preset, fields, a)
    batch = Batch(a, out=out, dense=True)
    fitted(config, batch, a)
    plan = _plan(config, batch, backend, threads)
    call = Call(plan, batch, dtype, returns, None, stream)
    shaped = call.once()
    shaped._bound = call
    return shaped
