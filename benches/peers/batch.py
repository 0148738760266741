"""The batches of both sides: the same tensors, in the sizes of benches/support/workload.rs."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

# Rollouts, longest rollout, groups.
SIZES = {"small": (512, 1024, 64), "paper": (2048, 6144, 128), "large": (8192, 4096, 512)}


@dataclass
class Batch:
    """Padded tensors are [B, T], zero behind the rollouts' ends; packed ones [N]."""

    group_size: int
    lengths: torch.Tensor
    cu_seqlens: torch.Tensor
    mask: torch.Tensor
    outcome: torch.Tensor
    format: torch.Tensor
    format_ok: torch.Tensor
    # Three rewards a rollout, [B, 3].
    functions: torch.Tensor
    # The trainers' keys of prompts.
    uid: Any
    dense: torch.Tensor
    dense_packed: torch.Tensor
    kl: torch.Tensor
    kl_packed: torch.Tensor
    # The outcome on the last token; rewards on every token; a critic's values.
    last_token_rewards: torch.Tensor
    token_rewards: torch.Tensor
    values: torch.Tensor

    @property
    def rollouts(self) -> int:
        return len(self.lengths)

    @property
    def width(self) -> int:
        return self.mask.shape[1]

    @property
    def tokens(self) -> int:
        return int(self.cu_seqlens[-1])

    @property
    def slots(self) -> int:
        return self.mask.numel()

    @property
    def in_scope(self) -> torch.Tensor:
        return self.mask.bool()


def make(size: str) -> Batch:
    """Lognormal lengths with a mean of about 40% of the longest, steps of about 60 tokens, 10% of the formats bad."""
    rollouts, longest, groups = SIZES[size]
    random = np.random.default_rng(rollouts)
    spread = 0.6
    lengths = np.exp(np.log(0.42 * longest) - spread**2 / 2 + spread * random.normal(size=rollouts)).astype(np.int64).clip(1, longest)
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)])
    mask = np.arange(longest) < lengths[:, None]
    tokens = int(cu_seqlens[-1])

    def padded(packed: Any) -> torch.Tensor:
        rows = np.zeros((rollouts, longest), np.float32)
        rows[mask] = packed
        return torch.from_numpy(rows)

    # Steps run over the ends of rollouts, which cut them.
    steps = np.maximum(1, 60 * np.exp(0.4 * random.normal(size=tokens // 30 + 100) - 0.08)).astype(np.int64)
    scores = (random.integers(0, 512, size=len(steps)) - 256).astype(np.float32) / 256
    dense = np.repeat(scores, steps)[:tokens]
    kl = (-0.1 * random.normal(size=tokens) * random.normal(size=tokens)).astype(np.float32)
    outcome = random.integers(0, 2, size=rollouts).astype(np.float32)
    format_ok = random.integers(0, 10, size=rollouts) != 0
    last = np.zeros(tokens, np.float32)
    last[cu_seqlens[1:] - 1] = outcome
    functions = np.stack([outcome, random.integers(0, 5, size=rollouts) / 5, random.integers(0, 9, size=rollouts) / 9], axis=1).astype(np.float32)
    return Batch(
        group_size=rollouts // groups, lengths=torch.from_numpy(lengths), cu_seqlens=torch.from_numpy(cu_seqlens), mask=torch.from_numpy(mask.astype(np.int64)),
        outcome=torch.from_numpy(outcome), format=torch.from_numpy(format_ok.astype(np.float32)), format_ok=torch.from_numpy(format_ok),
        functions=torch.from_numpy(functions), uid=np.array([f"prompt-{i // (rollouts // groups)}" for i in range(rollouts)], dtype=object),
        dense=padded(dense), dense_packed=torch.from_numpy(dense), kl=padded(kl), kl_packed=torch.from_numpy(kl), last_token_rewards=padded(last),
        token_rewards=padded((0.02 * random.normal(size=tokens)).astype(np.float32)), values=padded((0.5 + 0.2 * random.normal(size=tokens)).astype(np.float32)))
