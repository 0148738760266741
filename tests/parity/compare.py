"""Compares passrl's presets with the golden files: no framework, no torch (part of `make test`).

    compare.py [--preset NAME]... [--worst] [--strict]

Prints preset x cases x worst difference (relative to the largest |A| of the case), then the line
`parity: P presets (D distinct, F against framework code, T transcribed), C cases, worst W`. Exit status 1 where a difference is over its
bound, a preset is refused, or with --strict where one is not there yet.
"""
from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from cases import WEIGHTS, Case, cases  # noqa: E402

import passrl  # noqa: E402

GOLDEN = HERE / "golden"
# What a framework does that passrl does not: shown, not copied. The golden files hold their number, ours is the sound one.
EXCEPTIONS = {
    "zero variance": "their rounding of a variance that is zero; ours is 0",
    "nan": "NaN leaks from behind a mask in theirs; ours is finite",
    "mixed": "they take uneven groups as one; ours with one group is their number",
    "refused": "they fail on a group of one; ours is finite",
    "set": "other rows are in their last whitening; ours is finite",
}


def _steps(case: Case, keys: bool = False) -> Any:
    return passrl.Steps(case.step_offsets, case.step_ends, case.step_scores.astype(np.float32), groups=case.step_keys if keys else None)


# Field of a case -> keywords of passrl.shape. Rewards and values are float32 exactly; log-probabilities too.
KEYWORDS: dict[str, Callable[[Case], dict[str, Any]]] = {
    "functions": lambda case: {"streams": {f"f{k}": (case.functions[:, k].copy(), w) for k, w in enumerate(WEIGHTS)}},
    "signal": lambda case: {"signal": case.token_rewards.astype(np.float32)},
    # TRL sets both log-probabilities to one constant where nothing was written.
    "logp_reference_in_scope": lambda case: {"logp_reference": np.where(case.mask, case.logp_reference, case.logp_policy)},
    "no_outcome": lambda case: {"outcome": np.zeros(case.rollouts)},
    "steps": lambda case: {"steps": _steps(case)},
    "step_keys": lambda case: {"steps": _steps(case, keys=True)},
    "token_ratio": lambda case: {"token_ratio": np.exp(case.logp_policy - case.logp_behavior)},
    **{name: lambda case, name=name: {name: getattr(case, name)} for name in
       ("outcome", "baselines", "bootstrap", "token_rewards", "values", "logp_policy", "logp_reference", "logp_teacher", "logp_behavior", "sum_pi_squared")},
}


def ours(case: Case, preset: str, inputs: list[str], config: dict[str, Any]) -> Any:
    """passrl's advantages `[N]` in float64, 0 out of scope."""
    arguments: dict[str, Any] = {"cu_seqlens": case.cu, "mask": case.mask, "groups": case.groups}
    for name in inputs:
        arguments |= KEYWORDS[name](case)
    shaped = passrl.shape(preset, **arguments, **config)
    return np.where(case.mask, np.asarray(shaped.advantages, dtype=np.float64), 0.0)


def exception(kind: str, case: Case, entry: dict[str, Any], theirs: Any) -> str:
    """What is wrong with an exception, "" if nothing: theirs is what it is said to be, and ours is the sound number instead."""
    config = {name: value for name, value in entry["config"].items() if name != "compat"}
    mine = ours(case, entry["preset"], entry["inputs"], config)
    if not np.isfinite(mine).all():
        return "ours is not finite"
    if kind in ("nan", "refused"):
        return "" if np.isnan(theirs[case.mask]).any() else "theirs has no NaN"
    if kind == "set":
        return "" if difference(mine, theirs) > entry["bound"] else "theirs is ours"
    if kind == "mixed":
        # One group of all is their number.
        together = ours(replace(case, groups=np.zeros_like(case.groups)), entry["preset"], entry["inputs"], config)
        gap = difference(together, theirs)
        return "" if gap <= entry["bound"] < difference(mine, theirs) else f"as one group it is {gap:.2g} off"
    equal = np.zeros(case.rollouts, dtype=bool)
    for group in np.unique(case.groups):
        members = case.groups == group
        equal[members] = np.ptp(case.outcome[members]) == 0
    flat = np.repeat(equal, case.lengths) & case.mask
    if not flat.any() or np.any(mine[flat] != 0):
        return "ours is not 0 where all rewards are equal"
    return "" if np.abs(theirs[flat]).max() > 0 else "theirs is 0 where all rewards are equal"


def expected(case: Case, stored: Any) -> Any:
    """Theirs as `[N]`, 0 out of scope."""
    full = stored if stored.shape == case.mask.shape else np.repeat(stored, case.lengths)
    return np.where(case.mask, full, 0.0)


def difference(mine: Any, theirs: Any) -> float:
    """Largest |mine - theirs| relative to the largest |theirs|; NaN must meet NaN."""
    if not np.array_equal(np.isnan(mine), np.isnan(theirs)):
        return float("inf")
    live = ~np.isnan(theirs)
    if not live.any():
        return 0.0
    scale = np.abs(theirs[live]).max()
    gap = np.abs(mine[live] - theirs[live]).max()
    return float(gap / scale if scale > 0 else gap)


class Row:
    """What came of one entry."""

    def __init__(self, key: str, entry: dict[str, Any]) -> None:
        self.key, self.entry = key, entry
        self.worst, self.where, self.cases, self.missing, self.wrong, self.exception = 0.0, "", 0, "", "", ""

    def run(self, all_cases: dict[str, Case], stored: Any) -> None:
        for name in self.entry["cases"]:
            case = all_cases[name]
            kind = self.entry["exceptions"].get(name)
            if kind:
                said = exception(kind, case, self.entry, expected(case, stored[f"{self.key}|{name}"]))
                self.cases, self.exception = self.cases + 1, kind
                self.wrong = f"{name}: {said}" if said else self.wrong
                continue
            try:
                mine = ours(case, self.entry["preset"], self.entry["inputs"], self.entry["config"])
            except (passrl.UnknownNameError, passrl.NotServedError) as error:
                self.missing = str(error)
                return
            except TypeError as error:
                self.missing = str(error)
                return
            except passrl.Error as error:
                if self.entry["exceptions"].get(name) == "refused":
                    self.cases += 1
                    continue
                self.wrong = f"{name}: {error}"
                return
            found = difference(mine, expected(case, stored[f"{self.key}|{name}"]))
            self.cases += 1
            if found > self.worst or not self.where:
                self.worst, self.where = found, name
        if self.worst > self.entry["bound"]:
            self.wrong = f"{self.where}: {self.worst:.2g} is over the bound {self.entry['bound']:.2g}"


def rows(wanted: list[str], all_cases: dict[str, Case]) -> list[Row]:
    found = []
    for path in sorted(GOLDEN.glob("*.json")):
        description = json.loads(path.read_text())
        changed = [name for name, digest in description["cases"].items() if name not in all_cases or all_cases[name].digest() != digest]
        if changed:
            raise SystemExit(f"parity: golden/{path.stem} was made from other inputs ({', '.join(changed)}); run make parity")
        with np.load(path.with_suffix(".npz")) as stored:
            for key, entry in description["entries"].items():
                if not wanted or entry["preset"] in wanted or key in wanted:
                    row = Row(key, entry)
                    row.run(all_cases, stored)
                    found.append(row)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", action="append", default=[], metavar="NAME", help="this preset alone (again for another)")
    parser.add_argument("--strict", action="store_true", help="a preset that this build does not know is a failure")
    options = parser.parse_args()
    known = {str(name) for name in passrl.presets()}
    found = rows(options.preset, cases())
    width = max((len(row.key) for row in found), default=0)
    print(f"{'preset':{width}}  how          cases    worst  bound")
    for row in found:
        state = f"{row.worst:8.2g}" if not row.missing and (not row.wrong or row.worst) else "       -"
        note = f"  NOT THERE YET: {row.missing}" if row.missing else f"  WRONG: {row.wrong}" if row.wrong else f"  exception: {EXCEPTIONS[row.exception]}" if row.exception else ""
        print(f"{row.key:{width}}  {row.entry['how']:11}  {row.cases:5} {state} {row.entry['bound']:6.0e}{note}")
    done = [row for row in found if not row.missing and not row.wrong]
    names = {row.entry["preset"] for row in done}
    framework = {row.entry["preset"] for row in done if row.entry["how"] == "framework"}
    distinct = {repr(sorted(dict(passrl.Config(name)).items(), key=repr)) for name in names}
    unmet = sorted(known - {row.entry["preset"] for row in found} - {"pass", "grpo_process", "grpo_pooled"}) if not options.preset else []
    for name in unmet:
        print(f"parity: the preset {name} has no golden file")
    print(f"parity: {len(names)} presets ({len(distinct)} distinct, {len(framework)} against framework code, {len(names - framework)} transcribed), "
          f"{sum(row.cases for row in done)} cases, worst {max((row.worst for row in done), default=0.0):.1e}")
    wrong, missing = [row for row in found if row.wrong], [row for row in found if row.missing]
    if wrong or missing:
        print(f"parity: {len(wrong)} entries are wrong, {len(missing)} not there yet")
    return 1 if wrong or options.strict and (missing or unmet) else 0


if __name__ == "__main__":
    sys.exit(main())
