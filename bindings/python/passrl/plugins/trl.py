"""TRL: a `GRPOTrainer` whose advantages are passrl's, one a token, for every `loss_type`.

    from passrl.plugins.trl import PassGRPOTrainer

    trainer = PassGRPOTrainer(model, reward_funcs=[correct, tidy], args=config, train_dataset=dataset,
                              preset="pass:k=0.7", process_func=steps, format_func="tidy")

process_func is called as a reward function is and gives a record a completion (see `records`), with offsets in the completion's tokens. The first
reward function is the outcome, the one that format_func names is the format reward (not 0: the format is right), the others are further streams;
`reward_weights` are their weights. NaN and None leave a value out, as in TRL.

Rewards, records and the mask of all processes are gathered, as TRL gathers rewards: groups may lie across processes. `scale_rewards` and
`multi_objective_aggregation` have no say: the preset does (`trl.grpo`, `trl.dr_grpo`, `trl.gdpo`, ... are TRL's own).
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from trl import GRPOTrainer

from ..config import Config
from ..errors import ERR_VALUE, refuse
from ..results import GroupFlag, Shaped
from ..shape import shape
from . import records
from .settings import configured


class PassGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """`trl.GRPOTrainer` with per-token advantages.

    preset: `NAME[:KEY=VALUE,...]` or a `passrl.Config`. process_func: `f(prompts=, completions=, completion_ids=, **columns)` -> a record (or None) a
    completion; needed where the preset reads process rewards. format_func: name (or number) of the reward function that is the format reward.
    The other arguments are GRPOTrainer's. After a step `last_shaped` is the result for the whole batch and `trl_advantages` what TRL would have
    taken for this process's completions, `[B]`.
    """

    def __init__(self, *arguments: Any, preset: str | Config = "pass", process_func: Callable[..., Sequence[Any]] | None = None,
                 format_func: str | int | None = None, **named: Any) -> None:
        self.shape_config = configured(preset)
        self.process_func = process_func
        self.last_shaped: Shaped | None = None
        self.trl_advantages: torch.Tensor | None = None
        self._rewards: torch.Tensor | None = None
        self._records: list[Any] = []
        super().__init__(*arguments, **named)
        names = list(self.reward_func_names)
        if isinstance(format_func, str) and format_func not in names:
            refuse(ERR_VALUE, f"passrl: format_func is {format_func!r}, which is none of the reward functions: {', '.join(names)}")
        self._format = names.index(format_func) if isinstance(format_func, str) else format_func
        if self.shape_config.kind == "prm" and process_func is None:
            refuse(ERR_VALUE, "passrl: the configuration reads process rewards (kind = prm) and process_func is not given; PassGRPOTrainer(process_func=f) "
                              "with f(prompts, completions, completion_ids, **columns) -> a record a completion, or another preset")
        if self._format == 0 or (self._format or 0) >= len(names):
            refuse(ERR_VALUE, f"passrl: format_func is reward function {self._format} of {len(names)}; number 0 is the outcome")

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._rewards = rewards
        found: list[Any] = [None] * len(prompts)
        if self.process_func is not None:
            columns = {key: [example[key] for example in inputs] for key in inputs[0] if key not in ("prompt", "completion", "completion_ids")}
            found = list(self.process_func(prompts=prompts, completions=completions, completion_ids=completion_ids_list, trainer_state=self.state, **columns))
            if len(found) != len(prompts):
                refuse(ERR_VALUE, f"passrl: process_func gave {len(found)} records for {len(prompts)} completions; it gives one each (None: no process rewards)")
        self._records = gather_object(found)
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        output = super()._generate_and_score_completions(inputs)
        mask = output["completion_mask"]
        if "tool_mask" in output:
            mask = mask * output["tool_mask"]
        mode = "train" if self.model.training else "eval"
        self.last_shaped = shaped = self.shape_as(self.shape_config, self._gathered(mask), self.num_generations if mode == "train" else self.num_generations_eval)
        begin = self.accelerator.process_index * len(mask)
        self.trl_advantages = output["advantages"]
        output["advantages"] = shaped.advantages[begin : begin + len(mask), : mask.shape[1]].to(mask.device)
        self._log_shaped(mode, shaped)
        return output

    def _gathered(self, mask: torch.Tensor) -> torch.Tensor:
        if self.accelerator.num_processes == 1:
            return mask
        gathered: torch.Tensor = self.accelerator.gather(self.accelerator.pad_across_processes(mask.contiguous(), dim=1))
        return gathered

    def shape_as(self, preset: str | Config, mask: torch.Tensor, group_size: int) -> Shaped:
        """Shapes the last batch by a configuration: mask `[B, T]`, with the rewards `[B, F]` and records of all processes. On the host, where those are."""
        assert self._rewards is not None
        mask, width = mask.cpu(), mask.shape[1]
        rewards, weights = self._rewards.double().cpu().numpy(), self.reward_weights.tolist()
        config = configured(preset)
        told, rows = config.told, config.streams
        if not any(key.endswith("missing") for key in told):
            # What no reward function covers is left out of its statistics, as with TRL's nanmean.
            config.set("missing", "exclude")
        lengths = ((mask != 0) * torch.arange(1, width + 1)).amax(-1).numpy() if width else np.zeros(len(mask), dtype=np.int64)
        batch = records.arguments(config, self._records, rewards[:, 0], lengths, width=width, where="process_func")
        if rows["outcome"].weight != 0 and not {"w_outcome", "outcome.weight"} & told:
            config.set("w_outcome", weights[0])
        streams = dict(batch.pop("streams", None) or {})
        for f, name in enumerate(self.reward_func_names):
            if f == self._format and (rows["format"].weight != 0 or {"w_format", "format.weight"} & told):
                batch |= {"format": rewards[:, f], "format_ok": rewards[:, f] != 0}
                if not {"w_format", "format.weight"} & told:
                    config.set("w_format", weights[f])
            elif f and config.fusion in ("advantage", "reward_sum"):
                # A preset without a format reward: one reward among others.
                streams[str(name).encode()[:31].decode(errors="ignore")] = (rewards[:, f], weights[f])
        if streams:
            batch["streams"] = streams
        return records.told(shape(config, mask=mask, group_size=group_size, out=torch.empty(mask.shape, dtype=torch.float32), **batch))

    def _log_shaped(self, mode: str, shaped: Shaped) -> None:
        """TRL's logs, with the path score where it has an advantage a completion, and what the groups had to say."""
        scores = [float(score) for score in shaped.path_scores]
        kept = self._logs["advantages"]
        for _ in range(min(len(scores), len(kept))):
            kept.pop()
        kept.extend(scores)
        report, metrics = shaped.report, self._metrics[mode]
        flags = np.asarray(shaped.group_flags)[:, shaped.stream_names.index("outcome")]
        metrics["passrl/chunks"].append(report.chunks / max(report.rollouts, 1))
        metrics["passrl/zero_variance_groups"].append(float(np.mean((flags & GroupFlag.ZERO_VARIANCE) != 0)) if len(flags) else 0.0)
        metrics["passrl/bad_groups"].append(float(report.bad_groups))
