"""Length under a positively biased step signal, on a tabular policy: the paper's cumulative trap (arXiv 2606.29296, Theorem 1) in seconds.

A rollout is a row of steps, a token each; after every step the policy stops or goes on, with a logit a position. A step's score is a positive bias
with noise, whatever the policy does: there is nothing to learn, and no reason for another length. The return-to-go (k = 0) is larger where
more steps follow, so going on is rewarded; divided by the number of remaining steps (k = 1) it is their mean, and is not. The operator `abs_max` keeps
the bias; `mean_std` centres the scores of a group, so that the bias is gone before credit is given.

    python theorem1.py                prints the table, writes target/train-demo/theorem1.png
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import passrl

KS = (0.0, 0.7, 1.0)
OPERATORS = ("abs_max", "mean_std")
MOST_STEPS = 40
ROLLOUTS, GROUP = 128, 8


def lengths(k: float, operator: str, *, updates: int, seed: int, bias: float = 0.5, noise: float = 0.5, rate: float = 0.5) -> NDArray[np.float64]:
    """Mean length of the rollouts of each update, `[updates]`. The policy begins with a chance of 0.1 to stop after each step."""
    random = np.random.default_rng(seed)
    stop = np.full(MOST_STEPS, np.log(0.1 / 0.9))
    plan = passrl.Plan("pass", k=k, standardize_process=operator, chunk="step", rollouts=ROLLOUTS, groups=ROLLOUTS // GROUP, tokens=ROLLOUTS * MOST_STEPS)
    found = np.zeros(updates)
    for update in range(updates):
        chance = 1 / (1 + np.exp(-stop))
        stops = random.random((ROLLOUTS, MOST_STEPS)) < chance
        stops[:, -1] = True
        counts = stops.argmax(1) + 1
        found[update] = counts.mean()
        offsets = np.concatenate([[0], np.cumsum(counts)])
        ends = np.concatenate([np.arange(1, count + 1) for count in counts])
        scores = bias + noise * random.standard_normal(offsets[-1])
        shaped = plan.run(steps=passrl.Steps(offsets, ends, scores), cu_seqlens=offsets, group_size=GROUP)
        # REINFORCE on the decision after each step; the last position has none.
        position, stopped = ends - 1, np.zeros(len(ends))
        stopped[offsets[1:] - 1] = 1
        free = position < MOST_STEPS - 1
        gradient = np.bincount(position[free], weights=(shaped.advantages * (stopped - chance[position]))[free], minlength=MOST_STEPS) / ROLLOUTS
        stop += rate * gradient
    return found


def curves(updates: int, seeds: int) -> dict[tuple[str, float], NDArray[np.float64]]:
    """Lengths `[seeds, updates]` for every operator and k."""
    return {(operator, k): np.stack([lengths(k, operator, updates=updates, seed=seed) for seed in range(seeds)]) for operator in OPERATORS for k in KS}


def table(found: dict[tuple[str, float], NDArray[np.float64]]) -> str:
    """Mean length at the beginning and the end, with the range over seeds."""
    rows = [f"{'operator':<10} {'k':>4}  {'first':>6}  {'last':>6}  range over seeds"]
    for (operator, k), runs in found.items():
        last = runs[:, -10:].mean(1)
        rows.append(f"{operator:<10} {k:>4}  {runs[:, :3].mean():>6.1f}  {last.mean():>6.1f}  {last.min():.1f} to {last.max():.1f}")
    return "\n".join(rows)


def draw(found: dict[tuple[str, float], NDArray[np.float64]], path: Path) -> None:
    """Length over updates, a panel an operator."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(OPERATORS), figsize=(10, 3.8), sharey=True, layout="constrained")
    for axis, operator in zip(axes, OPERATORS):
        for k, colour in zip(KS, ("#c0392b", "#2471a3", "#1e8449")):
            runs = found[operator, k]
            axis.plot(runs.mean(0), color=colour, label=f"k = {k:g}")
            axis.fill_between(range(runs.shape[1]), runs.min(0), runs.max(0), color=colour, alpha=0.15, linewidth=0)
        axis.axhline(MOST_STEPS, color="grey", linewidth=0.8, linestyle=":")
        axis.set(title=f"standardize_process = {operator}", xlabel="update", ylim=(0, MOST_STEPS + 2))
        axis.grid(alpha=0.2)
    axes[0].set_ylabel("steps in a rollout")
    axes[0].legend(frameon=False)
    seeds = len(next(iter(found.values())))
    figure.suptitle(f"Scores of 0.5 with noise whatever the policy does: mean and range of {seeds} seed{'s' * (seeds != 1)}", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="length under a biased step signal, on a tabular policy")
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("target/train-demo"))
    chosen = parser.parse_args()
    found = curves(chosen.updates, chosen.seeds)
    print(table(found))
    draw(found, chosen.out / "theorem1.png")
    print(f"picture: {chosen.out / 'theorem1.png'}")


if __name__ == "__main__":
    main()
