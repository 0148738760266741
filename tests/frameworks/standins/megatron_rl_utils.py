"""Stand-in of megatron/rl/rl_utils.py (NVIDIA/Megatron-LM d98e8a64): group statistics in float64 with ddof 0, a number a turn; the caller takes the name from the module."""
import numpy as np


def calculate_grpo_advantages(rewards, num_turns):
    found = []
    for group, turns in zip(rewards, num_turns):
        values = np.asarray(group, dtype=np.float64)
        for value, count in zip((values - values.mean()) / (1e-4 + values.std()), turns):
            found += [float(value)] * count
    return found


def compute_group_stats(rollouts):
    rewards = [[rollout.reward for rollout in group] for group in rollouts]
    num_turns = [[len(rollout.trajectory) for rollout in group] for group in rollouts]
    return {"rewards": rewards, "num_turns": num_turns, "advantages": calculate_grpo_advantages(rewards, num_turns)}
