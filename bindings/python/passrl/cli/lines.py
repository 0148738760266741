"""One line of a file of rollouts: a JSON object whose fields are checked, refused by line number with what is wrong."""
from __future__ import annotations

import difflib
import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEYS = ("group", "sample", "len", "step_begin", "step_end", "step_score", "step_group", "signal", "logp_policy", "logp_teacher", "logp_base",
        "logp_reference", "logp_behavior", "sum_pi_squared", "token_ratio", "values", "token_rewards", "outcome", "format", "format_ok",
        "baseline", "bootstrap", "tokens")
# No rollout is longer than the library's limits can say.
_LONGEST = 2**31 - 1


class BadLine(Exception):
    """A line that is refused; the text says file, line and the mend."""


def say(value: Any) -> str:
    """A value as a message shows it."""
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


# Joiners within words and emoji: no control of a terminal, though no character of their own.
_JOINERS = "\u200c\u200d"


def printable(value: Any) -> str:
    """A name from a file, or a sentence with one, for a terminal: what would control it (escapes, line ends, directions of writing) is written out."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in _JOINERS else one.encode("unicode_escape").decode() for one in text)


class Line:
    """One line's object with checks; `fail` raises with file and line."""

    __slots__ = ("file", "number", "object")

    def __init__(self, file: str, number: int, raw: bytes) -> None:
        self.file, self.number = file, number
        try:
            # A byte order mark stands at the beginning of what some editors write.
            self.object = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as fault:
            self.fail(f"is no UTF-8 text (byte {fault.start})")
        except json.JSONDecodeError as fault:
            self.fail(f"is no JSON: {fault.msg} at column {fault.colno}; write one object a line")
        except (ValueError, RecursionError) as fault:
            self.fail(f"is not read: {fault}")
        if not isinstance(self.object, dict):
            self.fail(f"is a JSON {type(self.object).__name__}; it must be an object with group, len, step_end and step_score (or signal)")

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self.file}, line {self.number}"

    def fail(self, sentence: str) -> Any:
        """Refuses the line."""
        raise BadLine(f"{self.where}: {sentence}") from None

    def has(self, key: str) -> bool:
        """Whether a key is there and not null."""
        return self.object.get(key) is not None

    def need(self, key: str, what: str) -> Any:
        """A key's value, or a refusal that names what it might have been written as."""
        if self.has(key):
            return self.object[key]
        near = [name for name in difflib.get_close_matches(key, self.object, n=1, cutoff=0.7) if name not in KEYS]
        return self.fail(f'has no "{key}" ({what})' + (f'; did you mean it by "{near[0]}"?' if near else ""))

    def key(self, key: str, value: Any) -> int | str:
        """A group's or sample's name: an integer of 64 bits or text."""
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            self.fail(f'"{key}" is {say(value)}; it must be an integer or a string')
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            self.fail(f'"{key}" is {say(value)}; an integer has 64 bits at most: write it as a string')
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                self.fail(f'"{key}" is {say(value)}, which has half of a surrogate pair and is no text; write the character itself or both halves')
        return value  # type: ignore[no-any-return]

    def group(self) -> int | str:
        """The group."""
        return self.key("group", self.need("group", "the prompt's number or name"))

    def length(self) -> int:
        """Tokens of the rollout."""
        length = self.need("len", "tokens of the rollout")
        if isinstance(length, bool) or not isinstance(length, int) or length < 0:
            self.fail(f'"len" is {say(length)}; it must be an integer, 0 or more')
        if length > _LONGEST:
            self.fail(f'"len" is {say(length)}; a rollout has {_LONGEST} tokens at most')
        return length  # type: ignore[no-any-return]

    def number_of(self, key: str, value: Any) -> float:
        """A number; true and false are 1 and 0."""
        if not isinstance(value, (int, float)):
            self.fail(f'"{key}" is {say(value)}; it must be a number')
        try:
            return float(value)
        except OverflowError:
            return self.fail(f'"{key}" is {say(value)}; it is too large for a double')  # type: ignore[no-any-return]

    def list_of(self, key: str, count: int, what: str) -> list[Any]:
        """A list of `count` elements."""
        value = self.need(key, what)
        if not isinstance(value, list):
            self.fail(f'"{key}" is {say(value)}; it must be a list, {what}')
        if len(value) != count:
            self.fail(f'"{key}" has {len(value)} elements; it must have {count}, {what}')
        return value  # type: ignore[no-any-return]

    def numbers(self, key: str, count: int, what: str) -> NDArray[np.float64]:
        """`[count]` f64; null is NaN."""
        value = self.list_of(key, count, what)
        if set(map(type, value)) <= {int, float}:
            try:
                return np.array(value, dtype=np.float64)
            except OverflowError:
                pass  # Said of the element below.
        return np.array([math.nan if one is None else self.number_of(f"{key}[{i}]", one) for i, one in enumerate(value)], dtype=np.float64)

    def integers(self, key: str, count: int, what: str) -> NDArray[np.int64]:
        """`[count]` i64."""
        value = self.list_of(key, count, what)
        for i, one in enumerate(value):
            if isinstance(one, bool) or not isinstance(one, int) or not -(2**63) <= one < 2**63:
                self.fail(f'"{key}[{i}]" is {say(one)}; it must be an integer of 64 bits')
        return np.array(value, dtype=np.int64)

    def offsets(self, key: str, length: int, count: int | None = None) -> NDArray[np.int64]:
        """Token offsets of the rollout, 0 to `length`, that do not decrease."""
        value = self.object[key]
        if not isinstance(value, list):
            self.fail(f'"{key}" is {say(value)}; it must be a list of token offsets')
        if count is not None and len(value) != count:
            self.fail(f'"{key}" has {len(value)} elements; it must have {count}, one a step')
        if set(map(type, value)) <= {int}:
            try:
                found = np.array(value, dtype=np.int64)
            except OverflowError:
                pass  # Said of the element below.
            else:
                if not len(found) or (found[0] >= 0 and found[-1] <= length and bool((found[1:] >= found[:-1]).all())):
                    return found
        before = 0
        for i, one in enumerate(value):
            if isinstance(one, bool) or not isinstance(one, int):
                self.fail(f'"{key}[{i}]" is {say(one)}; it must be an integer')
            if not 0 <= one <= length:
                self.fail(f'"{key}[{i}]" is {one}; it must be from 0 to "len", {length}')
            if one < before:
                self.fail(f'"{key}[{i}]" is {one} after {before}; offsets do not decrease')
            before = one
        return np.array(value, dtype=np.int64)

    def texts(self, length: int) -> list[str]:
        """The tokens as text: strings, or ids."""
        value = self.list_of("tokens", length, 'one a token, "len" of them')
        for i, one in enumerate(value):
            if isinstance(one, bool) or not isinstance(one, (int, str)):
                self.fail(f'"tokens[{i}]" is {say(one)}; it must be text or an id')
        return [str(one) for one in value]
