"""The primitives on tokens against plain f64 loops, in every layout and type, and against `passrl.shape` bit for bit."""
from __future__ import annotations

import inspect
import warnings
from typing import Any, Callable

import ml_dtypes
import numpy as np
import pytest

import passrl
import reference
from layouts import LAYOUTS, LENGTHS, SCOPES, Place, Rows, data, in_scope, out_of_scope

GAMMA, LAM, K = 0.97, 0.9, 0.7
BOOTSTRAP = [0.5, -1.0, 3.0, 0.25, 2.0, 1.0]
TYPES: list[Any] = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]


def loop(function: Callable[..., Any]) -> Callable[..., list[Rows]]:
    """A loop over one rollout's in-scope values, over all rollouts: a list of outputs, each rows at their tokens."""

    def over(*inputs: Rows) -> list[Rows]:
        found = [function(i, *row) for i, row in enumerate(zip(*map(in_scope, inputs)))]
        return [out_of_scope([one[part] for one in found]) for part in range(len(found[0]))]

    return over


class Case:
    """A primitive: inputs, call, loop."""

    def __init__(self, inputs: int, call: Callable[..., Any], plain: Callable[..., list[Rows]]) -> None:
        self.inputs, self._call, self.plain = inputs, call, plain

    def __call__(self, *arrays: Any, **options: Any) -> tuple[Any, ...]:
        found = self._call(*arrays, **options)
        return found if isinstance(found, tuple) else (found,)


CASES = {
    "discounted_returns": Case(1, lambda x, **o: passrl.discounted_returns(x, GAMMA, **o), loop(lambda i, x: [reference.returns_to_go(x, GAMMA)])),
    "gae": Case(2, lambda x, v, **o: passrl.gae(x, v, GAMMA, LAM, bootstrap=BOOTSTRAP, **o),
                loop(lambda i, x, v: reference.gae(x, v, GAMMA, LAM, BOOTSTRAP[i]))),
    "divide_length": Case(1, lambda x, **o: passrl.divide_length(x, K, **o), loop(lambda i, x: [reference.divided(x, K)])),
    "opd": Case(2, lambda p, t, **o: passrl.opd_signal(p, t, **o), loop(lambda i, p, t: [[reference.opd(*pt, None, 0) for pt in zip(p, t)]])),
    "g_opd": Case(3, lambda p, t, b, **o: passrl.opd_signal(p, t, b, 1.25, **o), loop(lambda i, p, t, b: [[reference.opd(*ptb, 1.25) for ptb in zip(p, t, b)]])),
    "kl_in_reward": Case(3, lambda p, r, x, **o: passrl.kl_in_reward(p, r, x, kind="k3", coef=0.1, clamp=1.5, **o),
                         loop(lambda i, p, r, x: [[reward - 0.1 * reference.k3(a - b, 1.5) for a, b, reward in zip(p, r, x)]])),
    "whiten": Case(1, lambda x, **o: passrl.whiten(x, **o), lambda x: [out_of_scope(reference.whitened(in_scope(x), [True] * len(LENGTHS)))]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CASES)
def test_loops(name: str, layout: str) -> None:
    case, place = CASES[name], Place(layout)
    rows = [data(seed) for seed in range(case.inputs)]
    found = case(*(place.put(row, np.float64) for row in rows), dtype="f64", **place.extent)
    wanted = case.plain(*rows)
    assert len(found) == len(wanted)
    for one, loops in zip(found, wanted):
        assert one.dtype == np.float64
        # Whitening's moments are exact, but its root is taken of sums rounded to f64 in another order than the loop's.
        for got, want in zip(place.take(one), loops):
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", ["packed", "left"])
@pytest.mark.parametrize("name", CASES)
def test_types_are_rounded_once(name: str, layout: str) -> None:
    case, place = CASES[name], Place(layout)
    rows = [data(seed + 10) for seed in range(case.inputs)]
    wide = case(*(place.put(row, np.float64) for row in rows), dtype="f64", **place.extent)
    for given in TYPES:
        arrays = [place.put(row, given) for row in rows]
        for one, want in zip(case(*arrays, **place.extent), wide):
            expected = np.float32 if "opd" in name or name == "kl_in_reward" else given
            assert one.dtype == np.dtype(expected)
            np.testing.assert_array_equal(one, want.astype(expected))
        for asked in TYPES:
            for one, want in zip(case(*arrays, dtype=asked, **place.extent), wide):
                assert one.dtype == np.dtype(asked)
                np.testing.assert_array_equal(one, want.astype(asked))


@pytest.mark.parametrize("name", CASES)
def test_out_strided_and_in_place(name: str) -> None:
    case, place = CASES[name], Place("right")
    arrays = [place.put(data(seed + 20), np.float32) for seed in range(case.inputs)]
    wanted = case(*arrays, dtype="f32", **place.extent)
    out = np.full((len(LENGTHS), 2 * arrays[0].shape[1]), 9, np.float16)
    found = case(*arrays, out=out[:, ::2], **place.extent)
    np.testing.assert_array_equal(found[0], wanted[0].astype(np.float16))
    assert found[0].__array_interface__["data"] == out.__array_interface__["data"] and (out[:, 1::2] == 9).all()
    kept = [array.copy() for array in arrays]
    assert case(*arrays, out=arrays[0], **place.extent)[0] is arrays[0]
    np.testing.assert_array_equal(arrays[0], wanted[0])
    for one, before in zip(arrays[1:], kept[1:]):
        np.testing.assert_array_equal(one, before)


def test_gae_returns_go_where_they_are_asked_for() -> None:
    x, v = np.float32([1, 2, 3]), np.float32([0.5, 0.5, 0.5])
    memory = np.empty(3, np.float64)
    advantages, returns = passrl.gae(x, v, returns=memory, lengths=[3])
    assert returns is memory
    np.testing.assert_allclose(memory, [6, 5, 3], rtol=1e-7)
    again, none = passrl.gae(x, v, returns=False, lengths=[3])
    assert none is None
    np.testing.assert_array_equal(again, advantages)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("rule", "bridge", "merge", "with_steps"), [
    ("adjacent", False, False, False), ("anchored", False, False, False), ("adjacent", True, False, True), ("adjacent", False, True, True),
    ("adjacent", False, False, True)])
def test_chunks(layout: str, rule: str, bridge: bool, merge: bool, with_steps: bool) -> None:
    random, place, eta = np.random.default_rng(3), Place(layout), 0.3
    rows = [list(np.cumsum(random.choice([0, 0, 0.125, -0.25, 0.25, 1, -1], n))) for n in LENGTHS]
    # Where the mask alone says the extent, a row is the extent: offsets count from its first slot.
    ahead = 2 if layout == "mask" else 0
    ends = [sorted(random.choice(np.arange(1, n + 1), min(n, 3), replace=False).tolist()) for n in LENGTHS]
    options: dict[str, Any] = {"step_ends": [[end + ahead for end in row] for row in ends]} if with_steps else {}
    wanted = [reference.chunk_ends(row, scope, step if with_steps else [], eta, rule == "anchored", bridge, merge)
              for row, scope, step in zip(rows, SCOPES, ends)]
    signal = place.put(rows, np.float32)
    found = passrl.chunk(signal, eta=eta, boundary_rule=rule, bridge_scope_gaps=bridge, merge_equal_steps=merge, **options, **place.extent)
    assert found.num_chunks.tolist() == [len(row) for row in wanted] and max(found.num_chunks) > 5
    assert found.offsets.tolist() == [0, *np.cumsum([len(row) for row in wanted])]
    assert found.ends.tolist() == [end + ahead for row in wanted for end in row] and found.ends.dtype == np.int32
    shaped = passrl.shape(signal=signal, eta=eta, boundary_rule=rule, bridge_scope_gaps=bridge, merge_equal_steps=merge, **options,
                          **place.extent, group_size=len(LENGTHS))
    np.testing.assert_array_equal(found.ends, shaped.chunk_ends)
    np.testing.assert_array_equal(found.offsets, shaped.chunk_offsets)
    out = np.full(signal.shape, -7, np.int64)
    raw = passrl.chunk(signal, eta=eta, boundary_rule=rule, bridge_scope_gaps=bridge, merge_equal_steps=merge, out=out, **options, **place.extent)
    np.testing.assert_array_equal(raw.ends, found.ends)
    assert raw.ends.dtype == np.int64 and (out == -7).sum() == out.size - len(found.ends)


def test_chunks_of_scored_steps() -> None:
    steps = passrl.Steps([0, 3, 4], [1, 3, 4, 2], [0.5, 0.5, 1, 2])
    assert passrl.chunk(steps=steps, lengths=[4, 2]).ends.tolist() == [1, 3, 4, 2]
    assert passrl.chunk(steps=steps, lengths=[4, 2], merge_equal_steps=True).ends.tolist() == [3, 4, 2]


def test_findings_of_chunks() -> None:
    signal = np.float32([1, 1, np.nan, 2])
    with pytest.warns(passrl.FindingWarning, match=r"batch.signal\[0\] is NaN .* at token 2 of rollout 0") as told:
        assert passrl.chunk(signal, lengths=[4]).ends.tolist() == [2, 3, 4]
    assert told[0].filename == __file__
    assert passrl.chunk(signal, lengths=[4], missing="zero").ends.tolist() == [2, 3, 4]
    assert passrl.chunk(signal, lengths=[4], missing="exclude", bridge_scope_gaps=True).ends.tolist() == [2, 4]
    with pytest.warns(passrl.FindingWarning, match="do not fit"):
        assert passrl.chunk(steps=passrl.Steps([0, 2], [3, 2], [1.0, 2.0]), lengths=[4]).num_chunks.tolist() == [0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bits_of_shape(layout: str) -> None:
    place = Place(layout)
    x, y, z = (place.put([np.random.default_rng([seed, i]).normal(size=n) for i, n in enumerate(LENGTHS)], np.float32) for seed in (1, 2, 3))
    raw: dict[str, Any] = {"kind": "kl", "chunk": "token", "group_size": len(LENGTHS), "standardize_process": "none", "k": 0, **place.extent}
    same = np.testing.assert_array_equal
    same(passrl.discounted_returns(x, GAMMA, **place.extent), passrl.shape(signal=x, gamma=GAMMA, returns=True, **raw).returns)
    wide = passrl.discounted_returns(x, GAMMA, dtype="f64", **place.extent)
    same(passrl.divide_length(wide, K, dtype="f32", **place.extent), passrl.shape(signal=x, gamma=GAMMA, **(raw | {"k": K})).advantages)
    advantages, returns = passrl.gae(x, y, GAMMA, LAM, bootstrap=BOOTSTRAP, **place.extent)
    shaped = passrl.shape(token_rewards=x, values=y, bootstrap=BOOTSTRAP, credit="gae", gamma=GAMMA, lam=LAM, **(raw | {"kind": "none"}))
    same(advantages, shaped.advantages)
    same(returns, shaped.returns)
    flat: dict[str, Any] = raw | {"credit": "broadcast"}
    for options in ({}, {"ddof": 0, "epsilon": 0.5, "epsilon_mode": "floor_std", "shift": False, "in_stats": [1, 1, 1, 0, 1, 1]}):
        whole = {name if name == "in_stats" else "whiten_" + name: value for name, value in options.items()}
        same(passrl.whiten(x, **options, **place.extent), passrl.shape(signal=x, whiten="tokens", **whole, **flat).advantages)
    same(passrl.opd_signal(x, y, **place.extent), passrl.shape(logp_policy=x, logp_teacher=y, **flat).advantages)
    same(passrl.opd_signal(x, y, z, 1.5, **place.extent),
         passrl.shape(logp_policy=x, logp_teacher=y, logp_base=z, opd_lambda=1.5, **flat).advantages)
    # Rewards a token less their KL are what a run broadcasts.
    same(passrl.kl_in_reward(x, y, z, kind="k2", coef=0.3, **place.extent),
         passrl.shape(logp_policy=x, logp_reference=y, token_rewards=z, kl_in_reward="k2", kl_coef=0.3, kl_place="reward",
                      **(flat | {"kind": "none", "chunk": "token"})).advantages)
    # What opd_signal gives is a signal of a run.
    same(passrl.shape(signal=passrl.opd_signal(x, y, **place.extent), kind="kl", group_size=3, **place.extent).advantages,
         passrl.shape(logp_policy=x, logp_teacher=y, group_size=3, **place.extent).advantages)


def test_defaults_are_the_configurations() -> None:
    config = passrl.Config()

    def defaults(function: Callable[..., Any]) -> dict[str, Any]:
        return {name: p.default for name, p in inspect.signature(function).parameters.items()}

    for name in ("ddof", "epsilon", "epsilon_mode", "shift"):
        assert defaults(passrl.whiten)[name] == getattr(config, "whiten_" + name)
    assert defaults(passrl.whiten)["fill_padding"] == config.fill_padding
    for name in ("eta", "boundary_rule", "merge_equal_steps", "bridge_scope_gaps"):
        assert defaults(passrl.chunk)[name] == getattr(config, name)
    assert defaults(passrl.chunk)["missing"] == config.streams["process_0"].missing
    for name in ("center", "scale", "ddof", "epsilon", "epsilon_mode", "singleton", "missing"):
        assert defaults(passrl.group_standardize)[name] == getattr(config.streams["outcome"], name)
    assert (defaults(passrl.divide_length)["k"], defaults(passrl.opd_signal)["opd_lambda"]) == (config.k, config.opd_lambda)
    assert defaults(passrl.gae)["gamma"] == defaults(passrl.discounted_returns)["gamma"] == config.gamma and defaults(passrl.gae)["lam"] == config.lam


@pytest.mark.parametrize("name", CASES)
def test_findings_warn_and_zero_the_rollout(name: str) -> None:
    case, place = CASES[name], Place("packed")
    arrays = [place.put(data(seed), np.float32) for seed in range(case.inputs)]
    clean = case(*arrays, **place.extent)
    arrays[0][sum(LENGTHS[:3]) + 2] = np.inf
    with pytest.warns(passrl.FindingWarning, match="is not finite at token 2 of rollout 3") as told:
        found = case(*arrays, **place.extent)
    assert told[0].message.status == 400 and told[0].filename == __file__  # type: ignore[union-attr]
    for one, before in zip(found, clean):
        rows, others = place.take(one), place.take(before)
        assert not rows[3].any() and np.isfinite(one).all()
        if name != "whiten":
            np.testing.assert_array_equal(rows[4], others[4])
    with warnings.catch_warnings():
        warnings.simplefilter("error", passrl.FindingWarning)
        with pytest.raises(passrl.FindingWarning, match="rollout 3"):
            case(*arrays, **place.extent)


X = np.ones(7, np.float32)


@pytest.mark.parametrize(("call", "kind", "sentence"), [
    (lambda: passrl.chunk(step_ends=[[7]]), passrl.ArgumentError, "neither cu_seqlens"),
    (lambda: passrl.discounted_returns(X, 1.5, lengths=[7]), passrl.ArgumentError, "passrl_discounted_returns: gamma is 1.5; it must be from 0.0 to 1.0"),
    (lambda: passrl.discounted_returns(X, lengths=[8]), passrl.ShapeError, "lengths add up to 8 and rewards has 7 elements"),
    (lambda: passrl.discounted_returns(X.astype(int), lengths=[7]), passrl.DtypeError, "rewards has dtype i64"),
    (lambda: passrl.discounted_returns(None, lengths=[7]), passrl.ArgumentError, "rewards is NULL"),
    (lambda: passrl.gae(X, X[:6], lengths=[7]), passrl.ShapeError, "values has 6 elements; it must have 7"),
    (lambda: passrl.gae(X, X, lam=-1, lengths=[7]), passrl.ArgumentError, "lam is -1.0"),
    (lambda: passrl.gae(X, X, lengths=[7], bootstrap=[1.0, 2.0]), passrl.ShapeError, "bootstrap has 2 elements; it must have 1"),
    (lambda: passrl.divide_length(X, 9, lengths=[7]), passrl.ArgumentError, "k is 9.0; it must be from 0.0 to 8.0"),
    (lambda: passrl.opd_signal(X, X, X, 1e7, lengths=[7]), passrl.ArgumentError, "opd_lambda is 10000000.0"),
    (lambda: passrl.opd_signal(X, None, lengths=[7]), passrl.ArgumentError, "logp_teacher is NULL"),
    (lambda: passrl.kl_in_reward(X, X, kind="none", lengths=[7]), passrl.ArgumentError, "config.kl_in_reward is none"),
    (lambda: passrl.kl_in_reward(X, X[:6], lengths=[7]), passrl.ShapeError, "logp_reference has 6 elements; it must have 7"),
    (lambda: passrl.whiten(X, ddof=2, lengths=[7]), passrl.ArgumentError, "whiten_ddof"),
    (lambda: passrl.whiten(X, epsilon_mode="add", lengths=[7]), passrl.ArgumentError, 'whiten_epsilon_mode is "add"'),
    (lambda: passrl.whiten(X, lengths=[7], out=X[::-1]), passrl.ShapeError, "out and x share memory; in place means the same type, shape and strides"),
    (lambda: passrl.whiten(X, lengths=[7], out=np.empty(7, int)), passrl.DtypeError, "out has dtype i64"),
    (lambda: passrl.whiten(X, lengths=[7], out=[0.0] * 7), passrl.ArgumentError, "out is a list, no array"),
    (lambda: passrl.whiten(X, lengths=[7], out=np.empty(7, "f4"), dtype="f64"), passrl.ArgumentError, "dtype is f64 and out has another"),
    (lambda: passrl.whiten(X, lengths=[7], stream=object()), passrl.ArgumentError, "stream is a object"),
    (lambda: passrl.whiten(X, lengths=[7], stream=64), passrl.Error, "stream"),
    (lambda: passrl.whiten(X, lengths=[7], backend="tpu"), passrl.ArgumentError, "backend is 'tpu'"),
    (lambda: passrl.chunk(lengths=[7]), passrl.ArgumentError, "signal[0] and batch.step_scores are NULL"),
    (lambda: passrl.chunk(X, lengths=[7], boundary_rule="next"), passrl.ArgumentError, 'boundary_rule is "next"'),
    (lambda: passrl.chunk(X, lengths=[7], out=X), passrl.DtypeError, "chunk_ends has dtype f32"),
    (lambda: passrl.group_standardize(None, group_size=1), passrl.ArgumentError, "x is None"),
    (lambda: passrl.group_standardize(X), passrl.ArgumentError, "group_index"),
    (lambda: passrl.group_standardize(X, group_size=2), passrl.ShapeError, "leaves 1 rollouts over"),
    (lambda: passrl.group_standardize(X.reshape(1, 7), group_size=1), passrl.ShapeError, "x has shape [1, 7]; it must be [R]"),
    (lambda: passrl.group_standardize(X, [0] * 6), passrl.ShapeError, "batch.group_index has 6 elements; it must have 7"),
    (lambda: passrl.group_standardize(X, [0] * 7, center="mean"), passrl.ArgumentError, 'outcome.center is "mean"'),
    (lambda: passrl.group_flags(group_size=2), passrl.ArgumentError, "outcome, format and streams are None"),
    (lambda: passrl.group_flags(X, group_size=7, gama=1), passrl.UnknownNameError, 'key "gama" is unknown'),
    (lambda: passrl.group_flags(X, group_size=7, fusion="pooled"), passrl.ArgumentError, "flags of each stream alone need fusion = advantage"),
])
def test_errors(call: Callable[[], Any], kind: type[passrl.Error], sentence: str) -> None:
    with pytest.raises(passrl.Error) as caught:
        call()
    assert type(caught.value) in (kind, passrl.DeviceError if kind is passrl.Error else kind), (type(caught.value), str(caught.value))
    assert sentence in str(caught.value)


def test_empty_batches() -> None:
    empty = np.zeros(0, np.float32)
    assert passrl.discounted_returns(empty, lengths=[]).shape == (0,)
    assert passrl.whiten(empty, lengths=[0, 0]).shape == (0,)
    assert passrl.gae(np.zeros((3, 0)), np.zeros((3, 0)))[1].shape == (3, 0)
    assert passrl.chunk(empty, lengths=[0]).num_chunks.tolist() == [0]
    assert passrl.group_standardize(empty, []).shape == (0,)
