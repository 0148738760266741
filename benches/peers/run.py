"""`make bench-peers`: what people run today beside ours, on the same batches; target/bench/peers.json and peers.png.

Each pair runs in a process of its own, the two sides in turn, once they have been shown to agree. Theirs has an allocator that keeps what it was given (MALLOC_*),
without which most of its time goes into mapping pages anew. `make bench-peers PEERS='--sizes small --only "verl G"'` for a part.
"""
from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parents[1] / "target" / "bench"
TUNED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "1000000000", "PYTHONDONTWRITEBYTECODE": "1"}
# Seconds; torch.compile's first call is most of a pair's.
LIMIT = 600

NOTES = """
they differ by: of the largest value in scope; above a pair's tolerance it is not timed. floor: a copy of as many bytes as must be read and written.
verl's GRPO, RLOO and GDPO sum the outcome out of [B, T] rewards; ours is given the outcome. TRL computes [B] numbers alone, and ours is asked for as many.
torchrl and scipy know no mask; ours is given lengths."""

Row = dict[str, Any]


def run(name: str, sizes: str, threads: str) -> list[Row]:
    """Rows of one pair; a pair that fails is a row with the reason."""
    command = [sys.executable, "-W", "ignore", str(HERE / "one.py"), name, sizes, threads]
    error, out = "", ""
    try:
        done = subprocess.run(command, env={**os.environ, **TUNED}, capture_output=True, text=True, timeout=LIMIT)
        out = done.stdout
        if done.returncode:
            error = (done.stderr.strip().splitlines() or ["no word"])[-1]
    except subprocess.TimeoutExpired as late:
        out, error = (late.stdout or b"").decode() if isinstance(late.stdout, bytes) else late.stdout or "", f"not done in {LIMIT} s"
    rows: list[Row] = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return rows + ([{"name": name, "error": error}] if error else [])


def number(value: float, digits: int = 3) -> str:
    """Three digits that count, without an exponent."""
    return f"{value:.{digits}g}" if value < 10 ** (digits - 1) else f"{float(f'{value:.{digits}g}'):,.0f}"


def table(rows: list[Row]) -> str:
    lines = ["| what | size | threads | theirs, ms | passrl, ms | times | floor, ms | they differ by |", "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['name']} | failed: {row['error']} |")
        else:
            lines.append(f"| {row['name']} | {row['size']} | {row['threads']} | {number(row['theirs_ms'], 4)} | {number(row['ours_ms'])} | {number(row['times'])} | "
                         f"{number(row['floor_ms'])} | "
                         f"{row['difference']:.0e} |")
    return "\n".join(lines)


def picture(rows: list[Row], path: Path) -> None:
    """A panel a size and thread count: theirs and ours on a logarithmic axis, the floor a tick."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in rows if "error" not in row]
    panels = list(dict.fromkeys((row["size"], row["threads"]) for row in rows))
    names = list(dict.fromkeys(row["name"] for row in rows))
    if not rows:
        return
    figure, axes = plt.subplots(1, len(panels), figsize=(3 + 6 * len(panels), 1.6 + 0.34 * len(names)), sharey=True, squeeze=False, layout="constrained")
    for axis, (size, threads) in zip(axes[0], panels):
        for row in rows:
            if (row["size"], row["threads"]) != (size, threads):
                continue
            y = names.index(row["name"])
            axis.plot([row["ours_ms"], row["theirs_ms"]], [y, y], color="#bbbbbb", linewidth=2, zorder=1)
            axis.plot(row["theirs_ms"], y, "o", color="#d2691e", zorder=2)
            axis.plot(row["ours_ms"], y, "o", color="#1f5fa8", zorder=3)
            axis.plot(row["floor_ms"], y, "|", color="black", markersize=11, zorder=4)
            axis.annotate(f"{number(row['times'])}×", (row["theirs_ms"], y), xytext=(7, 0), textcoords="offset points", va="center", fontsize=8)
        axis.set_xscale("log")
        axis.margins(x=0.16)
        axis.set_title(f"{size}, {threads} thread{'s' * (threads > 1)}", fontsize=10)
        axis.set_xlabel("ms")
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    axes[0, 0].set_yticks(range(len(names)), names, fontsize=9)
    axes[0, 0].invert_yaxis()
    for label, marker, colour in (("theirs", "o", "#d2691e"), ("passrl", "o", "#1f5fa8"), ("floor: a copy of as many bytes", "|", "black")):
        axes[0, -1].plot([], [], marker, color=colour, label=label)
    figure.legend(*axes[0, -1].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="small,paper", help="of small, paper, large (default: %(default)s)")
    parser.add_argument("--threads", default="2", help="thread counts (default: %(default)s)")
    parser.add_argument("--only", default="", help="expression that names of pairs are searched for")
    chosen = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    listed = subprocess.run([sys.executable, "-c", "import pairs, json; print(json.dumps(list(pairs.PAIRS)))"], cwd=HERE, check=True, capture_output=True, text=True,
                            env={**os.environ, "PYTHONPATH": str(HERE.parents[1] / "bindings" / "python"), "PYTHONDONTWRITEBYTECODE": "1"})
    rows: list[Row] = []
    for name in json.loads(listed.stdout):
        if re.search(chosen.only, name):
            rows += run(name, chosen.sizes, chosen.threads)
            print(f"  {name}: {', '.join(row.get('error') or number(row['times']) + ' times' for row in rows if row['name'] == name)}", file=sys.stderr, flush=True)
    print(table(rows))
    print(NOTES)
    # A part leaves the whole's files as they are.
    path = FOLDER / ("peers-part.json" if chosen.only else "peers.json")
    path.write_text(json.dumps(rows, indent=1) + "\n")
    picture(rows, path.with_suffix(".png"))
    print(path, path.with_suffix(".png"), sep="\n")
    failed = [row["name"] for row in rows if "error" in row]
    behind = [f"{row['name']}, {row['size']}" for row in rows if "error" not in row and row["times"] < 1]
    print(f"{len(rows) - len(failed)} rows; behind in {len(behind)}{': ' * bool(behind)}{'; '.join(behind)}; failed {len(failed)}{': ' * bool(failed)}{'; '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
