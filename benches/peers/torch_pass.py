"""PASS (arXiv 2606.29296, Algorithms 1-3) written in torch as one would who wants it fast: no loop over rollouts, groups or tokens, float32 where that holds.

The rollouts of a group stand together. Divide-Length's count and the return-to-go are cumulative sums from the end, one value a chunk's last token.
"""
from __future__ import annotations

import torch
from torch import Tensor

ETA, EPSILON, K = 1e-8, 1e-6, 0.7


def _standard(x: Tensor, group: int) -> Tensor:
    """[B] values, standardised over each group."""
    rows = x.view(-1, group)
    return ((rows - rows.mean(1, keepdim=True)) / (rows.std(1, keepdim=True) + EPSILON)).view(-1)


def _sequence(outcome: Tensor, format_: Tensor, ok: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Per rollout: what is added to the process term, and what that term is multiplied by."""
    normal = _standard(format_, group)
    return torch.where(ok, _standard(outcome, group) + normal, 3 * normal), ok.float()


def _moments(count: Tensor, total: Tensor, square: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, and 1 / (std + epsilon), of sets given by their sums in float64."""
    mean = total / count
    variance = (square - total * mean) / (count - 1)
    return mean.float(), (1 / (variance.clamp(min=0).sqrt() + EPSILON)).float()


def _to_go(x: Tensor) -> Tensor:
    return x.flip(-1).cumsum(-1).flip(-1)


def _padded(fused: Tensor, ends: Tensor, scope: Tensor) -> Tensor:
    count = _to_go(ends.to(torch.float32))
    return torch.where(scope, _to_go(torch.where(ends, fused, 0.0)) * count.clamp(min=1).pow(-K), 0.0)


def prm_padded(signal: Tensor, mask: Tensor, outcome: Tensor, format_: Tensor, ok: Tensor, group: int) -> Tensor:
    scope = mask.bool()
    ends = scope.clone()
    ends[:, :-1] &= ~scope[:, 1:] | ((signal[:, 1:] - signal[:, :-1]).abs() > ETA)
    values = torch.where(ends, signal, 0.0)

    def grouped(x: Tensor) -> Tensor:
        return x.sum(1, dtype=torch.float64).view(-1, group).sum(1)

    mean, inverse = _moments(grouped(ends), grouped(values), grouped(values * values))
    beyond, gate = _sequence(outcome, format_, ok, group)
    scale = inverse.repeat_interleave(group) * gate
    shift = beyond - mean.repeat_interleave(group) * scale
    return _padded(signal * scale[:, None] + shift[:, None], ends, scope)


def kl_padded(signal: Tensor, mask: Tensor, outcome: Tensor, format_: Tensor, ok: Tensor, group: int) -> Tensor:
    scope = mask.bool()
    values = torch.where(scope, signal, 0.0)

    def grouped(x: Tensor) -> Tensor:
        return x.sum(1, dtype=torch.float64).view(-1, group).sum(1)

    mean, inverse = _moments(grouped(scope), grouped(values), grouped(values * values))
    live = scope.view(-1, group, scope.shape[1]).sum(1)
    average = (values.view(-1, group, scope.shape[1]).sum(1) / live.clamp(min=1) - mean[:, None]) * inverse[:, None]
    edge = (average[:, 1:] - average[:, :-1]).abs() > ETA
    ends = scope.clone()
    ends[:, :-1] &= ~scope[:, 1:] | edge.repeat_interleave(group, 0)
    beyond, gate = _sequence(outcome, format_, ok, group)
    scale = inverse.repeat_interleave(group) * gate
    shift = beyond - mean.repeat_interleave(group) * scale
    return _padded(signal * scale[:, None] + shift[:, None], ends, scope)


def _packed(fused: Tensor, chunks: Tensor, row: Tensor) -> Tensor:
    """Chunk values to advantages a chunk: `chunks` [R] of them a rollout, `row` [C] the rollout of each."""
    behind = chunks.cumsum(0)
    # From the end of the batch in float64, less what lies behind the rollout.
    total = fused.double().flip(0).cumsum(0).flip(0)
    after = torch.cat([total, total.new_zeros(1)])[behind]
    left = behind[row] - torch.arange(len(fused))
    return ((total - after[row]) * left.double().pow(-K)).float()


def prm_packed(signal: Tensor, cu_seqlens: Tensor, outcome: Tensor, format_: Tensor, ok: Tensor, group: int) -> Tensor:
    ends = torch.empty(len(signal), dtype=torch.bool)
    torch.gt((signal[1:] - signal[:-1]).abs(), ETA, out=ends[:-1])
    ends[cu_seqlens[1:] - 1] = True
    at = ends.nonzero().squeeze(1)
    values = signal[at]
    row = torch.searchsorted(cu_seqlens[1:], at, right=True)
    chunks = torch.bincount(row, minlength=len(outcome))

    def grouped(x: Tensor) -> Tensor:
        return torch.segment_reduce(x.double(), "sum", lengths=chunks.view(-1, group).sum(1))

    mean, inverse = _moments(chunks.view(-1, group).sum(1), grouped(values), grouped(values * values))
    beyond, gate = _sequence(outcome, format_, ok, group)
    scale = inverse.repeat_interleave(group) * gate
    shift = beyond - mean.repeat_interleave(group) * scale
    advantages = _packed(values * scale[row] + shift[row], chunks, row)
    return advantages.repeat_interleave(torch.diff(at, prepend=at.new_full((1,), -1)), output_size=len(signal))


def kl_packed(signal: Tensor, cu_seqlens: Tensor, outcome: Tensor, format_: Tensor, ok: Tensor, group: int) -> Tensor:
    lengths = cu_seqlens.diff()
    row = torch.arange(len(lengths)).repeat_interleave(lengths, output_size=len(signal))
    position = torch.arange(len(signal)) - cu_seqlens[row]

    def grouped(x: Tensor) -> Tensor:
        return torch.segment_reduce(x.double(), "sum", lengths=lengths.view(-1, group).sum(1))

    mean, inverse = _moments(lengths.view(-1, group).sum(1), grouped(signal), grouped(signal * signal))
    # A row of positions a group.
    longest = int(lengths.max())
    where = row.div(group, rounding_mode="floor") * longest + position
    sums = torch.zeros(len(mean) * longest).index_add_(0, where, signal).view(len(mean), longest)
    live = torch.zeros(len(mean) * longest).index_add_(0, where, torch.ones_like(signal)).view(len(mean), longest)
    average = (sums / live.clamp(min=1) - mean[:, None]) * inverse[:, None]
    edge = torch.ones_like(average, dtype=torch.bool)
    torch.gt((average[:, 1:] - average[:, :-1]).abs(), ETA, out=edge[:, :-1])
    ends = edge.view(-1)[where]
    ends[cu_seqlens[1:] - 1] = True
    at = ends.nonzero().squeeze(1)
    rows = row[at]
    beyond, gate = _sequence(outcome, format_, ok, group)
    scale = inverse.repeat_interleave(group) * gate
    shift = beyond - mean.repeat_interleave(group) * scale
    advantages = _packed(signal[at] * scale[rows] + shift[rows], torch.bincount(rows, minlength=len(lengths)), rows)
    return advantages.repeat_interleave(torch.diff(at, prepend=at.new_full((1,), -1)), output_size=len(signal))
