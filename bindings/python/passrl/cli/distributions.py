"""The picture of a batch: what the advantages are made of, and where in the rollouts they lie."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..groups import group_index
from ..results import GroupFlag, Shaped
from .picture import plain
from .rollouts import Rollouts
from .terms import Terms

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
POSITIONS = 20
# Remaining chunks have a bin each up to here; from here on bins double.
SINGLE_BINS = 12
COLOURS = {"process": "#3b6fb6", "outcome": "#c8622d", "format": "#4a9a63"}
LEGEND: dict[str, Any] = {"fontsize": 9.5, "loc": "best", "framealpha": 0.8, "edgecolor": "none"}
OTHERS = ("#8a5aa8", "#b58a1b", "#5b8f9c", "#a34a6b", "#6b6b6b")


@dataclass
class Bands:
    """Quantiles of a value in bins: names of the bins, `[len(QUANTILES), bins]` f64 (NaN in an empty bin), tokens a bin."""

    bins: list[str]
    values: NDArray[np.float64]
    tokens: NDArray[np.int64]


@dataclass
class Batch:
    """What the picture and the page show of a batch; per token in scope unless it says otherwise.

    share: a stream's part of the sum of |terms|. spread: a stream's quantiles (QUANTILES). position, residual: advantages by place in
    the rollout and by chunks that remain (K - j + 1). undivided: G by chunks that remain. groups: count by condition, the first is all.
    """

    share: dict[str, float]
    spread: dict[str, list[float]]
    position: Bands
    residual: Bands
    undivided: Bands
    groups: dict[str, int]


def _bands(values: NDArray[np.float64], bins: NDArray[np.int64], names: list[str]) -> Bands:
    order = np.argsort(bins, kind="stable")
    cuts = np.searchsorted(bins[order], np.arange(len(names) + 1))
    sorted_values = values[order]
    found = np.full((len(QUANTILES), len(names)), np.nan)
    for i, (begin, end) in enumerate(zip(cuts, cuts[1:])):
        if end > begin:
            found[:, i] = np.quantile(sorted_values[begin:end], QUANTILES)
    return Bands(names, found, np.diff(cuts))


def remaining_bins(most: int) -> list[tuple[int, int]]:
    """Bins of the number of chunks that remain, first and last: 1, 2, ... 12, 13-24, 25-48, ..."""
    bins = [(n, n) for n in range(1, min(most, SINGLE_BINS) + 1)]
    while bins and bins[-1][1] < most:
        bins.append((bins[-1][1] + 1, bins[-1][1] * 2))
    return bins


def measure(rollouts: Rollouts, shaped: Shaped, terms: Terms) -> Batch:
    """The numbers of the picture."""
    inside = terms.chunk >= 0
    chunk = terms.chunk[inside]
    a, g = terms.advantages[inside], terms.returns[inside]
    weights = np.abs(terms.parts[:, chunk]).sum(axis=1)
    share = {name: float(weight / (weights.sum() or 1.0)) for name, weight in zip(terms.names, weights)}
    spread = {name: np.quantile(part[chunk], QUANTILES).tolist() if len(chunk) else [0.0] * len(QUANTILES) for name, part in zip(terms.names, terms.parts)}
    # Place of a token among its rollout's tokens in scope.
    rollout = np.repeat(np.arange(len(rollouts)), np.diff(rollouts.cu_seqlens))[inside]
    counts = np.bincount(rollout, minlength=len(rollouts))
    at = np.arange(len(rollout)) - np.concatenate([[0], np.cumsum(counts)[:-1]])[rollout]
    place = (at * POSITIONS // counts[rollout]).astype(np.int64) if len(at) else at
    bins = remaining_bins(int(terms.residual.max(initial=0)))
    left = np.searchsorted([last for _, last in bins], terms.residual[chunk])
    names = [str(first) if first == last else f"{first}–{last}" for first, last in bins]
    return Batch(
        share, spread, _bands(a, place, [f"{100 * (i + 0.5) / POSITIONS:g}%" for i in range(POSITIONS)]),
        _bands(a, left, names), _bands(g, left, names), _groups(rollouts, shaped))


def _groups(rollouts: Rollouts, shaped: Shaped) -> dict[str, int]:
    """Groups that teach nothing (every advantage 0), and why a group may."""
    index, keys = group_index(rollouts.group)
    dead = dead_groups(rollouts, shaped)
    flags = np.asarray(shaped.group_flags)
    found = {"all groups": len(keys), "every advantage 0": int(dead.sum())}
    stats = shaped.stats
    for name in stats or ():
        column = shaped.stream_names.index(name)
        found[f"{name.replace('process_0', 'process')} all equal"] = int(np.count_nonzero(flags[:, column] & (GroupFlag.ZERO_VARIANCE | GroupFlag.SINGLE)))
    if rollouts.format_ok is not None:
        found["format all wrong"] = int(np.count_nonzero(np.bitwise_or.reduce(flags, axis=1) & GroupFlag.ALL_VIOLATING))
    found["with findings (bad)"] = int(np.count_nonzero(np.bitwise_or.reduce(flags, axis=1) & GroupFlag.BAD))
    return found


def dead_groups(rollouts: Rollouts, shaped: Shaped) -> NDArray[np.bool_]:
    """Groups, `[G]`, in which every advantage is 0."""
    index, keys = group_index(rollouts.group)
    alive = np.zeros(len(keys), dtype=np.bool_)
    tokens = np.repeat(index, np.diff(rollouts.cu_seqlens))
    alive[tokens[np.asarray(shaped.advantages) != 0]] = True
    return ~alive


def plot(path: Path, rollouts: Rollouts, name: str, shaped: Shaped, terms: Terms) -> None:
    """Writes the picture, 1600 pixels wide as a png."""
    from matplotlib import pyplot

    figure = draw(rollouts, name, shaped, terms)
    figure.savefig(path, dpi=100, metadata={"Software": None} if path.suffix == ".png" else None)
    pyplot.close(figure)


def draw(rollouts: Rollouts, name: str, shaped: Shaped, terms: Terms) -> Any:
    """`plot` without the file: the matplotlib figure of six axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    batch = measure(rollouts, shaped, terms)
    figure, axes = pyplot.subplots(2, 3, figsize=(16, 9.4), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    tokens = int((terms.chunk >= 0).sum())
    said = ", ".join((counted(batch.groups["all groups"], "group"), counted(len(rollouts), "rollout"), counted(tokens, "token")))
    figure.suptitle(plain(f"{name}: {said} in scope"), fontsize=15, x=0.012, ha="left")
    _streams(axes[0, 0], batch, terms)
    _place(axes[0, 1], batch)
    _remaining(axes[0, 2], batch)
    _advantages(axes[1, 0], rollouts, terms)
    _bars(axes[1, 1], batch)
    _scores(axes[1, 2], rollouts, shaped, terms)
    if tokens == 0:
        for one in axes.flat[:4]:
            one.set_ylim(-1, 1)
            one.text(0.5, 0.5, "no token in scope", transform=one.transAxes, ha="center")
    for one in axes.flat:
        one.spines[["top", "right"]].set_visible(False)
        one.title.set_fontsize(12.5)
    return figure


def counted(number: int, what: str) -> str:
    """1 group, 2 groups."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def colour(name: str, place: int) -> str:
    """A stream's colour."""
    return COLOURS.get(name, OTHERS[place % len(OTHERS)])


def _streams(axes: Any, batch: Batch, terms: Terms) -> None:
    axes.set_title("What F is made of: the streams' terms", loc="left")
    for y, (name, (low, lower, middle, upper, high)) in enumerate(batch.spread.items()):
        shade = colour(name, y)
        axes.plot([low, high], [y, y], color=shade, linewidth=1.6, solid_capstyle="butt")
        axes.barh(y, upper - lower, left=lower, height=0.34, color=shade, alpha=0.45)
        axes.plot([middle], [y], marker="|", markersize=17, markeredgewidth=2.4, color=shade)
        axes.text(0.0, y - 0.3, f"{name}: {100 * batch.share[name]:.0f}% of all |terms|", transform=axes.get_yaxis_transform(), fontsize=10.5, color=shade)
    axes.axvline(0, color="#999999", linewidth=0.8, zorder=0)
    axes.set_ylim(len(batch.spread) - 0.5, -0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("term of F (mark median, box 25–75%, line 5–95%)")


def _band(axes: Any, bands: Bands, x: NDArray[Any], shade: str) -> None:
    low, lower, middle, upper, high = bands.values
    axes.fill_between(x, low, high, color=shade, alpha=0.16, linewidth=0, label="5–95% of tokens")
    axes.fill_between(x, lower, upper, color=shade, alpha=0.34, linewidth=0, label="25–75%")
    axes.plot(x, middle, color=shade, linewidth=2, label="median")
    axes.axhline(0, color="#999999", linewidth=0.8, zorder=0)


def _place(axes: Any, batch: Batch) -> None:
    axes.set_title("Advantage by place in the rollout", loc="left")
    _band(axes, batch.position, (np.arange(POSITIONS) + 0.5) * 100 / POSITIONS, "#33658a")
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of the rollout's tokens in scope")
    axes.set_ylabel("A")
    axes.legend(**LEGEND)


def _remaining(axes: Any, batch: Batch) -> None:
    axes.set_title("Advantage by chunks that remain, K − j + 1", loc="left")
    x = np.arange(len(batch.residual.bins))
    _band(axes, batch.residual, x, "#33658a")
    for i, quantile in enumerate((0, -1)):
        axes.plot(x, batch.undivided.values[quantile], color="#b23a48", linewidth=1.3, linestyle="--", label=None if i else "G, not divided: 5–95%")
    largest, widest = (float(np.nanmax(np.abs(bands.values), initial=0.0)) for bands in (batch.residual, batch.undivided))
    if 0 < 8 * largest < widest:
        axes.set_yscale("symlog", linthresh=largest, linscale=2)
    axes.set_xticks(x, batch.residual.bins, rotation=0 if len(x) <= SINGLE_BINS else 60)
    axes.invert_xaxis()
    axes.set_xlabel("chunks from this one to the last (1: the last chunk)")
    axes.set_ylabel("A")
    axes.legend(**LEGEND)


def _parts(rollouts: Rollouts) -> list[tuple[str, NDArray[np.bool_], str]]:
    """Rollouts of wrong format, of low and of high outcome: name, which `[R]`, colour."""
    wrong = np.zeros(len(rollouts), np.bool_) if rollouts.format_ok is None else ~rollouts.format_ok
    parts = [("format wrong", wrong, "#b00020")]
    if rollouts.outcome is None:
        return parts + [("all others", ~wrong, "#33658a")]
    values = np.unique(rollouts.outcome[~np.isnan(rollouts.outcome)])
    # Of many outcomes the mean parts better from worse.
    middle = float(np.nanmean(rollouts.outcome)) if len(values) else 0.0
    names = [f"outcome {value:g}" for value in values] if len(values) == 2 else [f"outcome ≤ mean {middle:.2g}", f"outcome > mean {middle:.2g}"]
    above = rollouts.outcome > middle
    return parts + [(names[0], ~wrong & ~above, "#e08a2e"), (names[1], ~wrong & above, "#33658a")]


def _advantages(axes: Any, rollouts: Rollouts, terms: Terms) -> None:
    axes.set_title("Advantages of all tokens in scope", loc="left")
    inside = terms.chunk >= 0
    rollout = np.repeat(np.arange(len(rollouts)), np.diff(rollouts.cu_seqlens))[inside]
    a = terms.advantages[inside]
    parts = [(name, which[rollout], shade) for name, which, shade in _parts(rollouts) if which[rollout].any()]
    if parts:
        axes.hist([a[which] for _, which, _ in parts], bins=50, stacked=True, color=[shade for *_, shade in parts], label=[name for name, *_ in parts])
        axes.legend(**LEGEND)
    axes.axvline(0, color="#999999", linewidth=0.8, zorder=0)
    axes.set_xlabel("A")
    axes.set_ylabel("tokens")


def _bars(axes: Any, batch: Batch) -> None:
    axes.set_title("Groups that teach nothing, and why", loc="left")
    names, counts = list(batch.groups), list(batch.groups.values())
    shades = ["#c9c9c9", "#b00020"] + ["#7f8c99"] * (len(names) - 2)
    axes.barh(range(len(names)), counts, color=shades, height=0.62)
    for y, count in enumerate(counts):
        axes.text(count + counts[0] * 0.012, y, f"{count:,}", va="center", fontsize=10)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("groups")


def _scores(axes: Any, rollouts: Rollouts, shaped: Shaped, terms: Terms) -> None:
    axes.set_title("Length against path score", loc="left")
    lengths = np.add.reduceat((terms.chunk >= 0).astype(np.int64), np.minimum(rollouts.cu_seqlens[:-1], max(len(terms.chunk) - 1, 0))) \
        if len(terms.chunk) else np.zeros(len(rollouts), np.int64)
    lengths[np.diff(rollouts.cu_seqlens) == 0] = 0
    scores = np.asarray(shaped.path_scores)
    for name, which, shade in _parts(rollouts):
        if which.any():
            cross = name == "format wrong"
            axes.scatter(lengths[which], scores[which], color=shade, marker="x" if cross else "o", s=26 if cross else 22, alpha=1 if cross else 0.7,
                         linewidths=1.3 if cross else 0, label=name)
    axes.legend(**LEGEND)
    if len(lengths) and lengths.max() > 30 * max(int(np.median(lengths)), 1):
        axes.set_xscale("symlog", linthresh=10)
    axes.axhline(0, color="#999999", linewidth=0.8, zorder=0)
    axes.set_xlabel("tokens in scope")
    axes.set_ylabel("path score S")
