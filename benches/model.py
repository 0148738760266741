"""Writes benches/MODEL.md: what the counted bytes and launches give at the stated bandwidth of four GPUs. A model, not a measurement.

`make bench-model`, or `python benches/model.py [FILE]`: FILE is target/budgets.json (what `make budgets` has measured) or, where that is not there, tests/budgets/recorded.txt
(what it may be at most: a budget that is met, else what was measured and 2%).
"""
from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MEASURED, RECORDED = ROOT / "target" / "budgets.json", ROOT / "tests" / "budgets" / "recorded.txt"
PAGE = ROOT / "benches" / "MODEL.md"
SOURCES = {".json": "as `make budgets` measured them", ".txt": "at most what tests/budgets/recorded.txt allows: a budget that is met, else what was measured and 2%"}

# Memory bandwidth, GB/s, and double precision outside the tensor cores, TFLOP/s (an FMA counts two), as NVIDIA's data sheets state them.
GPUS = {"A100 80 GB SXM": (2039, 9.7), "H100 SXM": (3350, 34), "H200 SXM": (4800, 34), "B200": (8000, 37)}
# Microseconds a kernel or memset costs beside its own work, one behind the other on a stream. Assumed; not taken from any data sheet.
LAUNCH = 2.5
# The sizes of benches/support/workload.rs: tokens (rounded), slots of the padded layout.
SIZES = {"small": (220_000, 512 * 1024), "paper": (5_100_000, 2048 * 6144), "large": (13_600_000, 8192 * 4096)}
PREFIX = "global bytes a token"
CODE = "f64 instructions in the code of "

Rows = list[dict[str, Any]]


@dataclass
class Work:
    """What one case's run costs, as counted."""

    name: str
    kernels: float
    memsets: float
    # Bytes a token, tables left out; of those tables; by kernel.
    token: float
    tables: float
    parts: dict[str, float]

    @property
    def all(self) -> float:
        return self.token + self.tables

    @property
    def padding(self) -> int:
        """Bytes of zeros written for a slot that no rollout has."""
        if ", padded" not in self.name:
            return 0
        return (2 if self.name.startswith("gae") else 1) * (2 if "bf16" in self.name else 4)

    def fixed(self) -> float:
        return (self.kernels + self.memsets) * LAUNCH

    def micros(self, tokens: int, slots: int, bandwidth: float) -> float:
        moved = self.all * tokens + (self.padding * (slots - tokens) if self.padding else 0)
        return self.fixed() + moved / bandwidth / 1e3

    def tokens_of_a_tenth(self, bandwidth: float) -> float:
        """Tokens (packed) from which the launches are at most a tenth of the time."""
        return 9 * self.fixed() * bandwidth * 1e3 / self.all


def read(source: Path) -> Rows:
    """Rows of either file."""
    text = source.read_text()
    if source.suffix == ".json":
        return list(json.loads(text))
    cells = [line.rsplit(" | ", 2) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [{"case": case, "what": what, "value": float(value)} for case, what, value in cells]


def works(rows: Rows) -> list[Work]:
    """The cases whose traffic was counted."""
    cases: dict[str, dict[str, float]] = {}
    for row in rows:
        cases.setdefault(row["case"], {})[row["what"]] = row["value"]
    found = []
    for name, of in cases.items():
        if PREFIX in of:
            parts = {what.removeprefix(PREFIX + " in "): value for what, value in of.items() if what.startswith(PREFIX + " in ")}
            found.append(Work(name, of["kernels"], of["memsets"], of[PREFIX], of.get("bytes a token of tables", 0.0), parts))
    return found


def table(head: Iterable[str], lines: Iterable[Iterable[object]]) -> str:
    rows = [list(head), *([str(cell) for cell in line] for line in lines)]
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def rounded(value: float) -> str:
    """Three figures."""
    return f"{value:.3g}" if value < 1000 else f"{float(f'{value:.3g}'):,.0f}"


def counted(all_works: list[Work]) -> str:
    lines = [[w.name, f"{w.kernels:g} + {w.memsets:g}", f"{w.token:g}", f"{w.tables:g}" if w.tables else "–",
              "; ".join(f"`{kernel}` {value:g}" for kernel, value in w.parts.items())] for w in all_works]
    return table(["case", "kernels + memsets", "bytes a token", "of tables", "by kernel, padding's zeros included"], lines)


def times(all_works: list[Work]) -> str:
    lines = []
    for w in all_works:
        for size, (tokens, slots) in SIZES.items():
            lines.append([w.name, size, *(rounded(w.micros(tokens, slots, bandwidth)) for bandwidth, _ in GPUS.values())])
    return table(["case", "size", *(f"{gpu}, µs" for gpu in GPUS)], lines)


def latency(all_works: list[Work]) -> str:
    packed = [w for w in all_works if not w.padding]
    return table(["case", "launches, µs", *(f"{gpu}, tokens" for gpu in GPUS)],
                 ([w.name, f"{w.fixed():g}", *(rounded(w.tokens_of_a_tenth(bandwidth)) for bandwidth, _ in GPUS.values())] for w in packed))


def doubles(rows: Rows, all_works: list[Work]) -> str:
    code = [(row["what"].removeprefix(CODE), row["value"]) for row in rows if row["case"] == "nvcc, sm_80" and row["what"].startswith(CODE)]
    listed = table(["kernel", "f64 instructions in its code, sm_80"], ([f"`{name}`", f"{count:g}"] for name, count in code)) if code else (
        "Not counted yet where this page comes from: `make budgets` does so beside nvcc (`tests/setup.sh cuda all`).\n")
    bound = table(["case", *(f"{gpu}, f64 instructions a token" for gpu in GPUS)],
                  ([w.name, *(rounded(w.all / bandwidth * teraflops / 2 * 1e3) for bandwidth, teraflops in GPUS.values())] for w in all_works if not w.padding))
    return (f"{listed}\nThe code's instructions are counted once each, whatever runs how often. At `I` executed a token their time is `N I / (flops / 2)`; memory is the limit up to "
            f"`I = b flops / (2 B)`:\n\n{bound}")


def page(rows: Rows, source: str) -> str:
    all_works = works(rows)
    if not all_works:
        sys.exit("no case has its bytes counted; run `make budgets` first")
    gpus = table(["", "bandwidth `B`, GB/s", "f64 `flops`, TFLOP/s"], ([gpu, f"{b:,}", f] for gpu, (b, f) in GPUS.items()))
    return f"""# CUDA on paper

**A model, not a measurement: no kernel of this library has run on a GPU.** Launches and bytes are counted by the simulated driver's checked build, instructions by
nvdisasm, and stand here {source}; the rest is arithmetic. This page is written by `make bench-model`; nothing here is edited by hand.

```
t = (kernels + memsets) l + (b N + p (S - N)) / B
```

`N` tokens, `S` slots of a padded batch, `b` bytes a token (tables with it), `p` bytes of zeros a slot that no rollout has (packed: 0; padded: the outputs' element), `B` the bandwidth that NVIDIA
states, all of it reached, `l` = {LAUNCH} µs a launch on a stream, assumed: real launches are 2 to 5 µs, in a captured graph 1 to 2. A kernel that reaches 85% of `B` takes 1.18 times its part. A
line below is refuted by `nsys profile` (time and launches of each kernel) or by `ncu --metrics dram__bytes.sum` (bytes) on the same batch. Where inputs lie in the L2 cache the bytes pass faster.

{gpus}
Sizes, as in `make bench`: {"; ".join(f"{size} N = {tokens:,}, S = {slots:,}" for size, (tokens, slots) in SIZES.items())}.

## Counted

On two groups of 8 rollouts of 2,000 to 3,000 tokens. KL's tables are the group's: larger groups have fewer of their bytes a token. A batch of steps takes one
kernel where it has a group for every two multiprocessors or more ("paper" and "large" on all four, "small", of 64 groups, on the A100); with fewer its rows are those of "few groups".

{counted(all_works)}
## Time

Microseconds, by the formula.

{times(all_works)}
## Where launches stop to matter

Tokens from which launches are at most a tenth of the time, packed: `N = 9 (kernels + memsets) l B / b`.

{latency(all_works)}
## Instructions on doubles

{doubles(rows, all_works)}"""


if __name__ == "__main__":
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else MEASURED if MEASURED.is_file() else RECORDED
    if not source.is_file():
        sys.exit(f"{source} is not there: `make budgets` writes {MEASURED.relative_to(ROOT)}")
    PAGE.write_text(page(read(source), SOURCES[source.suffix]))
    print(PAGE)
