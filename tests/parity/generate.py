"""Runs the frameworks' own functions on the cases; writes the golden files, or compares with them (`make parity`).

    generate.py [--write] [--only NAME]...

Each framework has a process of its own: what one puts in place of the others' packages stays there. A golden file `golden/<framework>.npz` has an array `<entry>|<case>` for each entry and case: `[R]` where every rollout has one value in
scope, else `[N]`; beside it `golden/<framework>.json` says from what function of which version each came, and by which command.
"""
from __future__ import annotations

import argparse
import importlib
import json
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from cases import Case, cases  # noqa: E402
from entry import Entry, F64  # noqa: E402

GOLDEN = HERE / "golden"
REPRODUCED = 1e-9  # relative to the largest |A|: another machine's libm and summation order, f64
REPRODUCED_F32 = 1e-6


def shrink(case: Case, advantages: F64) -> F64:
    """`[N]` as `[R]` where every rollout has one value in scope (rollouts out of scope: 0)."""
    found = np.zeros(case.rollouts)
    for i, (row, mask) in enumerate(zip(case.rows(advantages), case.rows(case.mask))):
        live = row[mask]
        if len(live) and not np.all(live == live[0]):
            return advantages
        found[i] = live[0] if len(live) else 0.0
    return found


def frameworks(only: list[str]) -> list[str]:
    """Names of the files of frameworks/."""
    found = sorted(path.stem for path in (HERE / "frameworks").glob("*.py") if path.stem != "__init__")
    unknown = set(only) - set(found)
    if unknown:
        raise SystemExit(f"parity: no framework {', '.join(sorted(unknown))}; there are {', '.join(found)}")
    return only or found


def collect(entries: list[Entry], all_cases: dict[str, Case]) -> dict[str, F64]:
    """Every entry on every case that it takes: `<entry>|<case>` -> array."""
    found: dict[str, F64] = {}
    for entry in entries:
        taken = 0
        for case in all_cases.values():
            if not entry.takes(case):
                continue
            theirs = entry.advantages(case)
            expected_nan = entry.exceptions.get(case.name) is not None
            if not expected_nan and not np.all(np.isfinite(theirs)):
                raise SystemExit(f"parity: {entry.key} on {case.name}: theirs is not finite; state an exception or refuse the case")
            found[f"{entry.key}|{case.name}"] = shrink(case, theirs)
            taken += 1
        if not taken:
            raise SystemExit(f"parity: {entry.key} takes no case")
    return found


def describe(name: str, entries: list[Entry], all_cases: dict[str, Case]) -> dict[str, Any]:
    """What the golden file's numbers are: for the reader, and for compare.py, which does not import the frameworks."""
    listed = {}
    for entry in entries:
        listed[entry.key] = {
            "preset": entry.preset, "variant": entry.variant, "source": entry.source, "how": entry.how, "reason": entry.reason, "precision": entry.precision,
            "bound": entry.bound, "bound_why": entry.bound_why, "config": dict(entry.config), "inputs": list(entry.inputs),
            "exceptions": dict(entry.exceptions), "cases": [case.name for case in all_cases.values() if entry.takes(case)],
        }
    return {"framework": name, "command": f"tests/parity/generate.py --write --only {name}",
            "cases": {case.name: case.digest() for case in all_cases.values()}, "entries": listed}


def compare(name: str, fresh: dict[str, F64], description: dict[str, Any]) -> list[str]:
    """Differences between what theirs gives now and the golden file."""
    path = GOLDEN / f"{name}.npz"
    if not path.exists():
        return [f"{name}: {path} is not there; make it with generate.py --write --only {name}"]
    wrong = []
    if json.loads((GOLDEN / f"{name}.json").read_text()) != description:
        wrong.append(f"{name}: golden/{name}.json says something else than frameworks/{name}.py")
    with np.load(path) as stored:
        for key in sorted(set(stored.files) ^ set(fresh)):
            wrong.append(f"{name}: {key} is in {'the golden file' if key in stored.files else 'frameworks/'} alone")
        for key in sorted(set(stored.files) & set(fresh)):
            entry = description["entries"][key.split("|")[0]]
            limit = REPRODUCED if entry["precision"] == "f64" else REPRODUCED_F32
            a, b = stored[key], fresh[key]
            scale = np.nanmax(np.abs(b), initial=0.0) or 1.0
            if a.shape != b.shape or not np.allclose(a, b, rtol=0, atol=limit * scale, equal_nan=True):
                wrong.append(f"{name}: {key} differs from the golden file" + (f" by {np.nanmax(np.abs(a - b)) / scale:.2g}" if a.shape == b.shape else " in shape"))
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the golden files; else compare with them")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this framework (again for another)")
    options = parser.parse_args()
    GOLDEN.mkdir(exist_ok=True)
    names = frameworks(options.only)
    if len(names) > 1:
        mode = ["--write"] if options.write else []
        failed = [name for name in names if subprocess.run([sys.executable, "-W", "ignore", __file__, *mode, "--only", name], check=False).returncode]
        if failed:
            print(f"parity: failed: {', '.join(failed)}")
        return 1 if failed else 0
    return one(names[0], write=options.write)


def one(name: str, *, write: bool) -> int:
    """One framework: its golden file written, or compared with."""
    all_cases = cases()
    entries = importlib.import_module(f"frameworks.{name}").entries()
    fresh, description = collect(entries, all_cases), describe(name, entries, all_cases)
    wrong: list[str] = []
    if write:
        np.savez_compressed(GOLDEN / f"{name}.npz", **fresh)
        (GOLDEN / f"{name}.json").write_text(json.dumps(description, indent=1) + "\n")
    else:
        wrong = compare(name, fresh, description)
    print(f"{name}: {len(entries)} entries, {len(fresh)} arrays {'written' if write else 'compared with the golden file'}", flush=True)
    for line in wrong:
        print(f"parity: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
