"""What the runs of `train.py` came to: a table and a picture. It says what happened here and nothing else."""
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLOURS = ("#c0392b", "#2471a3", "#1e8449")
# Updates at the end that the table averages.
LAST = 10
Runs = dict[str, list[dict[str, NDArray[np.float64]]]]


def read(path: Path) -> dict[str, NDArray[np.float64]]:
    """Columns of a run; NaN where an update has no such number."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: np.array([row.get(key, np.nan) for row in rows], dtype=np.float64) for key in keys}


def load(out: Path, presets: Sequence[str], seeds: int, updates: int) -> Runs:
    """Runs by preset, a seed each, cut to the updates asked for."""
    return {preset: [{key: column[:updates] for key, column in read(out / f"{preset}-{seed}.jsonl").items()} for seed in range(seeds)] for preset in presets}


def _end(run: dict[str, NDArray[np.float64]], key: str) -> float:
    return float(np.nanmean(run[key][-LAST:]))


def line(path: Path, name: str) -> str:
    """One run in a line."""
    run = read(path)
    first = {key: float(np.nanmean(run[key][:LAST])) for key in ("outcome", "format", "length")}
    return f"{name}: " + ", ".join(f"{word} {first[key]:.2f} -> {_end(run, key):.2f}" for word, key in (("right", "outcome"), ("tidy", "format"), ("tokens", "length")))


def _over_seeds(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def table(runs: Runs) -> str:
    """Means of the last updates over seeds with their range; and how far the presets' advantages are apart."""
    rows = [f"{'preset':<14} {'right':>24} {'right, held out':>24} {'tidy':>24} {'good lines':>24} {'tokens':>26}   last {LAST} updates, mean (range) of seeds"]
    for preset, of in runs.items():
        cells = [_over_seeds([_end(run, key) for run in of]) for key in ("outcome", "held_out", "format", "good_lines")]
        tokens = [_end(run, "length") for run in of]
        rows.append(f"{preset:<14} " + " ".join(f"{cell:>24}" for cell in cells) + f" {np.mean(tokens):>9.1f} ({min(tokens):.1f} to {max(tokens):.1f})")
    first = next(iter(runs))
    everything = [run for of in runs.values() for run in of]
    rows.append("")
    rows.append(f"share of tokens whose advantage differs from {first}'s (mean over all updates of all runs); whose sign differs")
    for rival in list(runs)[1:]:
        shares = [np.mean([np.nanmean(run[f"{kind} {rival}"]) for run in everything]) for kind in ("differ", "sign")]
        rows.append(f"  {rival:<12} {shares[0]:.3f}  {shares[1]:.3f}")
    rows.append("share of tokens with advantage 0, in the preset's own runs")
    rows += [f"  {preset:<12} {np.mean([np.nanmean(run['zeros']) for run in of]):.3f}" for preset, of in runs.items()]
    return "\n".join(rows)


def _smooth(values: NDArray[np.float64], width: int = 5) -> NDArray[np.float64]:
    """Running mean over the updates so far, at most `width`."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(ends - width, 0)
    smoothed: NDArray[np.float64] = (total[ends] - total[begins]) / (ends - begins)
    return smoothed


def draw(runs: Runs, path: Path) -> None:
    """Reward, accuracy and length over updates: the mean of the seeds and their range."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [("reward", "outcome + format reward"), ("held_out", "right answers, held out"), ("good_lines", "share of lines graded +1"), ("length", "tokens in a rollout")]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(15, 3.8), layout="constrained")
    for axis, (key, title) in zip(axes, panels):
        for (preset, of), colour in zip(runs.items(), COLOURS):
            columns = [run["outcome"] + run["format"] if key == "reward" else run[key] for run in of]
            at = np.flatnonzero(~np.isnan(columns[0]))
            values = np.stack([column[at] if key == "held_out" else _smooth(column) for column in columns])
            axis.plot(at + 1, values.mean(0), color=colour, label=preset, marker="." if key == "held_out" else None)
            axis.fill_between(at + 1, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
        axis.set(title=title, xlabel="update")
        axis.grid(alpha=0.2)
    axes[0].legend(frameon=False)
    seeds = len(next(iter(runs.values())))
    figure.suptitle(f"TRL's GRPOTrainer, one small model, mean and range of {seeds} seed{'s' * (seeds != 1)}, running mean of 5 updates", fontsize=10)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
