"""A page of a batch: one HTML file with its data inside, for a browser without a network."""
from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..groups import group_index
from ..results import Shaped
from . import distributions, table
from .distributions import counted
from .rollouts import Rollouts
from .shaper import differences
from .terms import Terms

# Bytes of a page's data above which it is cut to whole groups: more makes a browser slow.
MOST_BYTES = 8 << 20
DIGITS = 8
# Fields of the configuration that are told.
MOST_FIELDS = 12


class TooLarge(Exception):
    """Not one group fits in a page."""


def write(path: Path, rollouts: Rollouts, name: str, config: Config, shaped: Shaped, terms: Terms, most_bytes: int = MOST_BYTES, groups: int = 0) -> str:
    """Writes the page of a batch under a preset `name`; returns what was left out, in words, or "".

    groups: how many groups there are in all, where the batch is the first of several. Errors: `TooLarge`, OSError.
    """
    held = len(set(rollouts.group))
    found, said = _cut(_groups(rollouts, name, shaped, terms), max(groups, held), most_bytes)
    if held < groups:
        said = (said or f"This page holds the first {held:,} of {groups:,} groups.").replace("The overview is of all.", "").strip()
        said += f" The overview is of the first {held:,}."
    told = differences(config)
    data = {
        "title": f"{name}: advantages of {counted(held, 'group')}, {counted(len(rollouts), 'rollout')}, "
                 f"{counted(int((terms.chunk >= 0).sum()), 'token')} in scope",
        "about": f"preset {name}; " + (", ".join(f"{field} = {value}" for field, value, _ in told[:MOST_FIELDS]) or "every field is the default")
                 + (f", and {len(told) - MOST_FIELDS} more" if len(told) > MOST_FIELDS else ""),
        "cut": said,
        "streams": [{"name": stream, "colour": distributions.colour(stream, i)} for i, stream in enumerate(terms.names)],
        "k": config.k,
        "most": _number(np.abs(terms.advantages).max(initial=0.0)),
        "overview": _overview(distributions.measure(rollouts, shaped, terms)),
    }
    text = '{"groups":[' + ",".join(found) + "]," + _json(data)[1:]
    path.write_text(render(text, str(data["title"])), encoding="utf-8")
    return said


def render(data: str, title: str) -> str:
    """The template with its data. Nothing of the data is HTML: `<` is written `\\u003c`, and the script sets text, never markup."""
    template = resources.files(__package__).joinpath("page.html").read_text("utf-8")
    script = template[template.index("<script>") + len("<script>") : template.rindex("</script>")]
    marks = {
        "@SCRIPT_HASH@": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(), "@TITLE@": html.escape(title),
        "@DATA@": data.replace("<", "\\u003c"),
    }
    return re.sub("|".join(marks), lambda found: marks[found[0]], template)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def _number(value: float) -> float | None:
    """Eight digits: A is f32; None for what is no number."""
    value = float(value)
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _numbers(values: Iterable[float]) -> list[float | None]:
    return [_number(value) for value in values]


def _cut(groups: Iterable[tuple[str, dict[str, Any]]], count: int, most: int) -> tuple[list[str], str]:
    """The first groups whose JSON fits in `most` bytes, and the sentence about the others."""
    found: list[str] = []
    size = 0
    for key, group in groups:
        text = _json(group)
        # As it will be written: "<" takes six bytes there.
        size += len(text) + 5 * text.count("<") + 1
        if size > most:
            if not found:
                raise TooLarge(f"group {key} alone has {size / 1e6:.1f} MB of data, and a page holds {most / 1e6:.1f} MB at most; give a file with "
                               "fewer or shorter rollouts, or leave tokens out of it")
            return found, f"This page holds the first {len(found):,} of {count:,} groups: the data of all is more than {most / 1e6:.1f} MB. The overview is of all."
        found.append(text)
    return found, ""


def _groups(rollouts: Rollouts, name: str, shaped: Shaped, terms: Terms) -> Iterable[tuple[str, dict[str, Any]]]:
    run = table.Run(name, shaped)
    rows = table.groups(rollouts, run, group_index(rollouts.group)[0], terms.chunk >= 0)
    dead = distributions.dead_groups(rollouts, shaped)
    for row in rows:
        yield str(row.key), {
            "key": str(row.key), "dead": bool(dead[row.number]), "flags": row.flags,
            "rollouts": [_rollout(rollouts, shaped, terms, int(i)) for i in row.rows],
        }


def _rollout(rollouts: Rollouts, shaped: Shaped, terms: Terms, i: int) -> dict[str, Any]:
    """segments: [begin, end, chunk, A, G, D] of the runs of tokens that have the same of all; chunks: [F, terms ...] a chunk."""
    at = slice(int(rollouts.cu_seqlens[i]), int(rollouts.cu_seqlens[i + 1]))
    mine = slice(int(shaped.chunk_offsets[i]), int(shaped.chunk_offsets[i + 1]))
    found: dict[str, Any] = {
        "sample": str(rollouts.sample[i]), "len": at.stop - at.start, "score": _number(shaped.path_scores[i]),
        "chunks": [[_number(terms.fused[c]), *_numbers(terms.parts[:, c])] for c in range(mine.start, mine.stop)],
        "segments": _segments(terms, at, mine.start),
    }
    if rollouts.outcome is not None:
        found["outcome"] = _number(rollouts.outcome[i])
    if rollouts.format_ok is not None:
        found["format_ok"] = bool(rollouts.format_ok[i])
    tokens = getattr(rollouts, "tokens", None)
    if tokens is not None:
        found["tokens"] = [str(token) for token in tokens[i]]
    return found


def _segments(terms: Terms, at: slice, first: int) -> list[list[Any]]:
    chunk, values = terms.chunk[at], np.stack([terms.advantages[at], terms.returns[at], terms.divided[at]])
    if len(chunk) == 0:
        return []
    cuts: NDArray[np.int64] = np.flatnonzero((np.diff(chunk) != 0) | (np.diff(values) != 0).any(axis=0)) + 1
    bounds = [0, *cuts.tolist(), len(chunk)]
    return [[b, e, int(chunk[b]) - first + 1, *_numbers(values[:, b])] for b, e in zip(bounds, bounds[1:]) if chunk[b] >= 0]


def _overview(batch: distributions.Batch) -> dict[str, Any]:
    def bands(one: distributions.Bands) -> dict[str, Any]:
        return {"bins": one.bins, "values": [_numbers(row) for row in one.values]}

    return {
        "share": [_number(part) for part in batch.share.values()], "position": bands(batch.position), "residual": bands(batch.residual),
        "undivided": bands(batch.undivided), "groups": list(batch.groups.items()),
    }
