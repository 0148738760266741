"""Pictures of `make bench`, from target/bench/summary.json: roofline.png (achieved against the floor) and tokens.png (time against tokens)."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

FOLDER = Path(__file__).resolve().parent.parent / "target" / "bench"
PANELS = [("paper", "warm"), ("paper", "cold"), ("large", "warm"), ("large", "cold")]
COLOURS = {"f32": "#1f5fa8", "bf16": "#d2691e"}

Row = dict[str, Any]


def rate(row: Row, ms: float) -> float:
    """GB/s at which the row's bytes pass in so many milliseconds."""
    return float(row["bytes"]) / 1e6 / ms


def roofline(rows: list[Row], path: Path) -> None:
    """A line a case: the floor as a bar, what is reached as a dot, the target as a tick; two threads."""
    names = list(dict.fromkeys(row["name"] for row in rows if row["size"] == "paper"))
    figure, axes = plt.subplots(2, 2, figsize=(14, 10), sharex=True, sharey=True, layout="constrained")
    for axis, (size, cache) in zip(axes.flat, PANELS):
        for row in rows:
            if (row["size"], row["cache"], row["threads"]) != (size, cache, 2):
                continue
            y = names.index(row["name"]) + (0.17 if row["dtype"] == "bf16" else -0.17)
            axis.barh(y, rate(row, row["floor_ms"]), height=0.3, color=COLOURS[row["dtype"]], alpha=0.18)
            axis.plot(rate(row, row["ms"]), y, "o", color=COLOURS[row["dtype"]], markersize=6)
            end = rate(row, min(row["floor_ms"], row["ms"]))
            axis.annotate(f"{row['ratio']:.1f}×", (end, y), xytext=(7, 0), textcoords="offset points", va="center", fontsize=7)
            if row["target_ms"]:
                axis.plot(rate(row, row["target_ms"]), y, "|", color="black", markersize=11)
        axis.set_title(f"{size}, {cache}, 2 threads", fontsize=10)
        axis.set_yticks(range(len(names)), names, fontsize=9)
        axis.grid(axis="x", alpha=0.3)
    axes[0, 0].invert_yaxis()
    for axis in axes[1]:
        axis.set_xlabel("GB/s of bytes that must be read or written")
    for dtype, colour in COLOURS.items():
        axes[0, 0].plot([], [], "o", color=colour, label=dtype)
    axes[0, 0].barh([0], [0], color="grey", alpha=0.3, label="floor: a copy of as many bytes")
    axes[0, 0].plot([], [], "|", color="black", markersize=11, label="target")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def tokens(rows: list[Row], path: Path) -> None:
    """Time against tokens, both axes logarithmic, beside the copy."""
    figure, axis = plt.subplots(figsize=(8, 6), layout="constrained")
    shades = {("dense packed", 1): "#9dbfe3", ("dense packed", 2): "#1f5fa8", ("kl packed", 1): "#efbf95", ("kl packed", 2): "#d2691e"}
    for (name, threads), colour in shades.items():
        line = [row for row in rows if row["size"].startswith("1e") and (row["name"], row["threads"]) == (name, threads)]
        if line:
            axis.loglog([r["tokens"] for r in line], [r["ms"] for r in line], "o-", color=colour, label=f"{name}, {threads} thread{'s' * (threads > 1)}")
            axis.loglog([r["tokens"] for r in line], [r["floor_ms"] for r in line], ":", color=colour)
    axis.set_xlabel("tokens")
    axis.set_ylabel("ms (dotted: a copy of as many bytes)")
    axis.grid(alpha=0.3, which="both")
    axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    rows: list[Row] = json.loads((FOLDER / "summary.json").read_text())
    roofline(rows, FOLDER / "roofline.png")
    tokens(rows, FOLDER / "tokens.png")
    print(*(FOLDER / name for name in ("roofline.png", "tokens.png")), sep="\n")


if __name__ == "__main__":
    main()
