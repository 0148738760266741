"""A configuration on a file in batches: the bits of one call on the whole file.

Groups are whole in a batch and a group's advantages depend on nothing else, so most configurations need one pass. Batch whitening asks for the
statistics of all tokens: two more passes gather them with `passrl.Partials`, first the maxima that fix the grid of the exact sums, then the
sums. The partials' sections for the groups are a batch's own and made anew in each pass: kept for all groups they would grow with the file.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..batch import Batch, group_index
from ..config import STREAM_NAMES, Config
from ..errors import ERR_CONFLICT, refuse
from ..partials import Partials
from ..plan import Plan, arguments_of
from ..results import Shaped
from ..shape import shape
from .rollouts import Rollouts

# Phases of the statistics: two of the groups, then the batch's maxima and sums.
_GROUPS, _MAXIMA, _SUMS = (0, 1), 2, 3


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


class Shaper:
    """Shapes batches of a file; `whole`: the file is one batch.

    Where `whiten` is set, what is not the whole file needs every batch to be given to `look` in two passes first (`passes` is 2).
    """

    def __init__(self, config: Config, threads: int, whole: bool) -> None:
        self.config, self.threads, self.whole = config, threads, whole
        self.whitens = config.whiten != "none"
        self.passes = 2 if self.whitens and not whole else 0
        wide = [name for name, row in config.streams.items() for field in (row.center, row.scale) if field in ("batch", "length_weighted")]
        if wide and not whole:
            refuse(ERR_CONFLICT, f"passrl: {wide[0]} is standardised over the whole batch, which a file in parts does not have; give --whole-file")
        self._known: list[Any] = [None, None]

    def look(self, number: int, rollouts: Rollouts) -> None:
        """Takes a batch's share of pass `number`, 0 or 1, of the statistics of all tokens."""
        if not self.whitens:
            return
        phase = (_MAXIMA, _SUMS)[number]
        partials, arguments = self._begun(rollouts, number)
        partials.add(phase, **arguments)
        (section,) = partials.sections(phase)
        known = self._known[number]
        combine: Callable[[Any, Any], Any] = np.add if section.op == "sum" else np.maximum
        self._known[number] = section.data.copy() if known is None else combine(known, section.data)

    def __call__(self, rollouts: Rollouts) -> Shaped:
        """Shapes a batch. Errors: `passrl.Error`."""
        if not self.whole:
            return self.part(rollouts)
        self.config = settled(self.config, rollouts)
        return shape(self.config, threads=self.threads, **rollouts.arguments(self.config))

    def part(self, rollouts: Rollouts) -> Shaped:
        """Shapes whole groups of the file, a batch or not."""
        self.config = settled(self.config, rollouts)
        if not self.whitens:
            return shape(self.config, threads=self.threads, **rollouts.arguments(self.config))
        partials, arguments = self._begun(rollouts, 2)
        return partials.apply(**arguments)

    def _begun(self, rollouts: Rollouts, known: int) -> tuple[Partials, dict[str, Any]]:
        """Statistics of the batch's groups, and of all tokens as far as they are known."""
        self.config = settled(self.config, rollouts)
        arguments = rollouts.arguments(self.config)
        most = limits([arguments], self.config)
        arguments["groups"] = group_index(rollouts.group)[0]
        plan = Plan(self.config, threads=self.threads, **most)
        partials = Partials(plan)
        for phase in _GROUPS:
            partials.add(phase, **arguments)
        for phase, values in zip((_MAXIMA, _SUMS)[:known], self._known):
            (section,) = partials.sections(phase)
            section.data[:] = values
        return partials, arguments


def differences(config: Config) -> list[tuple[str, str, str]]:
    """Fields that differ from the defaults: name, value, default."""
    from ..config import STREAM_FIELDS

    plain = Config("pass")
    found = [(name, str(value), str(getattr(plain, name))) for name, value in config if value != getattr(plain, name)]
    ours, theirs = config.streams, plain.streams
    for name in STREAM_NAMES:
        for field in STREAM_FIELDS:
            value, default = getattr(ours[name], field), getattr(theirs[name], field)
            if value != default:
                found.append((f"{name}.{field}", str(value), str(default)))
    return found
