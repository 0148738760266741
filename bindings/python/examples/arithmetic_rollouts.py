"""Writes arithmetic_rollouts.jsonl: attempts of a small noisy policy at sums of several steps, graded exactly.

The policy walks through a chain of operations ("start with 7, add 5, times 3, ...") and slips now and then: it miscalculates, drops an
operation, stops to look where it stands, corrects itself, answers without the answer tag, or gives up early. A checker that knows the chain grades

- every step: 1 where the line's result follows from the line before and does the next operation, 0 where it does nothing, -1 where it is wrong;
- the outcome: 1 where the last answer is the chain's true result;
- the format: 1 where the attempt ends in exactly one <answer>...</answer>.

Some groups let the policy ask a calculator; its reply lies between two steps and is nobody's token (`step_begin`). Tokens are counted with
the regular expression `\\w+|[^\\w\\s]`. Everything follows from SEED: the same program writes the same bytes.

    python arithmetic_rollouts.py            rewrites the file beside this program
    python arithmetic_rollouts.py -          prints it
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

SEED = 20260629
GROUPS = 24
ROLLOUTS = 6
HERE = Path(__file__).resolve().parent
FILE = HERE / "arithmetic_rollouts.jsonl"
TOKEN = re.compile(r"\w+|[^\w\s]")


class Random:
    """SplitMix64: the same numbers under every Python."""

    MASK = (1 << 64) - 1

    def __init__(self, seed: int) -> None:
        self.state = seed

    def below(self, n: int) -> int:
        self.state = (self.state + 0x9E3779B97F4A7C15) & self.MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & self.MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & self.MASK
        return ((z ^ (z >> 31)) * n) >> 64

    def chance(self, percent: int) -> bool:
        return self.below(100) < percent


@dataclass
class Problem:
    start: int
    operations: list[tuple[str, int]]
    calculator: bool
    slip: int
    """Percent of steps in which the policy errs."""


@dataclass
class Attempt:
    """What the policy wrote: (text, True where the policy wrote it), and what it claimed at each step (operation done, value)."""

    spans: list[tuple[str, bool]] = field(default_factory=list)
    claims: list[tuple[int, int]] = field(default_factory=list)


def apply(value: int, operation: tuple[str, int]) -> int:
    sign, operand = operation
    return value + operand if sign == "+" else value - operand if sign == "-" else value * operand


def draw_problem(random: Random, number: int) -> Problem:
    length = 3 + random.below(6)
    operations = [("+-*"[random.below(3)], 2 + random.below(8)) for _ in range(length)]
    # Three groups that no policy fails: every attempt is right, so nothing in them varies.
    slip = 0 if number % 8 == 5 else 6 + random.below(30)
    return Problem(2 + random.below(18), operations, number % 3 == 1, slip)


def attempt(random: Random, problem: Problem) -> Attempt:
    made = Attempt()
    value, at = problem.start, 0
    while at < len(problem.operations):
        operation = problem.operations[at]
        before = value
        if random.chance(problem.slip) and random.chance(30):
            # Says again where it stands, and does nothing.
            made.spans.append((f"Let me see: so far we have {value}, and {len(problem.operations) - at} operations to go.", True))
            made.claims.append((-1, value))
            continue
        if random.chance(problem.slip) and random.chance(35) and at + 1 < len(problem.operations):
            at += 1  # Drops one operation.
            operation = problem.operations[at]
        value = apply(value, operation)
        if random.chance(problem.slip):
            value += 1 + random.below(9) if random.chance(50) else -1 - random.below(9)
        if problem.calculator and random.chance(45):
            made.spans.append((f"call calculator({before} {operation[0]} {operation[1]})", True))
            made.claims.append((at, apply(before, operation)))
            reply = apply(before, operation)
            made.spans.append((f"[calculator] input: {before} {operation[0]} {operation[1]}; result: {reply}; elapsed: 0.0{random.below(10)} s", False))
            value = reply
        else:
            lead = ("Next, ", "Then ", "Now ", "So ")[random.below(4)]
            made.spans.append((f"{lead}{before} {operation[0]} {operation[1]} = {value}.", True))
            made.claims.append((at, value))
            if value != apply(before, operation) and random.chance(30):
                value = apply(before, operation)  # Notices, and does it again.
                made.spans.append((f"Wait, that is not right: {before} {operation[0]} {operation[1]} is {value}.", True))
                made.claims.append((at, value))
        at += 1
        if random.chance(problem.slip) and random.chance(6):
            break  # Gives up, and answers with what it has.
    bad_format = problem.slip > 0 and random.chance(12)
    closing = (f"I think it is {value}", f"<answer>{value}</answer> or <answer>{value}</answer>")[random.below(2)]
    made.spans.append((closing if bad_format else f"<answer>{value}</answer>", True))
    made.claims.append((len(problem.operations), value))
    return made


def grade_steps(problem: Problem, made: Attempt) -> list[int]:
    """The checker: reads the claims alone, knows the chain, and forgives nothing twice: a step is held to the claim before it."""
    grades = []
    before = value = problem.start
    done = 0
    for operation, claimed in made.claims:
        if operation == -1:
            grades.append(0)
            continue
        if done > 0 and operation == done - 1:  # A second try at the step just done.
            grades.append(1 if claimed == apply(before, problem.operations[operation]) else -1)
            value = claimed
            continue
        if operation == len(problem.operations):
            grades.append(1 if done == operation and claimed == value else -1)
            continue
        right = operation == done and claimed == apply(value, problem.operations[operation])
        grades.append(1 if right else -1)
        before, value, done = value, claimed, operation + 1
    return grades


def grade_rollout(problem: Problem, made: Attempt) -> tuple[int, int]:
    truth = problem.start
    for operation in problem.operations:
        truth = apply(truth, operation)
    text = " ".join(part for part, own in made.spans if own)
    answers = re.findall(r"<answer>(-?\d+)</answer>", text)
    stated = re.findall(r"-?\d+", text)
    outcome = int(int(answers[-1] if answers else stated[-1]) == truth)
    return outcome, int(len(answers) == 1 and text.endswith("</answer>"))


def rollout(problem: Problem, made: Attempt, group: int, sample: int) -> dict[str, object]:
    at, begins, ends = 0, [], []
    for text, own in made.spans:
        tokens = len(TOKEN.findall(text))
        if own:
            begins.append(at)
            ends.append(at + tokens)
        at += tokens
    outcome, fmt = grade_rollout(problem, made)
    return {
        "group": group, "sample": sample, "len": at, "step_begin": begins, "step_end": ends, "step_score": grade_steps(problem, made),
        "outcome": outcome, "format": fmt,
    }


def rollouts() -> list[dict[str, object]]:
    random = Random(SEED)
    rows = []
    for group in range(GROUPS):
        problem = draw_problem(random, group)
        rows += [rollout(problem, attempt(random, problem), group, sample) for sample in range(ROLLOUTS)]
    return rows


def text() -> str:
    return "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rollouts())


if __name__ == "__main__":
    if sys.argv[1:] == ["-"]:
        sys.stdout.write(text())
    else:
        FILE.write_text(text(), encoding="ascii", newline="\n")
