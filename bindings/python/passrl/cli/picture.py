"""The picture of one group: a row a rollout, tokens coloured by their advantage; presets one above the other on one scale of colours."""
from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..groups import group_index
from ..results import Shaped
from . import captions
from .lines import printable
from .rollouts import Rollouts

# Rows of all panels together, rows of a panel and chunk marks of a row beyond which a picture is only noise.
MOST_ROWS, MOST_ROWS_A_PANEL, MOST_MARKS = 48, 16, 120
# A row whose chunks are narrower than this part of the longest row, on average, has no marks either.
NARROWEST = 0.004
# Groups that are looked at for the most legible one; of more the first is drawn.
MOST_JUDGED = 10_000
WIDTH, DPI = 12.5, 128
# Room beside the rows for the path score and before them for a mark, in parts of the longest row.
BESIDE, LEFT = 0.085, 0.025
COLOURS = "RdBu"
WRONG = "#b00020"


@dataclass
class Row:
    """A rollout as it is drawn: tokens in scope one unit each, a span out of scope squeezed to `gap` at most."""

    number: int
    tokens: slice
    scope: NDArray[np.bool_]
    gap: float
    spans: list[tuple[int, int, bool, float, float]] = field(init=False)
    width: float = field(init=False)

    def __post_init__(self) -> None:
        edges = np.flatnonzero(np.diff(self.scope)) + 1
        bounds = [0, *edges.tolist(), len(self.scope)]
        self.spans, at = [], 0.0
        for begin, end in zip(bounds, bounds[1:]):
            inside = bool(self.scope[begin]) if end > begin else True
            wide = float(end - begin) if inside else min(self.gap, float(end - begin))
            self.spans.append((begin, end, inside, at, wide))
            at += wide
        self.width = at

    def left(self, token: int) -> float:
        """Left edge of a token."""
        for begin, end, inside, start, _ in self.spans:
            if begin <= token < end:
                return start + (token - begin if inside else 0.0)
        return self.width


def colour_scale(limit: float) -> Any:
    """From -limit to limit, 0 in the middle, by the signed square root: the sign of a small advantage shows beside a large one."""
    from matplotlib.colors import FuncNorm

    limit = limit or 1.0
    return FuncNorm((lambda a: np.sign(a) * np.sqrt(np.abs(a)), lambda c: np.sign(c) * np.square(c)), vmin=-limit, vmax=limit)


def compare(path: Path, rollouts: Rollouts, shaped: Mapping[str, Shaped], group: int | str | None = None) -> None:
    """Writes the picture of a group (by its key; None: the most legible) under each preset of `shaped`, by name, packed as the rollouts are.

    The kind of file follows the path's suffix (png, svg, pdf). Errors: KeyError where the rollouts have no such group.
    """
    from matplotlib import pyplot

    figure = draw(rollouts, shaped, group)
    figure.savefig(path, dpi=DPI, metadata={"Software": None} if path.suffix == ".png" else None)
    pyplot.close(figure)


def draw(rollouts: Rollouts, shaped: Mapping[str, Shaped], group: int | str | None = None) -> Any:
    """`compare` without the file: the matplotlib figure. The first axes are the presets', then come the caption's and the colour bar's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    key, members = choose(rollouts, shaped, group)
    scope = rollouts.scope()
    numbers = members[: max(min(MOST_ROWS_A_PANEL, MOST_ROWS // len(shaped)), 3)]
    slices = [slice(int(rollouts.cu_seqlens[i]), int(rollouts.cu_seqlens[i + 1])) for i in numbers]
    widest = max((int(scope[tokens].sum()) for tokens in slices), default=1)
    rows = [Row(int(i), tokens, scope[tokens], max(widest * 0.022, 1.0)) for i, tokens in zip(numbers, slices)]
    width = max((row.width for row in rows), default=1.0) or 1.0
    norm = colour_scale(max(float(np.abs(one.advantages[tokens]).max(initial=0.0)) for one in shaped.values() for tokens in slices))
    notes = captions.notes(rollouts, shaped, numbers)
    said = [line for note in notes.sentences for line in textwrap.wrap(note, 172, subsequent_indent="    ")]

    heights = [0.75 + 0.44 * len(rows)] * len(shaped) + [0.32 + 0.205 * len(said)]
    figure = pyplot.figure(figsize=(WIDTH, sum(heights) + 0.75), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.03, w_pad=0.05, hspace=0.0)
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    panels = [figure.add_subplot(grid[i]) for i in range(len(shaped))]
    for panel, (name, one) in zip(panels, shaped.items()):
        _panel(panel, name, one, rollouts, rows, norm, width, notes)
    _caption(figure.add_subplot(grid[len(shaped)]), said, width, widest, scope_whole=all(row.scope.all() for row in rows))
    left_out = f" (first {len(rows)} of {len(members)} rollouts)" if len(rows) < len(members) else ""
    figure.suptitle(f"Advantage of each token, group {_short(key, 60)}{left_out}", fontsize=13, x=0.01, ha="left")
    mappable = matplotlib.cm.ScalarMappable(norm, matplotlib.colormaps[COLOURS])
    bar = figure.colorbar(mappable, ax=panels, shrink=min(0.9, 4.5 / sum(heights[:-1]) + 0.25), pad=0.01, aspect=32, fraction=0.035)
    bar.set_label("advantage A (colour by its square root)")
    bar.set_ticks([norm.vmax * part for part in (-1, -0.5, -0.2, -0.05, 0, 0.05, 0.2, 0.5, 1)])
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:+.3g}" if value else "0")
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=9)
    _legend(figure, panels, notes)
    return figure


def choose(rollouts: Rollouts, shaped: Mapping[str, Shaped], group: int | str | None) -> tuple[int | str, NDArray[np.int64]]:
    """A group's key and rollouts; of all groups the most legible where none is named."""
    if group is not None:
        found = np.flatnonzero([str(one) == str(group) for one in rollouts.group])
        if len(found) == 0:
            raise KeyError(f"group {group} is not in the rollouts")
        return rollouts.group[found[0]], found
    index, keys = group_index(rollouts.group)
    points = np.array([_legible(rollouts, np.flatnonzero(index == number)) for number in range(len(keys))]) if len(keys) < MOST_JUDGED else np.zeros(len(keys))
    turned = captions.shifted(rollouts, shaped)
    if turned is not None and rollouts.step_offsets is not None:
        # A comparison of the paper's presets wants a group in which the first trouble can be seen.
        points += 4.0 * (np.bincount(np.repeat(index, np.diff(rollouts.step_offsets))[turned], minlength=len(keys)) > 0)
    return keys[int(np.argmax(points))], np.flatnonzero(index == int(np.argmax(points)))


def _legible(rollouts: Rollouts, rows: NDArray[np.int64]) -> float:
    """More for a handful of rollouts, mixed outcomes and formats, few steps."""
    points = 2.0 * (3 <= len(rows) <= 10)
    for values, weight in ((rollouts.outcome, 3.0), (rollouts.format_ok, 1.5)):
        points += weight * (values is not None and bool((values[rows] != values[rows[0]]).any()))
    if rollouts.step_offsets is not None:
        counts = np.diff(rollouts.step_offsets)[rows]
        points += 0.5 * min(float(counts.mean()), 4.0) - 0.4 * max(float(counts.max()) - 7.0, 0.0)
    return points


def _short(text: Any, most: int) -> str:
    """Cut in its middle: names often differ at their ends."""
    text = printable(text)
    return plain(text if len(text) <= most else f"{text[: most // 2]}…{text[len(text) - (most - 1) // 2 :]}")


def plain(text: str) -> str:
    """A dollar begins mathematics in matplotlib's texts."""
    return text.replace("$", r"\$")


def _label(rollouts: Rollouts, i: int) -> str:
    parts = [f"sample {_short(rollouts.sample[i], 14)}"]
    if rollouts.outcome is not None:
        parts.append(f"outcome {rollouts.outcome[i]:.3g}")
    if rollouts.format_ok is not None:
        parts.append("format ok" if rollouts.format_ok[i] else "format wrong")
    return ", ".join(parts)


def _panel(panel: Any, name: str, shaped: Shaped, rollouts: Rollouts, rows: list[Row], norm: Any, width: float, notes: captions.Notes) -> None:
    for y, row in enumerate(rows):
        _tokens(panel, y, row, np.asarray(shaped.advantages[row.tokens]), norm)
        _chunks(panel, y, row, shaped, norm, width, notes)
        panel.text(width * (1 + BESIDE * 0.82), y, f"{float(shaped.path_scores[row.number]):+.2f}", va="center", ha="right", fontsize=9, family="monospace")
        for token in notes.flipped.get(name, {}).get(row.number, []):
            panel.plot(row.left(token) + width * 0.008, y - 0.2, marker="x", markersize=5, markeredgewidth=1.4, color="black", gid="flipped")
        if notes.pointed.get(name) == row.number:
            panel.text(row.left(int(np.argmax(row.scope))) - width * 0.004, y, "③", fontsize=13, ha="right", va="center", gid="pointed")
    panel.text(width * (1 + BESIDE * 0.82), -0.72, "path score", fontsize=8, va="center", ha="right")
    panel.set_title(_short(name, 60), loc="left", x=LEFT / (1 + LEFT + BESIDE), fontsize=12, fontweight="bold", pad=2)
    panel.set_yticks(range(len(rows)), [_label(rollouts, row.number) for row in rows], fontsize=9)
    for tick, row in zip(panel.get_yticklabels(), rows):
        if rollouts.format_ok is not None and not rollouts.format_ok[row.number]:
            tick.set_color(WRONG)
    _bare(panel, width)
    panel.set_ylim(len(rows) - 0.5, -0.95)
    panel.tick_params(axis="y", length=0)


def _bare(panel: Any, width: float) -> None:
    panel.set_aspect("auto")
    panel.set_xlim(-width * LEFT, width * (1 + BESIDE))
    panel.set_xticks([])
    panel.spines[:].set_visible(False)


def _tokens(panel: Any, y: int, row: Row, advantages: NDArray[Any], norm: Any) -> None:
    """An image a span in scope, its pixels the advantages; what is out of scope is hatched, its count of tokens written on it."""
    from matplotlib.patches import Rectangle

    for begin, end, inside, start, wide in row.spans:
        if end == begin:
            continue
        if inside:
            panel.imshow(advantages[None, begin:end], norm=norm, cmap=COLOURS, extent=(start, start + wide, y + 0.36, y - 0.36),
                         aspect="auto", interpolation="nearest", interpolation_stage="data")
            continue
        panel.add_patch(Rectangle((start, y - 0.28), wide, 0.56, facecolor="#e4e4e4", edgecolor="#9a9a9a", hatch="//////", linewidth=0, gid="out"))
        if wide > 0.9 * row.gap:
            count = end - begin
            panel.text(start + wide / 2, y, str(count) if count < 1000 else f"{count / 1000:.1f}k" if count < 10000 else f"{count // 1000}k",
                       rotation=90, ha="center", va="center", fontsize=6.5, color="#333333",
                       bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5})


def _chunks(panel: Any, y: int, row: Row, shaped: Shaped, norm: Any, width: float, notes: captions.Notes) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    for begin, end, inside, start, wide in row.spans:
        if inside and end > begin:
            panel.add_patch(Rectangle((start, y - 0.36), wide, 0.72, fill=False, edgecolor="black", linewidth=0.7))
    offsets = shaped.chunk_offsets
    ends = np.asarray(shaped.chunk_ends[int(offsets[row.number]) : int(offsets[row.number + 1])], dtype=np.int64)
    if len(ends) > MOST_MARKS or row.width < NARROWEST * width * len(ends):
        return
    begin = 0
    for end in ends.tolist():
        pieces = [(max(b, begin), min(e, end)) for b, e, s, _, _ in row.spans if s and b < end and e > begin]
        for b, e in pieces:
            value = float(shaped.advantages[row.tokens][b])
            if e - b > width * 0.045:
                shade = colormaps[COLOURS](norm(value))
                dark = 0.299 * shade[0] + 0.587 * shade[1] + 0.114 * shade[2] < 0.5
                panel.text(row.left(b) + (e - b) / 2, y, f"{value:+.2f}", ha="center", va="center", fontsize=8, color="white" if dark else "black")
        if pieces and end < len(row.scope) and row.scope[end - 1] and row.scope[end]:
            moves = notes.moves is None or bool(notes.moves[row.tokens][end])
            panel.plot([row.left(end)] * 2, [y - 0.36, y + 0.36], color="black", linewidth=1.1 if moves else 0.8,
                       linestyle="-" if moves else (0, (1, 2)), solid_capstyle="butt", gid="edge" if moves else "still")
        begin = end


def _caption(axes: Any, said: list[str], width: float, widest: int, scope_whole: bool) -> None:
    """How many tokens a length is (spans out of scope are squeezed, so an axis with numbers would mislead), and the notes."""
    tokens = 10 ** int(np.log10(max(widest / 5, 1)))
    tokens *= max(step for step in (1, 2, 5) if step * tokens <= max(widest / 5, 1))
    _bare(axes, width)
    axes.set_yticks([])
    axes.set_ylim(0.32 + 0.205 * len(said), 0)
    axes.plot([0, tokens], [0.12] * 2, color="black", linewidth=2, solid_capstyle="butt")
    axes.text(tokens + width * 0.008, 0.12, f"{tokens:,} token{'s' if tokens > 1 else ''}" + (
        "" if scope_whole else " in scope; spans out of scope are squeezed, their tokens written on them"), fontsize=9, va="center")
    # The caption begins at the figure's left edge, below the rows' labels.
    axes.annotate(plain("\n".join(said)), xy=(0.01, 0), xycoords=("figure fraction", "axes fraction"), fontsize=9, va="bottom", linespacing=1.5, in_layout=False)


def _legend(figure: Any, panels: list[Any], notes: captions.Notes) -> None:
    """What is there to be explained, and no more."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    drawn = {one.get_gid() for panel in panels for one in (*panel.lines, *panel.patches)}
    shown: list[Any] = []
    if "edge" in drawn:
        shown.append(Line2D([], [], color="black", linewidth=1.1, label="chunk edge" if notes.moves is None else "chunk edge: the signal moves"))
    if "still" in drawn:
        shown.append(Line2D([], [], color="black", linewidth=0.8, linestyle=(0, (1, 2)), label="it does not" if "edge" in drawn else "chunk edge: the signal does not move"))
    if "out" in drawn:
        shown.append(Patch(facecolor="#e4e4e4", edgecolor="#9a9a9a", hatch="//////", linewidth=0, label="out of scope"))
    if "flipped" in drawn:
        shown.append(Line2D([], [], color="black", marker="x", linestyle="none", markersize=5, markeredgewidth=1.4, label="sign shifted (①)"))
    if shown:
        figure.legend(handles=shown, loc="upper right", ncols=len(shown), frameon=False, fontsize=9, borderaxespad=0.1, columnspacing=1.4)
