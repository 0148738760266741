"""A configuration on a file in batches: the bits of one call on the whole file.

Groups are whole in a batch, and most configurations make a group's advantages of nothing else: one pass. Batch whitening and sets of the whole batch
ask for statistics of all groups first: a pass for each phase of `passrl.Partials` that has such a section. The sections for the groups are a batch's
own and made anew in each pass: kept for all groups they would grow with the file.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .. import cuda
from ..batch import Batch
from ..config import STREAM_FIELDS, Config
from ..groups import group_index
from ..partials import Partials
from ..plan import Plan, arguments_of
from ..results import Shaped
from ..shape import shape
from ..steps import Steps
from .output import Refused
from .rollouts import Rollouts


def _on_device(name: str, value: Any) -> Any:
    """An argument's arrays in the memory of device 0. Groups are keys, which are made numbers on the host."""
    if isinstance(value, Steps):
        return Steps(*(_on_device(name, part) for part in vars(value).values()))
    if isinstance(value, dict):
        return {key: _on_device(name, part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(_on_device(name, part) for part in value)
    return cuda.array(value) if isinstance(value, np.ndarray) and name != "groups" else value


def settled(config: Config, rollouts: Rollouts) -> Config:
    """The configuration with the kind that the file asks for, where none was told."""
    if "kind" not in config.told and config.kind == "prm" and rollouts.kind() != "prm":
        return config.replace(kind=rollouts.kind())
    return config


def limits(batches: Iterable[dict[str, Any]], config: Config) -> dict[str, Any]:
    """The most that a plan is given in one of the batches."""
    most: dict[str, Any] = {}
    for arguments in batches:
        batch = Batch(arguments_of(arguments), dense=True)
        rollouts, elements = batch.largest_group(config)
        found = {"rollouts": batch.rollouts, "groups": batch.groups, "tokens": batch.slots, "rollout_tokens": batch.longest,
                 "steps": batch.num_steps, "group_rollouts": rollouts, "group_elements": elements}
        most = {name: max(value, most.get(name, 1)) for name, value in found.items()}
    return most


def _asks_batch(config: Config) -> bool:
    """Whether statistics of the whole batch are asked for."""
    sets = any(row.center == "batch" or row.scale in ("batch", "nonzero_share") for row in config.streams.values())
    return sets or config.whiten != "none"


def _shared_sections(config: Config, threads: int, whole: bool) -> list[tuple[int, list[int]]]:
    """Phases with the sections that are of the whole batch: those that do not grow with the groups, but for a phase's count of rollouts (one number), which is a
    batch's own in every phase."""
    if config.step_sets != "group" or config.token_baseline != "none":
        # These have no partials, and of whole groups need none.
        if _asks_batch(config) and not whole:
            field = f"step_sets = {config.step_sets}" if config.step_sets != "group" else f"token_baseline = {config.token_baseline}"
            raise Refused(f"the configuration has {field} and takes statistics of the whole batch, so the file cannot be read in batches; give --whole-file")
        return []
    layouts = []
    for groups in (1, 2):
        partials = Partials(Plan(config, threads=threads, rollouts=2, groups=groups, tokens=2))
        layouts.append([[len(section.data) for section in partials.sections(phase)] for phase in range(partials.phases)])
    found = [(phase, [i for i, (a, b) in enumerate(zip(*counts)) if a == b > 1]) for phase, counts in enumerate(zip(*layouts))]
    return [(phase, sections) for phase, sections in found if sections]


class Shaper:
    """Shapes batches of a file; `whole`: the file is one batch.

    Every batch is to be given to `look` in each of `passes` passes before any is shaped. Errors: `passrl.Error` for a configuration that no plan takes.
    """

    def __init__(self, config: Config, threads: int, whole: bool, backend: str = "cpu") -> None:
        self.config, self.threads, self.whole, self.backend = config, threads, whole, backend
        self._shared = _shared_sections(config, threads, whole)
        self._known: list[list[Any]] = [[] for _ in self._shared]
        # What a part of the file needs, and what the file needs.
        self.looks = len(self._shared)
        self.passes = 0 if whole else self.looks
        if self.passes and backend == "cuda":
            raise Refused("the configuration takes statistics of the whole file, which --backend cuda keeps for a file in one piece alone; give --whole-file")

    def look(self, number: int, rollouts: Rollouts) -> None:
        """Takes a batch's share of pass `number` of the statistics of all groups."""
        if number >= self.looks:
            return
        partials, _ = self._begun(rollouts, number)
        phase, shared = self._shared[number]
        sections = partials.sections(phase)
        if not self._known[number]:
            self._known[number] = [sections[i].data.copy() for i in shared]
            return
        for i, known in zip(shared, self._known[number]):
            combine: Callable[..., Any] = np.add if sections[i].op == "sum" else np.maximum
            combine(known, sections[i].data, out=known)

    def __call__(self, rollouts: Rollouts) -> Shaped:
        """Shapes a batch. Errors: `passrl.Error`."""
        if not self.whole:
            return self.part(rollouts)
        return self._shape(rollouts)

    def _shape(self, rollouts: Rollouts) -> Shaped:
        self.config = settled(self.config, rollouts)
        arguments = rollouts.arguments(self.config)
        if self.backend == "cuda":
            # The file's arrays are copied to the device, and its results back: the run itself copies nothing.
            arguments = {name: _on_device(name, value) for name, value in arguments.items()}
        return shape(self.config, backend=self.backend, threads=self.threads, **arguments).to_host()

    def part(self, rollouts: Rollouts) -> Shaped:
        """Shapes whole groups of the file, a batch or not."""
        if not self.looks:
            return self._shape(rollouts)
        partials, arguments = self._begun(rollouts, self.looks)
        return partials.apply(**arguments)

    def _begun(self, rollouts: Rollouts, known: int) -> tuple[Partials, dict[str, Any]]:
        """Statistics of the batch's groups, and those of all groups from the first `known` passes; the phase of pass `known` is the last."""
        self.config = settled(self.config, rollouts)
        arguments = rollouts.arguments(self.config)
        most = limits([arguments], self.config)
        arguments["groups"] = group_index(rollouts.group)[0]
        partials = Partials(Plan(self.config, threads=self.threads, **most))
        last = self._shared[known][0] if known < self.looks else partials.phases - 1
        given = {phase: (shared, values) for (phase, shared), values in list(zip(self._shared, self._known))[:known]}
        for phase in range(last + 1):
            partials.add(phase, **arguments)
            if phase in given:
                sections = partials.sections(phase)
                for i, values in zip(*given[phase]):
                    sections[i].data[:] = values
        return partials, arguments


def differences(config: Config) -> list[tuple[str, str, str]]:
    """Fields that differ from the defaults: name, value, default; one of the stream table as `outcome.ddof`, or `ddof (all streams)`."""
    plain = Config("pass")
    found = [(name, str(value), str(getattr(plain, name))) for name, value in config if value != getattr(plain, name)]
    for field in STREAM_FIELDS:
        values = {name: getattr(row, field) for name, row in config.streams.items()}
        defaults = {name: getattr(row, field) for name, row in plain.streams.items()}
        if len(set(values.values())) == len(set(defaults.values())) == 1:
            values, defaults = ({f"{field} (all streams)": one["outcome"]} for one in (values, defaults))
        else:
            values, defaults = ({f"{name}.{field}": value for name, value in one.items()} for one in (values, defaults))
        found += [(name, str(value), str(defaults[name])) for name, value in values.items() if value != defaults[name]]
    return found
