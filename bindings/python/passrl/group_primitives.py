"""Stages of a run on their own, on values a rollout: standardisation in groups, and flags of groups.

Groups are said as to `passrl.shape`: groups `[R]` (any integers or strings), group_size, or group_offsets `[G+1]`. in_stats `[R]`: a rollout with 0 is
in no set and has a result; absent `[R]`: placeholders, in no set, 0. Errors: `passrl.Error` with the library's sentence, nothing written.

On a CUDA device (where the arrays are, or `backend="cuda"`) a call is put on `stream`, or the framework's current one; `group_flags` waits for it, whose report is read on
the host. There is no warning: a group with a finding is 0.
"""
from __future__ import annotations

from collections.abc import Mapping
from ctypes import byref
from dataclasses import dataclass
from typing import Any

from . import _ffi
from ._primitive import Primitive, rollouts_of, warn
from .batch import Arguments
from .config import Config
from .errors import ERR_NULL, refuse
from .results import Finding, Report, StreamStats, column_names
from .shape import fitted

_PARTS = {"count": _ffi.I64, "mean": _ffi.F64, "std": _ffi.F64, "absmax": _ffi.F64}


def group_standardize(
    x: Any, groups: Any = None, *, group_size: int | None = None, group_offsets: Any = None, standardize: str | None = None,
    center: str = "group", scale: str = "group", ddof: int = 1, epsilon: float = 1e-6, epsilon_mode: str = "add_std",
    singleton: str = "zero", missing: str = "error", in_stats: Any = None, absent: Any = None, stats: bool = False,
    out: Any = None, dtype: Any = None, backend: str | None = None, stream: Any = None,
) -> Any:
    """Standardises a value a rollout in its group: (x - mean) / (std + epsilon) (arXiv 2606.29296, section 3), from exact integer sums.

    x `[R]`: f32, bf16, f16 or f64 (rounded to f32 on load). center: "group", "leave_one_out", "none". scale: "group", "leave_one_out", "abs_max",
    "none". standardize: a shorthand for both, "mean_std", "mean", "leave_one_out", "abs_max", "none". ddof: 0 or 1. epsilon_mode: "add_std",
    "add_var", "floor_std", "floor_var". singleton: a set of one gives "zero", itself ("passthrough"), or is a finding ("refuse"). missing: NaN
    is a finding ("error"), "zero", or left out ("exclude"). out `[R]`: memory for the result, may be x (in place); dtype: its type otherwise, by
    default that of x.

    Returns `[R]` in the framework of x; with `stats=True` a pair of it and `StreamStats`: count, mean, std, absmax of the sets, `[G]` (i64, f64), groups in
    order of first appearance. Findings: the whole group is 0 and a `passrl.FindingWarning` has the library's sentence.
    """
    row = Config(**{f"outcome.{name}": value for name, value in (
        ("center", center), ("scale", scale), ("ddof", ddof), ("epsilon", epsilon), ("epsilon_mode", epsilon_mode), ("singleton", singleton),
        ("missing", missing))})
    if standardize is not None:
        row.set("standardize_outcome", standardize)
    made = Primitive(
        Arguments(groups=groups, group_size=group_size, group_offsets=group_offsets, in_stats=in_stats, absent=absent), {"x": x}, out=out,
        rollouts=rollouts_of("x", x), backend=backend, stream=stream)
    batch = made.batch
    result = made.out((batch.rollouts,), dtype, "x")
    parts = [made.make(name, (batch.groups,), number) if stats else None for name, number in _PARTS.items()]
    warn(made.call("group_standardize", byref(row._raw.streams[4]), made.view("x"), result, *parts))
    return (made.result(), StreamStats(*(made.result(name) for name in _PARTS))) if stats else made.result()


@dataclass(frozen=True, eq=False)
class Flags:
    """What `passrl.group_flags` found.

    group_flags `[G, 16]` i32: `GroupFlag` bits, a column a stream (`stream_names`). rollout_flags `[R]` i32: `RolloutFlag` bits. report: counts, as
    of a run. group_keys: the keys of the groups, in order of their numbers (None where they came by size or offsets). status: 0, or positive
    with findings in the data; message: the library's sentence about the first.
    """

    group_flags: Any
    rollout_flags: Any
    report: Report
    stream_names: list[str]
    group_keys: list[Any] | None
    status: int

    @property
    def findings(self) -> Finding:
        """What was found in the data; `Finding(0)` for nothing."""
        return Finding(self.report.findings)

    @property
    def message(self) -> str:
        """The library's sentence about the first finding; "" without one."""
        return self.report.message


def group_flags(
    outcome: Any = None, format: Any = None, *, format_ok: Any = None, streams: Mapping[str, Any] | None = None, groups: Any = None,
    group_size: int | None = None, group_offsets: Any = None, in_stats: Any = None, absent: Any = None, preset: str | Config = "pass",
    backend: str | None = None, stream: Any = None, **fields: Any,
) -> Flags:
    """Flags of the groups from the per-rollout streams alone, so that dead groups (every reward equal, all violating) are dropped before a
    teacher or a PRM is run. No token and no process signal is looked at.

    outcome, format, format_ok `[R]`, streams (`{"name": array}`): as to `passrl.shape`, at least one of them. preset and fields: the configuration;
    its rows of these streams are used, and `fusion` must be "advantage". Flags and report are those of a run with `kind="none"`.

    Returns `Flags`. Findings in the data are told in it (`status`, `message`), as by `passrl.shape`.
    """
    arguments = Arguments(outcome=outcome, format=format, format_ok=format_ok, streams=streams, groups=groups, group_size=group_size,
                          group_offsets=group_offsets, in_stats=in_stats, absent=absent)
    given = [("outcome", outcome), ("format", format), *((f"streams[{name!r}]", value) for name, value, _ in arguments.extra())]
    first = next(((name, value) for name, value in given if value is not None), None)
    if first is None:
        refuse(ERR_NULL, "passrl: outcome, format and streams are None; give one of them [R], there is nothing to flag")
    config = Config(preset, **fields)
    made = Primitive(arguments, {}, rollouts=rollouts_of(*first), backend=backend, stream=stream)
    batch = made.batch
    fitted(config, batch, arguments)
    table = made.make("group_flags", (batch.groups, _ffi.MAX_STREAMS), _ffi.I32)
    flags = made.make("rollout_flags", (batch.rollouts,), _ffi.I32)
    report = Report()
    made.call("group_flags", byref(config._raw), table, flags, made.report(report._struct))
    made.read(report._struct)
    return Flags(made.result("group_flags"), made.result("rollout_flags"), report, column_names(batch.stream_names), batch.group_keys, report.status)
