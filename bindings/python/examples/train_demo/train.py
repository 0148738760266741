"""PASS against TRL's GRPO and process-supervised GRPO, trained by TRL's own GRPOTrainer on a small model that is made on the spot.

A model that imitates the noisy writer of the sample rollouts (`policy.py`) is trained further on short chains of arithmetic (`task.py`), by each preset
with each seed: the same model, problems, rewards and number of updates. Rewards: the answer is right (outcome), the text ends in one answer (format);
process rewards: every line graded. trl.grpo takes the two rewards, grpo_process the lines alone, pass all three.

Every update is a line of target/train-demo/PRESET-SEED.jsonl, with what the other presets would have given the same rollouts. A run that was
interrupted goes on from its last checkpoint; one that is finished is not repeated. At the end a table and target/train-demo/train.png.

    python train.py                   all runs: about a quarter of an hour of one core
    python train.py --updates 5 --seeds 1
"""
from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

# A machine without a network is no reason to wait for one.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import policy
import report
import task
import torch
from datasets import Dataset
from tqdm import tqdm
from transformers import LlamaForCausalLM, PrinterCallback, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging
from trl import GRPOConfig

from passrl.plugins.trl import PassGRPOTrainer

PRESETS = ("pass", "trl.grpo", "grpo_process")
# Rollouts an update, in groups of GROUP.
BATCH, GROUP = 64, 8
HELD_OUT = 128
RATE = 5e-4
# The same however many updates are asked for, so that a run can be made longer.
PROBLEMS = 4096
# Advantages that differ by less are the same to the eye of an optimizer.
SAME = 1e-3


def texts(ids: Any) -> list[str]:
    """The tokens of a completion, to its end."""
    found = [task.TOKENS[int(i)] for i in ids]
    return found[: found.index(task.END) + 1] if task.END in found else found


def graded(prompts: Any, completion_ids: Any) -> list[dict[str, Any]]:
    return [task.graded(task.read(prompt), texts(ids)) for prompt, ids in zip(prompts, completion_ids)]


def correct(prompts: Any, completion_ids: Any, **_: Any) -> list[float]:
    """Outcome reward: the answer is the chain's value."""
    return [float(one["outcome"]) for one in graded(prompts, completion_ids)]


def tidy(prompts: Any, completion_ids: Any, **_: Any) -> list[float]:
    """Format reward: the text ends in one answer and has no other."""
    return [float(one["format"]) for one in graded(prompts, completion_ids)]


def process(prompts: Any, completion_ids: Any, **_: Any) -> list[dict[str, Any]]:
    """Process record: a grade a line."""
    return [{key: one[key] for key in ("step_end", "step_score")} for one in graded(prompts, completion_ids)]


class Recorded(PassGRPOTrainer):  # type: ignore[misc, unused-ignore]
    """Keeps, of each update, what its rollouts were and what the other presets would have given them."""

    row: dict[str, Any] = {}

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        output = super()._generate_and_score_completions(inputs)
        mask = output["completion_mask"]
        inside = mask.numpy() != 0
        found = graded([one["prompt"] for one in inputs], [ids[: int(n)] for ids, n in zip(output["completion_ids"], mask.sum(1))])
        grades = np.concatenate([one["step_score"] for one in found])
        self.row = {
            "outcome": float(np.mean([one["outcome"] for one in found])), "format": float(np.mean([one["format"] for one in found])),
            "good_lines": float((grades > 0).mean()), "lines": len(grades) / len(found), "length": float(inside.sum(1).mean()),
            "zeros": float((output["advantages"].numpy()[inside] == 0).mean()),
        }
        ours = self.shape_as("pass", mask, GROUP).advantages.numpy()[inside]
        for rival in PRESETS[1:]:
            theirs = self.shape_as(rival, mask, GROUP).advantages.numpy()[inside]
            self.row[f"differ {rival}"] = float((np.abs(ours - theirs) > SAME).mean())
            self.row[f"sign {rival}"] = float((np.sign(ours) != np.sign(theirs)).mean())
        return output


def held_out(model: Any, tokenizer: Any) -> float:
    """Share of right answers to problems that no update sees, sampled as in training."""
    random = task.Random(1_000_003)
    problems = [task.draw(random) for _ in range(HELD_OUT)]
    asked = tokenizer([task.prompt(problem) for problem in problems], return_tensors="pt", padding=True)
    was_training = model.training
    model.eval()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        written = model.generate(input_ids=asked["input_ids"], attention_mask=asked["attention_mask"], do_sample=True, max_new_tokens=task.MOST_TOKENS)
    model.train(was_training)
    return float(np.mean([task.graded(problem, texts(row[asked["input_ids"].shape[1] :]))["outcome"] for problem, row in zip(problems, written)]))


class Writer(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """A line a update, as it goes."""

    def __init__(self, path: Path, bar: Any, every: int) -> None:
        self.path, self.bar, self.every = path, bar, every
        self.trainer: Any = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        row = {"update": state.global_step, **self.trainer.row}
        if state.global_step % self.every == 0 or state.global_step == 1:
            row["held_out"] = held_out(self.trainer.model, self.trainer.processing_class)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.bar.update()
        self.bar.set_postfix(right=f"{row['outcome']:.2f}", tidy=f"{row['format']:.2f}", length=f"{row['length']:.1f}")


def run(out: Path, preset: str, seed: int, updates: int, bar: Any) -> None:
    """One run, from where it stands."""
    path, folder = out / f"{preset}-{seed}.jsonl", out / f"{preset}-{seed}"
    lines = path.read_text().splitlines() if path.exists() else []
    if len(lines) >= updates and not folder.exists():
        bar.update(updates)
        return
    checkpoint = get_last_checkpoint(str(folder)) if folder.exists() else None
    begun = json.loads((Path(checkpoint) / "trainer_state.json").read_text())["global_step"] if checkpoint else 0
    # What came after the checkpoint is done again.
    path.write_text("".join(f"{line}\n" for line in lines[:begun]))
    bar.update(begun)
    random = task.Random(seed + 1)
    problems = Dataset.from_list([{"prompt": task.prompt(task.draw(random))} for _ in range(PROBLEMS)])
    writer = Writer(path, bar, every=10)
    config = GRPOConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, report_to=[], disable_tqdm=True, logging_strategy="no", seed=seed, max_steps=updates,
        per_device_train_batch_size=BATCH, num_generations=GROUP, max_completion_length=task.MOST_TOKENS, learning_rate=RATE, lr_scheduler_type="constant",
        beta=0.0, loss_type="dr_grpo", gradient_checkpointing=False, save_strategy="steps", save_steps=25, save_total_limit=1)
    trainer = Recorded(
        model=LlamaForCausalLM.from_pretrained(out / "start"), processing_class=policy.tokenizer(), reward_funcs=[correct, tidy], args=config,
        train_dataset=problems, callbacks=[writer], preset=preset, process_func=process, format_func="tidy")
    writer.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=checkpoint)
    shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="PASS, GRPO and process-supervised GRPO in TRL's GRPOTrainer")
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("target/train-demo"))
    chosen = parser.parse_args()
    # Small matrices: a second thread only waits for the first.
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    chosen.out.mkdir(parents=True, exist_ok=True)
    policy.imitate(chosen.out / "start", texts=6000, epochs=6, temperature=1.0)
    bar = tqdm(total=len(PRESETS) * chosen.seeds * chosen.updates, unit="update", smoothing=0.05)
    for seed in range(chosen.seeds):
        for preset in PRESETS:
            bar.set_description(f"{preset}, seed {seed}")
            run(chosen.out, preset, seed, chosen.updates, bar)
            if chosen.updates > 1:
                tqdm.write(report.line(chosen.out / f"{preset}-{seed}.jsonl", f"{preset}, seed {seed}"))
    bar.close()
    runs = report.load(chosen.out, PRESETS, chosen.seeds, chosen.updates)
    print(report.table(runs))
    report.draw(runs, chosen.out / "train.png")
    print(f"picture: {chosen.out / 'train.png'}")


if __name__ == "__main__":
    main()
