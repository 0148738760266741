"""What a framework's file lists: one entry for each preset (and variant of its configuration), with the framework's own number for a case."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cases import Case

F64 = NDArray[np.float64]

EXCEPTIONS = {
    "zero variance": "their rounding of a variance that is zero",
    "nan": "NaN leaks from behind a mask",
    "mixed": "uneven groups are mixed",
    "refused": "they fail on a group of one",
    "set": "rows without a number of their own are in their last whitening, or not, where ours are not, or are",
}


@dataclass(frozen=True)
class Entry:
    """One preset in one configuration.

    preset: the name in passrl. variant: which configuration, "" for the preset's own. source: "repository@version file:function".
    how: "framework" (its own code ran) or "transcribed" (from the formula, in f64); reason: why, where transcribed. precision: what
    theirs computed in: "f64" or "f32". bound: largest difference relative to the largest |A| of the case. config: fields of passrl set
    beside the preset. inputs: names of the case's fields that passrl is given (see compare.KEYWORDS). needs: kinds that a case must
    have; refuses: kinds it must not have. exceptions: case -> one of EXCEPTIONS: theirs is shown, not copied.
    run: case -> `[N]` advantages of theirs (any value out of scope), or `[R]`.
    """

    preset: str
    source: str
    run: Callable[[Case], NDArray[Any]]
    how: str = "framework"
    reason: str = ""
    variant: str = ""
    precision: str = "f64"
    bound: float = 2e-6
    bound_why: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ("outcome",)
    needs: frozenset[str] = frozenset()
    refuses: frozenset[str] = frozenset()
    exceptions: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.preset}/{self.variant}" if self.variant else self.preset

    def takes(self, case: Case) -> bool:
        # A batch with absent rewards is for those who know absence; one with a slot after the last token for those who read it.
        special = {"absent", "tail", "nan", "residue"} - self.needs
        if self.variant and case.name in ("long", "bf16"):
            # The golden files stay small: length and type are the preset's own question, not its variants'.
            return False
        return self.needs <= case.kinds and not (self.refuses | special) & case.kinds

    def advantages(self, case: Case) -> F64:
        """Theirs: `[N]`, 0 out of scope. Where theirs fails on a stated exception, NaN everywhere."""
        if self.exceptions.get(case.name) == "refused":
            try:
                return self._checked(case)
            except Exception as error:
                print(f"  {self.key} on {case.name}: theirs fails: {type(error).__name__}: {str(error)[:90]}")
                return np.where(case.mask, np.nan, 0.0)
        return self._checked(case)

    def _checked(self, case: Case) -> F64:
        found = np.asarray(self.run(case), dtype=np.float64)
        if found.shape == (case.rollouts,) and found.shape != case.mask.shape:
            found = np.repeat(found, case.lengths)
        if found.shape != case.mask.shape:
            raise ValueError(f"{self.key}: theirs has shape {found.shape}; the case {case.name} has {case.rollouts} rollouts, {len(case.mask)} slots")
        return np.where(case.mask, found, 0.0)
