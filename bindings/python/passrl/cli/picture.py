"""The picture: one group, a row a rollout, tokens coloured by their advantage, the baseline above the preset."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .rollouts import Rollouts
from .table import GroupRow, Run

# Rows of a large group and chunk outlines of a row beyond which a picture is only noise.
MOST_ROWS, MOST_OUTLINES = 16, 80
# One colour scale for all panels; logarithmic away from 0 where one panel's advantages are this many times another's.
MOST_RATIO = 8.0


def spans(scope: NDArray[np.bool_]) -> list[tuple[int, int, bool]]:
    """Runs of equal scope: begin, end, in scope."""
    if len(scope) == 0:
        return []
    edges = np.flatnonzero(np.diff(scope)) + 1
    bounds = [0, *edges.tolist(), len(scope)]
    return [(begin, end, bool(scope[begin])) for begin, end in zip(bounds, bounds[1:])]


class Axis:
    """Where a token is drawn: tokens in scope one unit each, a span out of scope squeezed to a narrow mark."""

    def __init__(self, scope: NDArray[np.bool_], gap: float) -> None:
        self.spans = spans(scope)
        self.starts: list[float] = []
        at = 0.0
        for begin, end, inside in self.spans:
            self.starts.append(at)
            at += end - begin if inside else min(gap, float(end - begin))
        self.width = at

    def of(self, token: int, gap: float) -> float:
        """Left edge of a token."""
        for (begin, end, inside), start in zip(self.spans, self.starts):
            if begin <= token < end:
                return start + (token - begin if inside else 0.0)
        return self.width


def _count(n: int) -> str:
    return str(n) if n < 1000 else f"{n / 1000:.1f}k" if n < 10000 else f"{n // 1000}k"


def draw(path: Path, rollouts: Rollouts, runs: list[Run], row: GroupRow, scope: NDArray[np.bool_]) -> None:
    """Writes the picture of a group."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    rows = row.rows[:MOST_ROWS]
    lines = [slice(int(rollouts.cu_seqlens[i]), int(rollouts.cu_seqlens[i + 1])) for i in rows]
    widest = max((int(scope[line].sum()) for line in lines), default=1)
    gap = max(widest * 0.022, 1.0)
    axes_of = [Axis(scope[line], gap) for line in lines]
    width = max((axis.width for axis in axes_of), default=1.0) or 1.0
    norm, said = _scale([max((float(np.abs(run.shaped.advantages[line]).max(initial=0.0)) for line in lines), default=0.0) for run in runs])
    colours = matplotlib.colormaps["RdBu"]

    figure, panels = pyplot.subplots(
        len(runs), 1, figsize=(12.5, len(runs) * (1.1 + 0.52 * len(rows)) + 0.8), sharex=True, squeeze=False, layout="constrained")
    for panel, run in zip(panels[:, 0], runs):
        for y, (i, line, axis) in enumerate(zip(rows, lines, axes_of)):
            _row(panel, y, run.shaped.advantages[line], scope[line], axis, _ends(run, int(i)), norm, colours, width)
            panel.text(width * 1.012, y, f"{float(run.shaped.path_scores[i]):+.2f}", va="center", fontsize=9, family="monospace")
        panel.text(width * 1.012, -0.78, "path score", fontsize=8, va="center")
        panel.set_title(run.name, loc="left", fontsize=12, fontweight="bold")
        panel.set_yticks(range(len(rows)), [_label(rollouts, int(i)) for i in rows], fontsize=9)
        for tick, i in zip(panel.get_yticklabels(), rows):
            if rollouts.format_ok is not None and not rollouts.format_ok[i]:
                tick.set_color("#b00020")
        panel.set_xlim(-width * 0.005, width * 1.005)
        panel.set_ylim(len(rows) - 0.4, -0.6)
        panel.tick_params(axis="y", length=0)
        panel.set_xticks([])
        for side in ("top", "right", "left", "bottom"):
            panel.spines[side].set_visible(False)
    _scale_bar(panels[-1, 0], width, widest, all(scope[line].all() for line in lines))
    figure.suptitle(f"Advantage of each token, group {row.key}" + (f" (first {len(rows)} of {len(row.rows)} rollouts)" if len(row.rows) > len(rows) else ""),
                    fontsize=13, x=0.01, ha="left")
    mappable = matplotlib.cm.ScalarMappable(norm, colours)
    figure.colorbar(mappable, ax=panels[:, 0].tolist(), label=said, shrink=0.85, pad=0.07, aspect=30)
    few = all(int(run.shaped.num_chunks[i]) <= MOST_OUTLINES for run in runs for i in rows)
    legend = [Patch(facecolor="white", edgecolor="black", label="chunk" if few else f"chunk (not drawn in rows of more than {MOST_OUTLINES})")]
    if any(not scope[line].all() for line in lines):
        legend.append(Patch(facecolor="#dddddd", edgecolor="#888888", hatch="////", label="out of scope"))
    figure.legend(handles=legend, loc="upper right", ncols=2, frameon=False, fontsize=9)
    figure.savefig(path, dpi=140)
    pyplot.close(figure)


def _scale(limits: list[float]) -> tuple[Any, str]:
    """Colours of all panels, centred at 0, and what the colour bar says."""
    from matplotlib.colors import SymLogNorm, TwoSlopeNorm

    high = max(limits) or 1.0
    low = min((limit for limit in limits if limit > 0), default=high)
    if high <= MOST_RATIO * low:
        return TwoSlopeNorm(0.0, -high, high), "advantage A"
    return SymLogNorm(low / 4, vmin=-high, vmax=high), f"advantage A (logarithmic beyond ±{low / 4:.2g})"


def _scale_bar(panel: Any, width: float, widest: int, whole: bool) -> None:
    """How many tokens a length is: spans out of scope are squeezed, so an axis with numbers would mislead."""
    tokens = 10 ** int(np.log10(max(widest / 5, 1)))
    tokens *= max(step for step in (1, 2, 5) if step * tokens <= max(widest / 5, 1))
    bottom = panel.get_ylim()[0]
    panel.plot([0, tokens], [bottom + 0.12] * 2, color="black", linewidth=2, clip_on=False, solid_capstyle="butt")
    panel.text(tokens + width * 0.008, bottom + 0.12, f"{tokens:,} token{'s' if tokens > 1 else ''}" + (
        "" if whole else " in scope; spans out of scope are squeezed, their tokens written on them"), fontsize=9, va="center")


def _ends(run: Run, i: int) -> list[int]:
    offsets = run.shaped.chunk_offsets
    return [int(end) for end in run.shaped.chunk_ends[offsets[i] : offsets[i + 1]]]


def _label(rollouts: Rollouts, i: int) -> str:
    parts = [f"sample {rollouts.sample[i]}"]
    if rollouts.outcome is not None:
        parts.append(f"outcome {rollouts.outcome[i]:g}")
    if rollouts.format_ok is not None:
        parts.append("format ok" if rollouts.format_ok[i] else "format wrong")
    return ", ".join(parts)


def _row(
    panel: Any, y: int, advantages: NDArray[Any], scope: NDArray[np.bool_], axis: Axis, ends: list[int], norm: Any, colours: Any, width: float,
) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    top, height = y - 0.36, 0.72
    patches, shades = [], []
    for (begin, end, inside), start in zip(axis.spans, axis.starts):
        if not inside:
            thin = min(end - begin, axis.width) if axis.width else 0
            wide = (axis.starts + [axis.width])[axis.spans.index((begin, end, inside)) + 1] - start
            panel.add_patch(Rectangle((start, top + 0.06), wide, height - 0.12, facecolor="#e4e4e4", edgecolor="#9a9a9a", hatch="//////", linewidth=0))
            if thin and wide > width * 0.012:
                panel.text(start + wide / 2, y, _count(end - begin), rotation=90, ha="center", va="center", fontsize=6.5, color="#333333",
                           bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6})
            continue
        part = advantages[begin:end]
        cuts = np.flatnonzero(np.diff(part) != 0) + 1
        bounds = [0, *cuts.tolist(), len(part)]
        for a, b in zip(bounds, bounds[1:]):
            patches.append(Rectangle((start + a, top), b - a, height))
            shades.append(colours(norm(float(part[a]))))
    panel.add_collection(PatchCollection(patches, facecolors=shades, edgecolors="none", match_original=False))
    if len(ends) > MOST_OUTLINES:
        return
    begin = 0
    for end in ends:
        if scope[begin:end].any():
            pieces = [(max(b, begin), min(e, end)) for b, e, s in axis.spans if s and b < end and e > begin]
            for b, e in pieces:
                left = axis.of(b, 0.0)
                panel.add_patch(Rectangle((left, top), e - b, height, fill=False, edgecolor="black", linewidth=0.8))
                value = float(advantages[b])
                if e - b > width * 0.045:
                    shade = colours(norm(value))
                    dark = 0.299 * shade[0] + 0.587 * shade[1] + 0.114 * shade[2] < 0.5
                    panel.text(left + (e - b) / 2, y, f"{value:+.2f}", ha="center", va="center", fontsize=8, color="white" if dark else "black")
        begin = end
