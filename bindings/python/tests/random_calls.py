"""Calls of `passrl.shape` that nobody thought of: any preset with some of its fields changed, any of its inputs, in any layout, type, mask and form of groups."""

from __future__ import annotations

from typing import Any

import numpy as np

import passrl
from passrl.config import CHOICES, STREAM_CHOICES

PRESETS = list(passrl.presets())
NUMBERS = {"gamma": [1, 0.99, 0.9, 0], "k": [0, 0.5, 1, 0.7], "temperature": [1, 2], "clip": [float("inf"), 0.5], "eta": [1e-8, 0.3], "lam": [1, 0.95]}


class Draw:
    """One call's random choices."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.levels = self.random.choice([-1, -0.5, 0, 0.25, 1], 5)

    def chance(self, share: float) -> bool:
        return bool(self.random.random() < share)

    def one(self, of: Any) -> Any:
        return of[int(self.random.integers(len(of)))]

    def lengths(self) -> tuple[np.ndarray, bool]:
        """Of rollouts, with a long one at least; and whether nearly all are so short that longer ones are in parts on a device."""
        random, parts = self.random, self.chance(0.1)
        if parts:
            lengths = random.integers(0, self.one([3, 30]), self.one([120, 240, 500]))
            for _ in range(int(random.integers(1, 5))):
                lengths[random.integers(len(lengths))] = random.integers(900, 7000)
            return lengths, True
        most, rollouts = self.one([3, 20, 90, 300, 300, 1300]), int(random.integers(1, 6)) * 4
        lengths = random.integers(0, most + 1, rollouts) if self.chance(0.7) else np.full(rollouts, most)
        lengths[random.integers(rollouts)] = most
        return lengths, False


def layout(draw: Draw, lengths: np.ndarray, packed: bool) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Where tokens lie, which are masked and which rollouts are a group; and the shape of token arrays."""
    random, rollouts = draw.random, len(lengths)
    shape: tuple[int, ...] = (int(lengths.sum()),)
    integer = draw.one([np.int32, np.int64])
    given: dict[str, Any] = {}
    if packed or draw.chance(0.6):
        given["cu_seqlens"] = np.concatenate([[0], np.cumsum(lengths)]).astype(integer)
    else:
        shape = (rollouts, int(lengths.max()))
        given |= {"lengths": lengths.astype(integer), "pad_side": draw.one(["right", "left"])}
    groups = int(random.integers(4))
    if groups == 0:
        given["group_size"] = 4
    elif groups == 1:
        given["group_offsets"] = np.concatenate([[0], np.sort(random.integers(0, rollouts + 1, 2)), [rollouts]]).astype(np.int32)
    else:
        given["groups"] = random.permutation(np.repeat(np.arange(rollouts // 4), 4)) if groups == 2 else random.integers(0, 3, rollouts)
    mask = int(random.integers(8))
    if mask < 4:
        given["mask"] = (random.random(shape) < [0.9, 0.9, 0.5, 1][mask]).astype([bool, np.int64, np.float32, np.int32][mask])
    if draw.chance(0.2):
        given["in_stats"] = random.random(rollouts) < 0.8
    if draw.chance(0.1):
        given["absent"] = random.random(rollouts) < 0.2
    return given, shape


def inputs(draw: Draw, config: passrl.Config, lengths: np.ndarray, shape: tuple[int, ...]) -> dict[str, Any]:
    """What the configuration asks for, and now and then more."""
    random, rollouts, chance = draw.random, len(lengths), draw.chance
    kind = draw.one([np.float32, np.float32, np.float16])

    def tokens() -> np.ndarray:
        if chance(0.5):
            return random.standard_normal(shape).astype(kind)
        width, count = int(random.integers(1, 40)), int(np.prod(shape))
        return np.repeat(random.choice(draw.levels, count // width + 1), width)[:count].reshape(shape).astype(kind)

    def numbers() -> np.ndarray:
        return (random.choice([0, 1, -1, 0.5], rollouts) if chance(0.7) else random.standard_normal(rollouts)).astype(np.float32)

    def logps() -> np.ndarray:
        return -abs(tokens())

    most = 9 if chance(0.7) else 1500
    ends = [sorted(set(random.integers(1, n + 1, int(random.integers(1, most))).tolist())) if n else [] for n in lengths]
    offsets, flat = np.cumsum([0, *map(len, ends)]), np.array([end for of in ends for end in of], np.int32)
    scores = random.choice(draw.levels, len(flat)).astype(np.float32)
    given: dict[str, Any] = {}
    if chance(0.85):
        given["outcome"] = numbers()
    if chance(0.25):
        given["format"] = random.choice([0, 1], rollouts).astype(np.float32)
    if chance(0.15):
        given["format_ok"] = random.random(rollouts) < 0.7
    if config.kind != "none":
        kl = config.kind == "kl" or chance(0.15)
        form = 3 if kl else int(random.integers(4))
        if kl:
            given["kind"] = "kl"
        if form in (0, 2) or (form == 3 and chance(0.6)):
            given["signal"] = tokens()
        elif form == 3:
            given |= {"logp_policy": logps(), "logp_teacher": logps()}
        if form in (1, 2):
            given["steps"] = passrl.Steps(offsets, flat, scores) if form == 1 else passrl.Steps(offsets, flat)
    elif chance(0.15):
        given["steps"] = passrl.Steps(offsets, flat)
    values = config.credit in ("gae", "vtrace")
    if values or chance(0.05):
        given["values"] = tokens()
    if chance(0.6 if values else 0.05):
        given["token_rewards"] = tokens()
    if values and chance(0.3):
        given["bootstrap"] = numbers()
    if values and chance(0.2):
        given["rollout_lam"] = random.random(rollouts).astype(np.float32)
    if config.kl_in_reward != "none" or chance(0.05):
        given |= {"logp_policy": given.get("logp_policy", logps()), "logp_reference": logps()}
    if config.credit == "vtrace" or chance(0.03):
        given |= {"logp_policy": given.get("logp_policy", logps()), "logp_behavior": logps()}
    if config.token_baseline != "none" or chance(0.03):
        given["sum_pi_squared"] = abs(tokens())
    if config.streams["outcome"].center == "given":
        given["baselines"] = numbers()
    for name in ("outcome", "signal"):
        if name in given and given[name].size and chance(0.04):
            given[name].reshape(-1)[random.integers(given[name].size)] = draw.one([np.nan, np.inf])
    return given


def settings(draw: Draw) -> dict[str, Any]:
    """Fields that are not the preset's."""
    given: dict[str, Any] = {}
    for _ in range(int(draw.random.integers(4))):
        name = draw.one([*NUMBERS, *CHOICES])
        given[name] = draw.one(CHOICES[name]) if name in CHOICES else float(draw.one(NUMBERS[name]))
    for _ in range(int(draw.random.integers(3))):
        row, name = draw.one(["outcome", "process_0", "format"]), draw.one([*STREAM_CHOICES, "weight", "ddof"])
        given[f"{row}.{name}"] = draw.one(STREAM_CHOICES[name]) if name in STREAM_CHOICES else draw.one([0.5, 1.0, 2.0] if name == "weight" else [0, 1])
    if draw.chance(0.3):
        given["dtype"] = draw.one(["float16", "float32", "bfloat16"])
    if draw.chance(0.2):
        given["returns"] = True
    return given


# Fields that few set; and of rows.
RARE: dict[str, list[Any]] = {
    "merge_equal_steps": [True], "bridge_scope_gaps": [True], "lam_returns": [1, 0.5], "lam_length_alpha": [0.05, 1], "rho_clip": [0.9, float("inf")], "c_clip": [0.9, 2],
    "kl_coef": [0.1, 1], "kl_log_ratio_clamp": [0.5], "kl_clamp": [0.5], "step_gamma": [0.9, 0.5], "opd_lambda": [1, 2], "whiten_ddof": [0], "whiten_epsilon": [0.1],
    "whiten_shift": [False], "k": [8, 1.3],
}
RARE_ROWS: dict[str, list[Any]] = {
    "epsilon": [0, 0.1], "clip_value": [0.4], "clip_standardized": [0.7], "singleton": ["passthrough", "refuse"], "missing": ["exclude", "zero"], "weight": [0, -1, 0.3],
}


def rarely(draw: Draw, given: dict[str, Any], lengths: np.ndarray, shape: tuple[int, ...]) -> None:
    """Adds to a call what few give: further streams and signals, steps with begins, keys or two rows of scores, marks, given statistics, rare fields."""
    random, chance, one, rollouts = draw.random, draw.chance, draw.one, len(lengths)
    rows = ["outcome", "process_0", "format"]
    if chance(0.3):
        extras: dict[str, Any] = {}
        for name in ("one", "two", "three", "four")[: int(random.integers(1, 5))]:
            values = random.choice([0, 1, -1, 0.5], rollouts).astype(np.float32)
            values[random.random(rollouts) < one([0, 0, 0.3])] = np.nan
            rows.append(f"extra_{len(extras)}")
            extras[name] = (values, float(one([1, 0.5, 2]))) if chance(0.5) else values
        given["streams"] = extras
    if "signal" in given and chance(0.2):
        given["signal"] = [given["signal"], *(np.roll(given["signal"], n, -1).copy() for n in range(int(random.integers(1, 4))))]
        rows.append("process_1")
    steps = given.get("steps")
    if steps is not None and chance(0.3):
        offsets, ends, scores, begins, keys = vars(steps).values()
        if scores is not None and chance(0.5):
            scores = np.stack([scores, np.roll(scores, 1)])
            rows.append("process_1")
        if chance(0.5):
            begins = np.concatenate([[0], ends])[: len(ends)]
            begins[offsets[:-1][offsets[:-1] < len(ends)]] = 0
            begins = (begins + np.minimum(random.integers(0, 3, len(ends)), ends - begins - 1)).astype(ends.dtype)
        if chance(0.5):
            keys, given["step_sets"] = random.integers(0, 4, len(ends)).astype(np.int32), "step_group"
        given["steps"] = passrl.Steps(offsets, ends, scores, begins, keys)
    if steps is None and chance(0.08):
        given["step_marks"] = (random.random(shape) < 0.05).astype(one([bool, np.int32, np.uint8]))
    if chance(0.08):
        given["chunk_ends"] = random.random(shape) < 0.1
    if "logp_teacher" in given and chance(0.4):
        given["logp_base"] = -abs(random.standard_normal(shape).astype(given["logp_teacher"].dtype))
    if "sum_pi_squared" in given and chance(0.5):
        given["token_ratio"] = abs(random.standard_normal(shape)).astype(np.float32)
    for _ in range(int(random.integers(3))):
        name = one(list(RARE))
        given[name] = one(RARE[name])
    for _ in range(int(random.integers(3))):
        name = one(list(RARE_ROWS))
        given[f"{one([row for row in rows if 'clip' not in name or 'process' not in row])}.{name}"] = one(RARE_ROWS[name])
    for part, name, statistics in (("center", "stats_mean", {"outcome": 0.4, "process_0": 0.1}), ("scale", "stats_std", {"outcome": 0.4, "process_0": 2.0})):
        if chance(0.06):
            given[one(["outcome", "process_0"]) + "." + part], given[name] = "given", statistics


def random_call(seed: int) -> tuple[str, dict[str, Any]]:
    """A preset and arguments of `passrl.shape`, the same for a seed. About a third are refused."""
    draw = Draw(seed)
    preset = draw.one(PRESETS) if draw.chance(0.6) else "pass"
    lengths, packed = draw.lengths()
    given, shape = layout(draw, lengths, packed)
    given = given | inputs(draw, passrl.Config(preset), lengths, shape) | settings(draw)
    if draw.chance(0.5):
        rarely(draw, given, lengths, shape)
    return preset, given


def random_primitives(seed: int) -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    """Arguments of every primitive by its name."""
    draw = Draw(seed)
    random, one, chance = draw.random, draw.one, draw.chance
    lengths, packed = draw.lengths()
    where, shape = layout(draw, lengths, packed)
    rollouts, kind = len(lengths), one([np.float32, np.float64, np.float16])
    tokens = {name: where[name] for name in ("cu_seqlens", "lengths", "pad_side", "mask", "absent") if name in where}
    groups = {name: where[name] for name in ("groups", "group_size", "group_offsets", "in_stats", "absent") if name in where}
    typed = {"dtype": one(["float16", "float32", "bfloat16"])} if chance(0.3) else {}

    def noise() -> np.ndarray:
        found = random.standard_normal(shape).astype(kind)
        if chance(0.05) and found.size:
            found.reshape(-1)[random.integers(found.size)] = np.nan
        return found

    def logps() -> np.ndarray:
        return -abs(noise())

    runs = np.resize(np.repeat(random.choice(draw.levels, shape[-1]), random.integers(1, 9, shape[-1])), shape)
    steps = {"eta": one([1e-8, 0.3]), "boundary_rule": one(["adjacent", "anchored"]), "bridge_scope_gaps": chance(0.5)}
    bootstrap = {"bootstrap": random.standard_normal(rollouts).astype(np.float32)} if chance(0.5) else {}
    shifted = {"ddof": one([0, 1]), "shift": chance(0.5), "epsilon_mode": one(["add_std", "add_var", "floor_std", "floor_var"])}
    standard = {"center": one(["group", "leave_one_out", "none"]), "scale": one(["group", "leave_one_out", "abs_max", "none"]), "ddof": one([0, 1])}
    return {
        "chunk": ((one([noise(), runs]).astype(np.float32),), tokens | steps),
        "discounted_returns": ((noise(), one([1, 0.99, 0.5, 0])), tokens | typed),
        "gae": ((noise(), noise(), one([1, 0.99, 0]), one([1, 0.95])), tokens | typed | bootstrap),
        "divide_length": ((noise(), one([0, 0.5, 0.7, 1])), tokens | typed),
        "whiten": ((noise(),), tokens | typed | shifted),
        "opd_signal": ((logps(), logps(), one([None, logps()])), tokens | typed),
        "kl_in_reward": ((logps(), logps(), one([None, noise()])), tokens | typed | {"kind": one(["k1", "k2", "k3", "abs"]), "coef": 0.3}),
        "group_standardize": ((random.standard_normal(rollouts).astype(kind),), groups | typed | standard | {"stats": True}),
        "group_flags": ((random.choice([0, 1], rollouts).astype(np.float32),), groups),
    }
