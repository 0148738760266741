"""What a picture of a group says in words: the paper's three troubles of the baselines, measured on the rollouts that are drawn."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..groups import group_index
from ..results import Shaped
from .lines import printable
from .rollouts import Rollouts

# The presets that the sentences are about.
POOLED, PROCESS, PASS = "grpo_pooled", "grpo_process", "pass"


@dataclass
class Notes:
    """sentences: the caption. moves: `[N]` bool, the signal differs from the token's before, or None where its steps are not known.
    flipped: preset, rollout, tokens to mark. pointed: preset, rollout to point at."""

    sentences: list[str]
    moves: NDArray[np.bool_] | None
    flipped: dict[str, dict[int, list[int]]] = field(default_factory=dict)
    pointed: dict[str, int] = field(default_factory=dict)


def notes(rollouts: Rollouts, shaped: Mapping[str, Shaped], rows: NDArray[np.int64]) -> Notes:
    """Of a group's drawn rollouts `rows` under the presets of `shaped`; without the paper's presets there is nothing to compare them with."""
    signal = _signal(rollouts, shaped)
    made = Notes([], None if signal is None else np.concatenate([[False], np.diff(signal) != 0]) if len(signal) else np.zeros(0, np.bool_))
    _contamination(made, rollouts, shaped, rows)
    if len(shaped) > 1 and made.moves is not None:
        _resolution(made, rollouts, shaped, rows)
    if len(shaped) > 1:
        _trap(made, shaped, rollouts, rows)
    return made


def _scored(rollouts: Rollouts, shaped: Mapping[str, Shaped]) -> bool:
    """Whether the runs took the steps' scores: a file may have log-probabilities beside them. The elements of their process set say it."""
    if rollouts.step_score is None:
        return False
    sets = [one.stats["process_0"].count.sum() for one in shaped.values() if one.stats is not None and "process_0" in one.stats]
    return min(sets, default=0) == len(rollouts.step_score)


def _signal(rollouts: Rollouts, shaped: Mapping[str, Shaped]) -> NDArray[np.float64] | None:
    """The process signal at each token, `[N]`; NaN outside the steps. None where it is not the file's own (log-probabilities)."""
    if not _scored(rollouts, shaped):
        return None if rollouts.signal is None else np.asarray(rollouts.signal, dtype=np.float64)
    assert rollouts.step_score is not None and rollouts.step_end is not None and rollouts.step_offsets is not None
    start = np.repeat(rollouts.cu_seqlens[:-1], np.diff(rollouts.step_offsets))
    signal = np.full(int(rollouts.cu_seqlens[-1]), np.nan)
    for begin, end, score in zip(start + step_begins(rollouts), start + rollouts.step_end, rollouts.step_score):
        signal[begin:end] = score
    return signal


def step_begins(rollouts: Rollouts) -> NDArray[np.int64]:
    """First token of each step, `[S]`, an offset in its rollout."""
    assert rollouts.step_end is not None and rollouts.step_offsets is not None
    if rollouts.step_begin is not None:
        return rollouts.step_begin
    begins = np.concatenate([[0], rollouts.step_end[:-1]]).astype(np.int64)
    first = rollouts.step_offsets[:-1]
    begins[first[np.diff(rollouts.step_offsets) > 0]] = 0
    return begins


def shifted(rollouts: Rollouts, shaped: Mapping[str, Shaped]) -> NDArray[np.bool_] | None:
    """Steps, `[S]`, whose advantage has another sign in grpo_pooled than the same sums would have with every stream on its own mean and scale.

    Those sums are grpo_process, whose steps have their own statistics, plus outcome and format by theirs. None where a preset or the
    steps' scores are not there.
    """
    if not {POOLED, PROCESS, PASS} <= set(shaped) or not _scored(rollouts, shaped):
        return None
    assert rollouts.step_offsets is not None
    owner = np.repeat(np.arange(len(rollouts)), np.diff(rollouts.step_offsets))
    at = rollouts.cu_seqlens[owner] + step_begins(rollouts)
    own, stats, group = np.asarray(shaped[PROCESS].advantages, dtype=np.float64)[at], shaped[PASS].stats, group_index(rollouts.group)[0]
    for name, values in (("outcome", rollouts.outcome), ("format", rollouts.format)):
        if values is not None and stats is not None and name in stats:
            std = stats[name].std[group]
            own += np.where(std > 0, (values - stats[name].mean[group]) / np.where(std > 0, std, 1.0), 0.0)[owner]
    turned: NDArray[np.bool_] = own * np.asarray(shaped[POOLED].advantages, dtype=np.float64)[at] < 0
    return turned


def _contamination(made: Notes, rollouts: Rollouts, shaped: Mapping[str, Shaped], rows: NDArray[np.int64]) -> None:
    """What one mean and one scale for steps, outcome and format does to signs."""
    turned = shifted(rollouts, shaped)
    if turned is None:
        return
    assert rollouts.step_score is not None and rollouts.step_offsets is not None
    steps = {int(i): slice(int(rollouts.step_offsets[i]), int(rollouts.step_offsets[i + 1])) for i in rows}
    scores = np.concatenate([rollouts.step_score[mine] for mine in steps.values()])
    if len(scores) == 0:
        return
    begins, mean = step_begins(rollouts), float(np.nanmean(scores))
    marked = {i: begins[mine][turned[mine]].tolist() for i, mine in steps.items()}
    made.flipped[POOLED] = {i: tokens for i, tokens in marked.items() if tokens}
    good = sum(int(np.count_nonzero(turned[mine] & (rollouts.step_score[mine] > mean))) for mine in steps.values())
    rest = [(name, values[rows]) for name, values in (("outcome", rollouts.outcome), ("format", rollouts.format)) if values is not None]
    pooled = float(np.nanmean(np.concatenate([scores, *(values for _, values in rest)])))
    made.sentences.append(
        f"① Contamination ({POOLED}): one mean, {pooled:.2f}, for steps ({mean:.2f} alone)" + "".join(f", {name} ({np.nanmean(v):.2f})" for name, v in rest)
        + f". It gives {sum(map(len, marked.values()))} of {len(scores)} steps another sign than the same sums have with each stream on its own mean and "
        f"scale (✕), {good} of them good (above the steps' mean).")


def _resolution(made: Notes, rollouts: Rollouts, shaped: Mapping[str, Shaped], rows: NDArray[np.int64]) -> None:
    """Chunk edges (between tokens in scope next to each other) at which the signal does not move."""
    scope, told = rollouts.scope(), []
    assert made.moves is not None
    for name, one in shaped.items():
        edges = still = 0
        for i in rows:
            ends = int(rollouts.cu_seqlens[i]) + _chunk_ends(one, int(i))
            ends = ends[ends < int(rollouts.cu_seqlens[i + 1])]
            ends = ends[scope[ends] & scope[ends - 1]]
            edges, still = edges + len(ends), still + int(np.count_nonzero(~made.moves[ends]))
        told.append((name, edges, still))
    words = [f"{still} of {edges} in {name}" for name, edges, still in told]
    same = len({one[1:] for one in told}) == 1
    counts = f"{told[0][2]} of {told[0][1]}" if same else ", ".join(words)
    made.sentences.append(
        f"② Resolution mismatch: chunk edges where the signal does not move (dotted): {counts}"
        + (", in all: a step end that the file gives ends a chunk in each preset; merge_equal_steps=true joins neighbours of one score."
           if same and told[0][2] else "."))


def _trap(made: Notes, shaped: Mapping[str, Shaped], rollouts: Rollouts, rows: NDArray[np.int64]) -> None:
    """The chunk whose |A| most exceeds that of its rollout's last chunk; rollouts of wrong format left aside, as `pass` gates them."""
    name = PROCESS if PROCESS in shaped else POOLED
    right = [int(i) for i in rows if rollouts.format_ok is None or rollouts.format_ok[i]]
    if name not in shaped:
        return
    found = [(float((a - a[-1]).max()), -i, int(np.argmax(a))) for i in right if len(a := np.abs(_chunk_advantages(shaped[name], rollouts, i))) > 1]
    if not found or max(found)[0] == 0:
        return
    _, i, j = max(found)
    i = -i
    made.pointed[name] = i
    token = int(_chunk_ends(shaped[name], i)[j]) - 1

    def told(one: str) -> str:
        a = _chunk_advantages(shaped[one], rollouts, i)
        here, last = a[int(np.searchsorted(_chunk_ends(shaped[one], i), token, side="right"))], a[-1]
        return f"{here:+.2f} against {last:+.2f}" + (f" ({abs(here / last):.1f} times)" if last else "")

    k = int(shaped[name].num_chunks[i])
    sentence = (f"③ Cumulative trap ({name}): the sum over the chunks that remain is not divided by how many they are, so early tokens of long rollouts weigh most. "
                f"Sample {printable(rollouts.sample[i])} (③), {k - j} chunks to go against its last: {told(name)}")
    made.sentences.append(sentence + (f"; {PASS}: {told(PASS)}." if PASS in shaped else "."))


def _chunk_ends(shaped: Shaped, i: int) -> NDArray[np.int64]:
    return np.asarray(shaped.chunk_ends[int(shaped.chunk_offsets[i]) : int(shaped.chunk_offsets[i + 1])], dtype=np.int64)


def _chunk_advantages(shaped: Shaped, rollouts: Rollouts, i: int) -> NDArray[np.float64]:
    """A at the last token of each chunk of a rollout."""
    return np.asarray(shaped.advantages, dtype=np.float64)[int(rollouts.cu_seqlens[i]) + _chunk_ends(shaped, i) - 1]
