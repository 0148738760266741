"""`passrl.shape`: one batch, one call."""
from __future__ import annotations

import contextlib
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from . import _ffi
from .batch import ARGUMENTS, Arguments, Batch, device_of
from .collective import Collective
from .config import Config, unknown_argument
from .errors import ERR_COLLECTIVE, ERR_CONFLICT, ERR_VALUE, UnknownNameError, refuse
from .plan import Call, Plan, placed
from .ready import remembered
from .results import Shaped
from .steps import Steps

_plans: OrderedDict[Any, Plan] = OrderedDict()
_MOST_PLANS = 16
_LIMITS = ("rollouts", "groups", "tokens", "rollout_tokens", "steps", "group_rollouts", "group_elements")


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
            raise unknown_argument(fault, key, [*(name for name in ARGUMENTS if name != "pieces"), "preset", "out", "dtype", "returns", "backend", "threads", "stream", "comm"]) from None
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


def limits_of(config: Config, batch: Batch) -> dict[str, int]:
    """What the batch needs."""
    rollouts, elements = batch.largest_group(config)
    return {
        "rollouts": max(batch.rollouts, 1), "groups": max(batch.groups, 1), "tokens": max(batch.slots, 1),
        "rollout_tokens": max(batch.longest, 1), "steps": max(batch.num_steps, 1), "group_rollouts": rollouts, "group_elements": elements,
    }


# Bits of the library's bounds (those of exact sums among them), beyond which nothing is rounded up.
_BOUNDS = {"rollouts": (31,), "groups": (31,), "rollout_tokens": (31,), "tokens": (40,), "steps": (40,), "group_rollouts": (17,), "group_elements": (17, 33)}


def roomy(limits: dict[str, int]) -> dict[str, int]:
    """Limits that batches of like size share."""
    found = {name: _up(value) for name, value in limits.items()}
    for name, bits in _BOUNDS.items():
        for most in ((1 << b) - 1 for b in bits):
            if limits[name] <= most:
                found[name] = min(found[name], most)
    return found


def plan_on(device: tuple[int, int], backend: str | None, config: Config, threads: int, comm: Collective | None, limits: dict[str, int]) -> Plan:
    """A plan on a device that the caller (`backend`) or the arrays have named."""
    name = "cuda" if device[0] == _ffi.CUDA else "cpu"
    return Plan(config, backend=name, device=device[1], threads=threads, comm=comm, _told=backend is not None, **limits)


def _plan(config: Config, batch: Batch, backend: str | None, threads: int) -> Plan:
    limits = roomy(limits_of(config, batch))
    key = (config.key(), tuple(limits.items()), backend, threads, batch.device)
    # No lock (see `plan.context`): each step is one of the dict's own; a key that another thread has dropped between them is no matter.
    plan = _plans.get(key)
    if plan is None:
        plan = _plans.setdefault(key, plan_on(batch.device, backend, config, threads, None, limits))
    latest(_plans, key)
    return plan


def latest(plans: OrderedDict[Any, Plan], key: Any) -> None:
    """Marks a plan as used; the oldest beyond the most that are kept goes."""
    with contextlib.suppress(KeyError):
        plans.move_to_end(key)
        while len(plans) > _MOST_PLANS:
            plans.popitem(last=False)


def _groups_over(comm: Any, a: Arguments) -> None:
    if not isinstance(comm, Collective):
        refuse(ERR_VALUE, f"passrl: comm is a {type(comm).__name__}; it must be a passrl.Collective, as passrl.torch.collective(group) makes one")
    if a.group_size is not None or (a.groups is None and a.group_offsets is None):
        given = "no groups" if a.group_size is None else f"group_size {a.group_size}"
        refuse(ERR_CONFLICT, f"passrl: {given} with comm, which would number this rank's groups from 0; give groups, dense numbers of the whole batch")


def _words(config: Config, batch: Batch) -> list[int]:
    """What this rank needs, and what its configuration is."""
    groups = batch.groups if batch.struct.group_offsets else int(batch.index().max(initial=-1)) + 1
    mine = limits_of(config, batch) | {"groups": max(groups, 1)}
    tag = zlib.crc32(config.key())
    return [0, tag, ~tag, *(mine[name] for name in _LIMITS)]


def _plan_over(comm: Collective, config: Config, words: list[int], backend: str | None, threads: int, device: tuple[int, int]) -> tuple[Plan, int]:
    """The plan of all ranks, and their groups: one all-reduce agrees on limits."""
    refused, tag, other, *most = comm.most(words)
    if refused:
        refuse(ERR_COLLECTIVE, f"passrl: the arguments of rank {refused - 1} are refused (its own error says why); nothing was written on any rank")
    limits = dict(zip(_LIMITS, most))
    key = (config.key(), tuple(roomy(limits).items()))
    plan = comm.plans.get(key)
    # Where configurations differ every rank makes a plan, which names the field.
    if plan is None or tag != ~other:
        plan = comm.plans[key] = plan_on(device, backend, config, threads, comm, roomy(limits))
    latest(comm.plans, key)
    return plan, limits["groups"]


def _shape_over(
    comm: Any, preset: str | Config, fields: dict[str, Any], a: Arguments, out: Any, dtype: Any, returns: Any, backend: str | None, threads: int,
    stream: Any,
) -> Shaped:
    """One rank's share of a batch. What is refused here the other ranks, which are at the same call, are told."""
    try:
        _groups_over(comm, a)
        config = _configured(preset, fields, a)
        batch = Batch(a, out=out, dense=False, device=placed(backend, device_of(a, out)))
        fitted(config, batch, a)
        comm.where = comm.where or (backend, threads)
        if comm.where != (backend, threads):
            refuse(ERR_CONFLICT, f"passrl: backend and threads are {(backend, threads)} and were {comm.where} in an earlier call with this comm; "
                                 "make another comm")
        words = _words(config, batch)
    except BaseException:
        if isinstance(comm, Collective):
            with contextlib.suppress(Exception):
                comm.most([comm.rank + 1] + [0] * (2 + len(_LIMITS)))
        raise
    plan, groups = _plan_over(comm, config, words, backend, threads, batch.device)
    with plan.telling():
        batch.groups = groups
        batch.struct.num_groups = 0 if batch.struct.group_offsets else groups
        call = Call(plan, batch, dtype, returns, None, stream)
    return call.once()


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
        it step_ends: a tuple (offsets `[R+1]`, ends `[S]`), or a list of R lists of ends (of two rollouts a tuple of two is the former where its first
        part can be offsets: 3 numbers, from 0 to the second's length); or step_marks: token-shaped, nonzero where a token ends a step.
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
    stream: CUDA stream (an address, or torch's, CuPy's); None: the current one of torch or CuPy, else that which the arrays name. On a device this reads
    `cu_seqlens`, groups and step offsets on the host first, which waits for them; a `Plan`'s run does not. Lists are copied to the device.
    comm: a `Collective`: the batch is one rank's share and every rank calls this, with the same arguments of its own share (empty arrays where it has
    no rollouts) and groups as dense numbers of the whole batch (`groups`, or `group_offsets` over all groups). Beside the reductions of the plan one more
    a call, of 10 int64, in which the ranks agree on limits. backend and threads of a comm are those of its first call.

    Returns a `Shaped`. Errors: `passrl.Error` with the library's sentence, nothing written. Findings in the data (NaN, steps that do not fit)
    are no errors: `Shaped.status` is positive and the bad groups have advantage 0; with `strict=True` they are refused.
    """
    a = Arguments(
        signal=signal, steps=steps, step_ends=step_ends, step_marks=step_marks, chunk_ends=chunk_ends, logp_policy=logp_policy,
        logp_teacher=logp_teacher, logp_base=logp_base, logp_reference=logp_reference, logp_behavior=logp_behavior, sum_pi_squared=sum_pi_squared,
        token_ratio=token_ratio, cu_seqlens=cu_seqlens, lengths=lengths,
        pad_side=pad_side, mask=mask, groups=groups, group_size=group_size, group_offsets=group_offsets, outcome=outcome, format=format,
        format_ok=format_ok, streams=streams, values=values, token_rewards=token_rewards, bootstrap=bootstrap, baselines=baselines,
        rollout_lam=rollout_lam, in_stats=in_stats, absent=absent, stats_mean=stats_mean, stats_std=stats_std, stats_in=stats_in,
    )
    if comm is not None:
        return _shape_over(comm, preset, fields, a, out, dtype, returns, backend, threads, stream)
    config = _configured(preset, fields, a)
    batch = Batch(a, out=out, dense=True, device=placed(backend, device_of(a, out)))
    fitted(config, batch, a)
    plan = _plan(config, batch, backend, threads)
    call = Call(plan, batch, dtype, returns, None, stream)
    shaped = call.once()
    shaped._bound = call
    return shaped
