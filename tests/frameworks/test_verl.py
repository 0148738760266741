"""verl 0.9.1 itself: its registry, `compute_advantage` on a DataProto, and the v1 trainer's `_compute_advantage` over a stand-in of TransferQueue's store."""
from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stubs
from conftest import Rollouts, make

pytest.importorskip("torch")
stubs.stub("ray", "torchdata", "codetiming", "PIL", "peft", "cachetools", "uvicorn", "fastapi", "hydra", "wandb", "aiohttp", "tensorboard", "vllm", "sglang")
pytest.importorskip("verl", reason="verl is not installed; make frameworks brings it")

import torch  # noqa: E402
import transfer_queue  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from tensordict import TensorDict  # noqa: E402
from verl import DataProto  # noqa: E402
from verl.trainer.ppo import core_algos, ray_trainer  # noqa: E402
from verl.trainer.ppo.v1 import trainer_base  # noqa: E402

import passrl  # noqa: E402


def proto(rollouts: Rollouts, records: list[Any] | None = None, rewards: Any = None, **tensors: Any) -> DataProto:
    found = {"token_level_rewards": torch.tensor(rollouts.terminal() if rewards is None else rewards), "response_mask": torch.tensor(rollouts.pad(rollouts.masks, np.int64))}
    others: dict[str, Any] = {"uid": np.array(rollouts.groups, dtype=object)}
    if records is not None:
        # As verl's agent loop makes columns of what compute_score returns.
        others["process"] = np.array(records)
    return DataProto.from_dict(tensors=found | {key: torch.tensor(value) for key, value in tensors.items()}, non_tensors=others)


def algorithm(name: str, **own: Any) -> Any:
    return OmegaConf.create({"adv_estimator": name, "gamma": 1.0, "lam": 1.0, **({"passrl": own} if own else {})})


def advantages(data: DataProto, name: str, **own: Any) -> Any:
    return ray_trainer.compute_advantage(data, adv_estimator=name, config=algorithm(name, **own)).batch["advantages"]


def test_the_entry_point_registers_every_preset() -> None:
    assert {str(preset) for preset in passrl.presets()} <= set(core_algos.ADV_ESTIMATOR_REGISTRY)
    assert core_algos.ADV_ESTIMATOR_REGISTRY["grpo"].__module__ == "verl.trainer.ppo.core_algos"


@pytest.mark.parametrize("preset", ["pass", "grpo_process", "grpo_pooled"])
def test_a_whole_dataproto_with_records(rollouts: Rollouts, preset: str) -> None:
    rollouts.compare(advantages(proto(rollouts, rollouts.records()), preset), rollouts.expected(preset))


def test_fields_of_the_configuration(rollouts: Rollouts) -> None:
    data = proto(rollouts, [json.dumps(record) for record in rollouts.records()])
    found = advantages(data, "pass", k=0.3, outcome={"ddof": 0}, w_format=0.5)
    rollouts.compare(found, rollouts.expected(k=0.3, **{"outcome.ddof": 0}, w_format=0.5))
    with pytest.raises(passrl.UnknownNameError, match="nearest: gamma"):
        advantages(data, "pass", gama=0.9)


def test_process_rewards_in_rm_scores(rollouts: Rollouts) -> None:
    dense = [np.repeat(s, np.diff(np.concatenate([[0], e]))).astype(np.float32) for s, e in zip(rollouts.scores, rollouts.ends)]
    outcomes = [{"outcome": float(r)} for r in rollouts.outcome]
    expected = passrl.shape(signal=np.concatenate(dense), lengths=rollouts.lengths, groups=rollouts.groups, outcome=rollouts.outcome, mask=np.concatenate(rollouts.masks))
    rows = np.split(expected.advantages, np.cumsum(rollouts.lengths)[:-1])
    rollouts.compare(advantages(proto(rollouts, outcomes, rollouts.pad(dense)), "pass", signal="rm_scores"), rows)
    # Without outcomes the process rewards are alone.
    expected = passrl.shape(signal=np.concatenate(dense), lengths=rollouts.lengths, groups=rollouts.groups, mask=np.concatenate(rollouts.masks))
    rows = np.split(expected.advantages, np.cumsum(rollouts.lengths)[:-1])
    rollouts.compare(advantages(proto(rollouts, None, rollouts.pad(dense)), "pass", signal="rm_scores"), rows)


def test_sparse_process_rewards_in_rm_scores() -> None:
    rollouts = make(holes=False)
    rollouts.scores = [np.where(s == 0, 0.25, s) for s in rollouts.scores]
    sparse = np.zeros((len(rollouts.masks), rollouts.width), dtype=np.float32)
    for row, ends, scores in zip(sparse, rollouts.ends, rollouts.scores):
        row[ends - 1] = scores
    found = advantages(proto(rollouts, [{"outcome": float(r)} for r in rollouts.outcome], sparse), "pass", signal="sparse_rm_scores")
    rollouts.compare(found, rollouts.expected(format=None, format_ok=None))
    with pytest.raises(passrl.ArgumentError, match="algorithm.passrl.signal is 'sparse'; it is one of"):
        advantages(proto(rollouts), "pass", signal="sparse")


@pytest.mark.parametrize("theirs, options", [
    ("grpo", {}), ("grpo_vectorized", {}), ("rloo", {}), ("opo", {}), ("reinforce_plus_plus", {}), ("reinforce_plus_plus_baseline", {}), ("gpg", {}), ("gae", {})])
def test_verls_own_estimators_by_our_name(theirs: str, options: Any) -> None:
    rollouts = make(sizes=(4, 4, 4), holes=theirs != "gae")
    rollouts.outcome = np.random.default_rng(3).random(12)
    values = np.random.default_rng(4).random((12, rollouts.width)).astype(np.float32)
    found = advantages(proto(rollouts, values=values), f"verl.{theirs}")
    wanted = advantages(proto(rollouts, values=values), theirs)
    inside = rollouts.pad(rollouts.masks) != 0
    assert np.abs(found.numpy()[inside]).max() > 0.1
    np.testing.assert_allclose(found.numpy()[inside], wanted.numpy()[inside], rtol=0, atol=1e-5)


def test_padded_views_are_not_copied(rollouts: Rollouts, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = torch.zeros((len(rollouts.masks), 2 * rollouts.width), dtype=torch.int64)
    wide[:, 5 : 5 + rollouts.width] = torch.tensor(rollouts.pad(rollouts.masks, np.int64))
    data = proto(rollouts, rollouts.records())
    data.batch["response_mask"] = wide[:, 5 : 5 + rollouts.width]
    mask = data.batch["response_mask"]
    assert not mask.is_contiguous()
    seen: dict[str, tuple[int, int]] = {}
    original = passrl.arrays.array

    def spy(value: Any, name: str, listed: str = "float64") -> Any:
        made = original(value, name, listed)
        seen[name] = int(made.view.data), int(made.view.stride[0])
        return made

    monkeypatch.setattr(passrl.arrays, "array", spy)
    found = advantages(data, "pass")
    assert seen["mask"] == (mask.data_ptr(), mask.stride(0))
    assert seen["out"][0] == found.data_ptr()
    rollouts.compare(found, rollouts.expected())


def test_what_verl_did_not_compute_is_named_with_its_option(rollouts: Rollouts) -> None:
    for preset, option in [("verl.gae", "critic.enable=True"), ("verl.optimal_token_baseline", "bypass_mode"), ("verl.remax", "adv_estimator=remax"),
                           ("nemo_rl.opd", "bypass_mode"), ("pass", "custom_reward_function")]:
        with pytest.raises(passrl.ArgumentError, match=option):
            advantages(proto(rollouts), preset)
    bad = rollouts.records()
    del bad[2]["step_score"]
    with pytest.raises(passrl.ArgumentError, match="rollout 2 has step_end without step_score"):
        advantages(proto(rollouts, bad), "pass")


def test_the_registered_function_alone(rollouts: Rollouts) -> None:
    data = proto(rollouts)
    found, returns = core_algos.get_adv_estimator_fn("verl.grpo")(
        token_level_rewards=data.batch["token_level_rewards"], response_mask=data.batch["response_mask"], config=algorithm("verl.grpo"), index=data.non_tensor_batch["uid"])
    rollouts.compare(found, rollouts.expected("verl.grpo"))
    assert returns is found


class Store:
    """TransferQueue's key-value calls: what `_compute_advantage` gets and puts."""

    def __init__(self, rows: dict[str, dict[str, Any]]) -> None:
        self.rows, self.written = rows, None

    def kv_batch_get(self, keys: list[str], partition_id: str, select_fields: list[str]) -> TensorDict:
        assert partition_id == "train"
        found: dict[str, Any] = {}
        for field in select_fields:
            values = [self.rows[key][field] for key in keys if field in self.rows[key]]
            if values and isinstance(values[0], torch.Tensor):
                found[field] = torch.nested.as_nested_tensor(values, layout=torch.jagged)
            elif values:
                from tensordict import NonTensorStack

                found[field] = NonTensorStack(*values)
        return TensorDict(found, batch_size=len(keys))

    def kv_batch_put(self, keys: list[str], partition_id: str, fields: TensorDict) -> Any:
        self.written = fields
        return keys


def v1(rollouts: Rollouts, keys: list[str], extra: list[Any], monkeypatch: pytest.MonkeyPatch, name: str = "pass") -> list[Any]:
    rewards = rollouts.terminal()
    store = Store({key: {"uid": rollouts.groups[i], "response_mask": torch.tensor(rollouts.masks[i]), "rm_scores": torch.tensor(rewards[i, : len(rollouts.masks[i])]),
                         "extra_fields": extra[i]} for i, key in enumerate(keys)})
    for name_of in ("kv_batch_get", "kv_batch_put"):
        monkeypatch.setattr(transfer_queue, name_of, getattr(store, name_of))
    config = OmegaConf.create({"algorithm": {"adv_estimator": name, "gamma": 1.0, "lam": 1.0, "use_kl_in_reward": False}, "actor_rollout_ref": {"rollout": {"n": 4}}})
    batch = transfer_queue.KVBatchMeta(keys=keys, tags=[{} for _ in keys], partition_id="train")
    trainer_base.PPOTrainer._compute_advantage(types.SimpleNamespace(config=config), batch, {})
    assert store.written is not None
    return [row.numpy() for row in store.written["advantages"].unbind()]


def test_the_v1_trainer_with_records_in_extra_fields(rollouts: Rollouts, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [f"{group}_{session}_0" for session, group in enumerate(rollouts.groups)]
    extra = [{"reward_extra_info": {"process": record}} for record in rollouts.records()]
    for found, wanted in zip(v1(rollouts, keys, extra, monkeypatch), rollouts.expected()):
        np.testing.assert_array_equal(found, wanted)


def test_a_session_of_several_outputs_is_one_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    rollouts = make(sizes=(4, 3), mixed=False, seed=5)
    # Rows 0, 1 and 2 are one session; its reward, and so its record, is the last one's.
    keys = ["a_0_0", "a_0_1", "a_0_2", "a_1_0", "b_0_0", "b_1_0", "b_2_0"]
    records = rollouts.records()
    records[0], records[1] = records[2], records[2]
    rollouts.outcome[:2] = rollouts.outcome[2]
    found = v1(rollouts, keys, [{"reward_extra_info": {"process": record}} for record in records], monkeypatch)
    finals = [2, 3, 4, 5, 6]
    expected = rollouts.expected(rows=finals)
    for i, wanted in zip(finals, expected):
        np.testing.assert_array_equal(found[i], wanted)
    # The earlier outputs: one chunk with the session's outcome and format terms, which the last output's last chunk holds beside its process term.
    for i in (0, 1):
        inside = rollouts.masks[i] != 0
        assert len(set(found[i][inside].tolist())) == 1 and not found[i][~inside].any()
    assert found[0][0] == found[1][0]


def test_a_library_that_does_not_load_says_so(tmp_path: Path) -> None:
    (tmp_path / "libpassrl.so").write_bytes(b"no library")
    program = f"""
import sys; sys.path.append({str(Path(__file__).resolve().parents[1] / "parity")!r})
import stubs; stubs.stub("ray", "torchdata", "codetiming", "datasets", "PIL", "peft", "accelerate", "transformers", "pandas", "cachetools", "uvicorn", "fastapi")
import verl
from verl.trainer.ppo import core_algos
for name in ("pass", "verl.grpo"):
    try:
        core_algos.get_adv_estimator_fn(name)()
    except ImportError as told:
        print("TOLD", name, told)
try:
    core_algos.get_adv_estimator_fn("nonsense")
except ValueError as theirs:
    print("THEIRS", theirs)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], env=os.environ | {"PASSRL_LIBRARY": str(tmp_path / "libpassrl.so")}, capture_output=True, text=True, timeout=300)
    assert "TOLD pass passrl could not be loaded" in done.stdout and "TOLD verl.grpo" in done.stdout, done.stdout + done.stderr
    assert "LibraryError" in done.stdout and "THEIRS Unknown advantage estimator" in done.stdout
    assert "passrl could not be loaded" in done.stderr
