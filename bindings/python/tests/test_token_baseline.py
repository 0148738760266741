"""Baselines a token (rule 66): the keywords, against NumPy matrices written as verl writes them."""
from __future__ import annotations

import numpy as np
import passrl
import pytest


def _batch(rng: np.random.Generator, rows: int, width: int) -> dict[str, np.ndarray]:
    mask = np.arange(width) < rng.integers(3, width + 1, size=(rows, 1))
    p = rng.uniform(0.05, 0.95, (rows, width))
    return {"mask": mask, "token_rewards": rng.normal(size=(rows, width)), "logp_policy": np.log(p),
            "sum_pi_squared": p * p + 0.5 * (1 - p) ** 2, "token_ratio": np.exp(0.3 * rng.normal(size=(rows, width)))}


@pytest.mark.parametrize("ratio", [False, True])
def test_position_against_matrices(ratio: bool) -> None:
    batch = _batch(np.random.default_rng(3), 6, 9)
    if not ratio:
        del batch["token_ratio"]
    mask, rho = batch["mask"], batch.get("token_ratio", 1.0)
    wanted = np.zeros(mask.shape)
    returns = np.flip(np.cumsum(np.flip(batch["token_rewards"].astype(np.float32) * mask, 1), axis=1, dtype=np.float64), 1)
    weights = np.cumsum((1 - 2 * np.exp(batch["logp_policy"]) + batch["sum_pi_squared"]) * rho**2 * mask, axis=1)
    for rows in (slice(0, 3), slice(3, 6)):
        g, w, m = returns[rows], weights[rows], mask[rows]
        baseline = np.tile((g * w * m).sum(0) / ((w * m).sum(0) + 1e-8), (3, 1))
        lengths = m.sum(1)
        second, most = np.sort(lengths)[-2:]
        if second < most:
            baseline[lengths.argmax(), second:] = 0
        wanted[rows] = (g - baseline) * m
    shaped = passrl.shape("verl.optimal_token_baseline", group_size=3, dtype="float64", **batch)
    np.testing.assert_allclose(shaped.advantages, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())
    # Without holes, positions are numbers of tokens in scope.
    same = passrl.shape("verl.tir_optimal_token_baseline", group_size=3, dtype="float64", **batch)
    np.testing.assert_array_equal(same.advantages, shaped.advantages)


def test_what_is_missing_is_named() -> None:
    batch = _batch(np.random.default_rng(4), 4, 5)
    del batch["sum_pi_squared"]
    with pytest.raises(passrl.Error, match="sum_pi_squared is NULL"):
        passrl.shape("verl.optimal_token_baseline", group_size=2, **batch)
    with pytest.raises(passrl.Error, match="sum_pi_squared is NULL"):
        passrl.shape("pass", token_baseline="position", chunk="token", k=0, kind="none", group_size=2, **batch)
    with pytest.raises(passrl.Error, match="set k = 0"):
        passrl.shape("pass", token_baseline="token", chunk="token", group_size=2, **batch)
