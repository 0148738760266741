"""What the caller's arguments mean, and the sentences that refuse them."""
from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

import passrl

SIGNAL = np.array([1, 1, -1, -1, 0.5, 0.5, 0.5], np.float32)
BATCH: dict[str, Any] = {"signal": SIGNAL, "lengths": [4, 3], "group_size": 2, "outcome": np.array([1.0, 0.0])}


@pytest.mark.parametrize("ends", [
    ([0, 2, 3], [2, 4, 3]), (np.array([0, 2, 3]), np.array([2, 4, 3])), (np.array([0, 2, 3], np.int32), [2, 4, 3]),
    [[2, 4], [3]], [np.array([2, 4]), np.array([3])], ([2, 4], [3]), (np.array([2, 4]), np.array([3])), ((2, 4), (3,)),
])
def test_a_pair_of_step_ends_is_offsets_and_ends_where_it_can_be(ends: Any) -> None:
    shaped = passrl.shape(**BATCH, step_ends=ends)
    assert shaped.status == 0 and shaped.chunk_ends.tolist() == [2, 4, 3]
    chunks = passrl.chunk(SIGNAL, step_ends=ends, lengths=[4, 3])
    assert chunks.offsets.tolist() == [0, 2, 3] and chunks.ends.tolist() == [2, 4, 3]


def test_a_list_of_step_ends_is_a_list_a_rollout() -> None:
    # As a tuple it would be offsets and ends.
    listed = passrl.chunk(np.zeros(6, np.float32), step_ends=[[0, 1, 2], [1, 2]], lengths=[3, 3])
    assert listed.offsets.tolist() == [0, 2, 4]
    one = passrl.chunk(SIGNAL, step_ends=([0, 2], [2, 7]), lengths=[7])
    assert one.ends.tolist() == [2, 4, 7]


class Strange:
    """What says that it has a DLPack capsule, and gives something else."""

    def __init__(self, given: Any, device: Any = (1, 0)) -> None:
        self.given, self.device = given, device

    def __dlpack_device__(self) -> Any:
        return self.device

    def __dlpack__(self, **options: Any) -> Any:
        return self.given


def capsule(name: bytes) -> Any:
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return make(8, name, None)


USED = b"used_dltensor"


@pytest.mark.parametrize(("change", "sentence"), [
    ({"streams": [[1.0, 0]]}, 'streams is a list; it must be a mapping with a name for each: {"name": array}'),
    ({"streams": {"a": ([1.0, 0], "w")}}, "the weight of streams['a'] is 'w'; it must be a number"),
    ({"groups": [{}, {}]}, "groups[0] is {}, a dict; group keys are integers or strings"),
    ({"groups": ["a", None]}, "groups[1] is None, a NoneType; group keys are integers or strings: give each rollout its prompt's number or name"),
    ({"groups": [None, None]}, "groups[0] is None"),
    ({"groups": np.array(["a", float("nan")], dtype=object)}, "groups[1] is nan, a float"),
    ({"groups": np.array([1.5, 1.5], dtype=object)}, "groups[0] is 1.5, a float"),
    ({"groups": np.array(["NaT", "NaT"], dtype="datetime64[s]")}, "groups[0] is None"),
    ({"signal": Strange(3)}, "signal is a Strange whose __dlpack__ gives a int that is no unused DLPack capsule; give an array"),
    ({"signal": Strange(capsule(USED))}, "signal is a Strange whose __dlpack__ gives a PyCapsule that is no unused DLPack capsule"),
    ({"lengths": Strange(3, 1)}, "lengths is a Strange that does not say on which device it is"),
    ({"lengths": None, "cu_seqlens": [0, 3.5, 7]}, "cu_seqlens is a list that is no array of int64 (an element is no whole number)"),
    ({"stats_mean": {"outcome": "x"}, "outcome.center": "given"}, "stats_mean['outcome'] is 'x'; it is a number or [1], one a group"),
    ({"group_size": 2**64 + 2}, f"group_size is {2**64 + 2}; it must be a whole number of 64 bits, {2**63 - 1} at most"),
    ({"threads": 2**32 + 2}, f"threads is {2**32 + 2}; it must be a whole number of 32 bits"),
])
def test_refusals(change: dict[str, Any], sentence: str) -> None:
    given = BATCH | ({"group_size": None} if "groups" in change else {}) | change
    with pytest.raises(passrl.ArgumentError) as caught:
        passrl.shape(**given)
    assert caught.value.status == -101 and sentence in str(caught.value), caught.value


@pytest.mark.parametrize("value", [2**64 + 2, 2**70, 2**63, -(2**63) - 1])
def test_a_limit_has_64_bits(value: int) -> None:
    with pytest.raises(passrl.ArgumentError, match=f"rollouts is {value}; it must be a whole number of 64 bits"):
        passrl.Plan(rollouts=value, tokens=7)


def test_a_phase_a_rank_and_a_device_are_whole_numbers() -> None:
    partials = passrl.Partials(passrl.Plan(rollouts=2, tokens=7))
    for name, call in {
        "phase": lambda: partials.add(0.5, **BATCH), "rank": lambda: passrl.Collective(lambda *_: None, 0.5, 1), "size": lambda: passrl.Collective(lambda *_: None, 0, "1"),  # type: ignore[arg-type]
        "device": lambda: passrl.Plan(rollouts=2, tokens=7, backend="cuda", device=0.5),  # type: ignore[arg-type]
    }.items():
        with pytest.raises(passrl.ArgumentError, match=f"passrl: {name} is .*; it must be a whole number"):
            call()
    with pytest.raises(passrl.ArgumentError, match="phase is 4294967296; it must be a whole number of 32 bits"):
        partials.sections(2**32)


def test_numbers_of_primitives_are_numbers() -> None:
    for name, call in {
        "gamma": lambda: passrl.discounted_returns(SIGNAL, "x", lengths=[7]), "lam": lambda: passrl.gae(SIGNAL, SIGNAL, 1, None, lengths=[7]),
        "k": lambda: passrl.divide_length(SIGNAL, [1, 2], lengths=[7]), "opd_lambda": lambda: passrl.opd_signal(SIGNAL, SIGNAL, None, "1", lengths=[7]),
    }.items():
        with pytest.raises(passrl.ArgumentError, match=f"passrl: {name} is .*; it must be a number"):
            call()


def test_keys_of_64_bits_in_a_list() -> None:
    index, keys = passrl.group_index([0xDEADBEEFDEADBEEF, 5, 5, 0xDEADBEEFDEADBEEE])
    assert index.tolist() == [0, 1, 1, 2] and keys == [0xDEADBEEFDEADBEEF, 5, 0xDEADBEEFDEADBEEE]
    with pytest.raises(passrl.ArgumentError, match="groups is of float64; group keys are integers or strings"):
        passrl.group_index([0xDEADBEEFDEADBEEF, 5.0])


def test_room_stays_within_the_bounds() -> None:
    from passrl.shape import roomy

    at_most = {"rollouts": 2**31 - 1, "groups": 2**31 - 1, "rollout_tokens": 2**31 - 1, "tokens": 2**40 - 1, "steps": 2**40 - 1, "group_rollouts": 2**17 - 1,
               "group_elements": 2**33 - 1}
    assert roomy(at_most) == at_most
    assert roomy({name: most - 5 for name, most in at_most.items()}) == at_most
    assert roomy(at_most | {"group_elements": 2**17 - 5})["group_elements"] == 2**17 - 1
    beyond = {name: most + 1 for name, most in at_most.items()}
    assert all(value >= beyond[name] for name, value in roomy(beyond).items())


def test_nested_tensors() -> None:
    torch = pytest.importorskip("torch", reason="SKIPPED: torch is not installed, its tensors were not tested")
    nested = torch.nested.nested_tensor([torch.ones(4), torch.ones(3)])
    with pytest.raises(passrl.ArgumentError, match=r"signal is a Tensor whose memory cannot be seen.*give it packed, torch.cat\(signal.unbind\(\)\), and lengths"):
        passrl.shape(**(BATCH | {"signal": nested}))
    for name in ("groups", "lengths"):
        with pytest.raises(passrl.ArgumentError, match=f"{name} is a Tensor"):
            passrl.shape(**(BATCH | {"group_size": None, "groups": [0, 0], name: nested}))


@pytest.mark.parametrize(("change", "status", "sentence"), [
    ({"mask": np.ones((2, 4), bool)}, -200, "mask has shape [2, 4] and signal [7]; token-shaped arrays are all padded, [R, T], or all packed"),
    ({"signal": SIGNAL[None], "mask": np.ones(7, bool)}, -200, "signal has shape [1, 7] and mask [7]"),
    ({"out": np.zeros((1, 7), np.float32)}, -200, "out has shape [1, 7] and signal [7]"),
    ({"signal": SIGNAL.astype(np.float64)}, -201, "give signal.astype(np.float32)"),
    ({"signal": [SIGNAL, SIGNAL.astype(np.float64)]}, -201, "give signal.astype(np.float32)"),
    ({"lengths": [8, -1]}, -205, "lengths[1] is -1; a rollout has 0 tokens or more"),
    ({"lengths": np.array([2**63, 2], np.uint64)}, -205, f"lengths[0] is {2**63}"),
    ({"lengths": [2**62, 2**62]}, -205, "lengths add up to 9223372036854775808; a call takes fewer than 2^40 tokens"),
    ({"lengths": [2**63 - 1024, 511, 511, 511]}, -205, "lengths add up to 9223372036854776317; a call"),
    ({"lengths": None, "cu_seqlens": [0, 2**63 - 1, 7]}, -205, "cu_seqlens[2] is 7 after 9223372036854775807"),
    ({"lengths": [4, 4]}, -205, "lengths add up to 8 and signal has 7 elements"),
    ({"lengths": [4.0, 3.5]}, -200, "lengths has shape [2] of float64; it must be [R] integers"),
])
def test_shapes_and_extents_are_named(change: dict[str, Any], status: int, sentence: str) -> None:
    with pytest.raises(passrl.ShapeError) as caught:
        passrl.shape(**(BATCH | change))
    assert caught.value.status == status and sentence in str(caught.value), caught.value


@pytest.mark.parametrize(("lengths", "cp", "rank", "sentence"), [
    ([5.5], 2, 0, "lengths has shape [1] of float64; it must be [R] integers"),
    ([5, -5], 2, 0, "lengths[1] is -5; a rollout has 0 tokens or more"),
    ("ab", 2, 0, "lengths has shape []"),
    ([5], 2.5, 0, "cp is 2.5; it must be a whole number"),
    ([5], 2, "0", "rank is '0'; it must be a whole number"),
    ([5], 2, 2, "rank is 0 to cp - 1"),
])
def test_zigzag_cuts_nothing_off(lengths: Any, cp: Any, rank: Any, sentence: str) -> None:
    with pytest.raises(passrl.Error) as caught:
        passrl.zigzag(lengths, cp, rank)
    assert sentence in str(caught.value)


def test_an_array_without_extents_is_one_rollout() -> None:
    other, mask = SIGNAL[::-1].copy(), np.array([1, 1, 0, 1, 1, 1, 0], bool)
    for call in (
        lambda **o: passrl.whiten(SIGNAL, mask, **o), lambda **o: passrl.discounted_returns(SIGNAL, 0.9, **o), lambda **o: passrl.divide_length(SIGNAL, 0.7, mask=mask, **o),
        lambda **o: passrl.gae(SIGNAL, other, 0.9, 0.8, bootstrap=[0.5], **o)[0], lambda **o: passrl.opd_signal(SIGNAL, other, **o),
        lambda **o: passrl.kl_in_reward(SIGNAL, other, SIGNAL, coef=0.1, **o), lambda **o: passrl.chunk(SIGNAL, **o).ends, lambda **o: passrl.chunk(SIGNAL, mask=mask, **o).offsets,
    ):
        np.testing.assert_array_equal(call(), call(lengths=[7]))
        assert isinstance(call(), np.ndarray)
    assert passrl.chunk(SIGNAL).num_chunks.tolist() == [3] and passrl.discounted_returns([1.0, 2.0]).tolist() == [3, 2]
    with pytest.raises(passrl.ArgumentError, match="neither cu_seqlens"):
        passrl.chunk(steps=passrl.Steps([0, 1], [7], [1.0]))
    # A batch says its rollouts.
    with pytest.raises(passrl.ArgumentError, match="neither cu_seqlens"):
        passrl.shape(**(BATCH | {"lengths": None}))
