"""TRL 1.16 itself: its GRPOTrainer generates, scores and takes gradient steps on a model made on the spot; advantages are held to `passrl.shape` of the same rollouts."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("trl", reason="trl is not installed; make frameworks brings it")
pytest.importorskip("datasets")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bindings/python/examples/train_demo"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import policy  # noqa: E402
import task  # noqa: E402
import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from trl import GRPOConfig  # noqa: E402

import passrl  # noqa: E402
from passrl.plugins.trl import PassGRPOTrainer  # noqa: E402

LOSSES = ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"]


def texts(ids: list[int]) -> list[str]:
    return [task.TOKENS[i] for i in ids]


def short(prompts: Any, completions: Any, completion_ids: Any, **_: Any) -> list[float]:
    return [1.0 - len(ids) / 12 for ids in completion_ids]


def digits(prompts: Any, completions: Any, completion_ids: Any, **_: Any) -> list[float]:
    return [float(sum(text.isdigit() for text in texts(ids)) % 2) for ids in completion_ids]


def tidy(prompts: Any, completions: Any, completion_ids: Any, **_: Any) -> list[float]:
    return digits(prompts, completions, completion_ids)


def partly(prompts: Any, completions: Any, completion_ids: Any, **_: Any) -> list[float | None]:
    """A reward that does not apply to every completion."""
    return [None if len(ids) % 3 == 0 else float(ids[0] % 5) for ids in completion_ids]


def steps(prompts: Any, completions: Any, completion_ids: Any, **_: Any) -> list[dict[str, Any]]:
    """A step every three tokens; its score is whether it begins with a digit."""
    found = []
    for ids in completion_ids:
        ends = sorted({*range(3, len(ids), 3), len(ids)})
        found.append({"step_end": ends, "step_score": [float(texts(ids)[begin].isdigit()) for begin in [0, *ends][:-1]]})
    return found


class Recording(PassGRPOTrainer):
    """Keeps what each step was made of."""

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        output = super()._generate_and_score_completions(inputs)
        self.seen = [*getattr(self, "seen", []), output]
        return output


def trainer(folder: Path, rewards: Any = (short, digits), own: dict[str, Any] | None = None, **settings: Any) -> Any:
    """A trainer of a new model. own: arguments of PassGRPOTrainer; settings: of GRPOConfig."""
    torch.manual_seed(0)
    random = task.Random(7)
    dataset = Dataset.from_list([{"prompt": task.prompt(task.draw(random))} for _ in range(64)])
    defaults: dict[str, Any] = dict(
        output_dir=str(folder), use_cpu=True, bf16=False, report_to=[], save_strategy="no", disable_tqdm=True, logging_steps=1, num_generations=4,
        per_device_train_batch_size=8, max_completion_length=12, max_steps=2, learning_rate=1e-3, beta=0.0, seed=3)
    return Recording(model=policy.model(width=32, layers=1), processing_class=policy.tokenizer(), reward_funcs=list(rewards), args=GRPOConfig(**defaults | settings),
                     train_dataset=dataset, **({"process_func": steps, "format_func": "digits"} if own is None else own))


def expected(ids: Any, mask: Any, group_size: int = 4, **fields: Any) -> Any:
    """PASS of the same completions, packed in NumPy."""
    lengths = np.asarray(mask).sum(1)
    rows = [np.asarray(row)[:n].tolist() for row, n in zip(ids, lengths)]
    found = steps(None, None, rows)
    offsets = np.concatenate([[0], np.cumsum([len(record["step_end"]) for record in found])])
    steps_of = passrl.Steps(offsets, np.concatenate([r["step_end"] for r in found]), np.concatenate([r["step_score"] for r in found]))
    tidy = np.array(digits(None, None, rows))
    # TRL keeps rewards in float32.
    outcome = np.array(short(None, None, rows), dtype=np.float32)
    shaped = passrl.shape(steps=steps_of, lengths=lengths, group_size=group_size, outcome=outcome, format=tidy, format_ok=tidy != 0, **fields)
    return np.split(shaped.advantages, np.cumsum(lengths)[:-1])


def assert_same(advantages: Any, rows: Any) -> None:
    assert any(row.any() for row in rows)
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(advantages[i, : len(row)].numpy(), row)
        assert not advantages[i, len(row) :].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_takes_a_step_on_token_advantages(loss: str, tmp_path: Path) -> None:
    made = trainer(tmp_path, loss_type=loss, num_iterations=2, gradient_accumulation_steps=2)
    before = [p.detach().clone() for p in made.model.parameters()]
    made.train()
    output = made.seen[0]
    assert output["advantages"].shape == output["completion_ids"].shape
    assert_same(output["advantages"], expected(output["completion_ids"], output["completion_mask"]))
    assert any(not torch.equal(old, new) for old, new in zip(before, made.model.parameters()))
    assert all(np.isfinite(entry["loss"]) for entry in made.state.log_history if "loss" in entry)
    assert any("passrl/chunks" in entry for entry in made.state.log_history)
    # TRL's log of advantages, a number a completion: the path score.
    assert list(made._logs["advantages"])[-16:] == [float(score) for score in made.last_shaped.path_scores]


def test_fields_and_weights(tmp_path: Path) -> None:
    made = trainer(tmp_path, own={"process_func": steps, "format_func": 1, "preset": "pass:k=0.3,w_process=2"}, reward_weights=[0.5, 0.25], max_steps=1)
    made.train()
    assert_same(made.seen[0]["advantages"], expected(made.seen[0]["completion_ids"], made.seen[0]["completion_mask"], k=0.3, w_process=2, w_outcome=0.5, w_format=0.25))


@pytest.mark.parametrize("preset, settings", [
    ("trl.grpo", {}), ("trl.dr_grpo", {"scale_rewards": "none"}), ("trl.grpo_batch", {"scale_rewards": "batch"}),
    ("trl.gdpo", {"multi_objective_aggregation": "normalize_then_sum"})])
@pytest.mark.parametrize("rewards", [(short, digits), (short, partly)], ids=["all", "partly"])
def test_trls_own_advantages_by_our_name(preset: str, settings: Any, rewards: Any, tmp_path: Path) -> None:
    made = trainer(tmp_path, rewards, {"preset": preset}, reward_weights=[1.0, 0.25], max_steps=1, **settings)
    made.train()
    output = made.seen[0]
    inside = output["completion_mask"] != 0
    wanted = made.trl_advantages[:, None].expand(inside.shape)
    assert wanted.abs().max() > 0.1
    torch.testing.assert_close(output["advantages"][inside], wanted[inside], rtol=0, atol=2e-5)


def test_the_guides_block_makes_a_trainer(tmp_path: Path) -> None:
    block = (ROOT / "docs/plugins.md").read_text("utf-8").split("## TRL")[1].split("```python\n")[1].split("```")[0]
    config = GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[], num_generations=4, per_device_train_batch_size=8)
    names: dict[str, Any] = {"model": policy.model(width=32, layers=1), "tokenizer": policy.tokenizer(), "config": config, "dataset": Dataset.from_list([{"prompt": "2+3\n"}]),
                             "correct": short, "tidy": tidy, "steps": steps}
    exec(compile(block, "docs/plugins.md", "exec"), names)
    assert names["trainer"].shape_config == passrl.Config("pass", k=0.7)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(passrl.ArgumentError, match="process_func is not given"):
        trainer(tmp_path, own={})
    with pytest.raises(passrl.ArgumentError, match="format_func is 'tidy', which is none of the reward functions: short, digits"):
        trainer(tmp_path, own={"process_func": steps, "format_func": "tidy"})
    with pytest.raises(passrl.ArgumentError, match="process_func gave 1 records for 8 completions"):
        trainer(tmp_path, own={"process_func": lambda **_: [None]}).train()


def main(folder: str) -> None:
    """One rank of the test below: its share of the first step, to a file."""
    made = trainer(Path(folder), per_device_train_batch_size=4, num_generations=8, max_steps=2)
    made.train()
    output, rank = made.seen[0], made.accelerator.process_index
    rows = made.accelerator.gather(made.accelerator.pad_across_processes(output["completion_ids"], dim=1))
    masks = made.accelerator.gather(made.accelerator.pad_across_processes(output["completion_mask"], dim=1))
    Path(folder, f"rank{rank}.json").write_text(json.dumps({"advantages": output["advantages"].tolist(), "ids": rows.tolist(), "mask": masks.tolist()}))


def test_two_ranks_that_share_a_group(tmp_path: Path) -> None:
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT / "tests/frameworks"), *sys.path])}
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", __file__, str(tmp_path)], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    # The group is the whole batch: each rank alone would have other statistics.
    ids, mask = np.array(ranks[0]["ids"]), np.array(ranks[0]["mask"])
    assert len(ids) == 8 and ranks[1]["ids"] == ranks[0]["ids"]
    rows = expected(ids, mask, group_size=8)
    for rank, share in enumerate(ranks):
        for i, got in enumerate(share["advantages"]):
            wanted = rows[4 * rank + i]
            np.testing.assert_array_equal(np.float32(got[: len(wanted)]), wanted)
            assert not any(got[len(wanted) :])


if __name__ == "__main__":
    main(sys.argv[1])
