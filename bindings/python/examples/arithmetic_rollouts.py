"""Writes arithmetic_rollouts.jsonl: attempts of a small noisy policy at chained arithmetic, graded exactly from their text.

A problem is a chain such as `7+5*3-2`, worked from left to right. The policy writes one operation a line (`7+5=12`), and may say where
it stands, correct its last line (`no, 7+5=12`), ask a calculator where the problem has one (`calc(12*3)`; the reply is nobody's token),
and answers in `<answer>34</answer>`. It writes token by token from a known distribution over a vocabulary of 23: a rule gives every token
a logit from the text so far, and the policy samples from softmax(logits / temperature). It miscalculates, skips, garbles, forgets the
tag, answers twice, stops early. A teacher with better logits gives its own probability of the same tokens.

A checker that knows the chain reads the finished text and nothing else, and grades

- every line: 1 where it does the next operation from the value before it and does it right (or answers with that value when all is
  done), 0 where it only says the value, -1 for all else. A line is held to the line before it, not to what should have been there;
- the outcome: 1 where the answer is the chain's true value;
- the format: 1 where the text ends in one <answer>...</answer> and has no other.

A line of the file has what `passrl shape` reads (group, sample, len, step_begin, step_end, step_score, outcome, format) and prompt, tokens
(text of each), logp_policy and logp_teacher (natural logarithms to four places; null for the calculator's tokens). Everything follows from
SEED: the same program writes the same bytes.

    python arithmetic_rollouts.py            rewrites the file beside this program
    python arithmetic_rollouts.py -          prints it
"""
from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path

SEED = 20260629
FILE = Path(__file__).resolve().parent / "arithmetic_rollouts.jsonl"
# Attempts at each problem, and the temperature they are sampled with.
SIZES = (6, 4, 8, 5, 6, 3, 7, 6, 1, 5, 6, 4, 8, 6, 2, 5, 6, 4, 7, 6)
TEMPERATURES = (1.0, 1.15, 1.0, 0.5, 1.3)
MOST_TOKENS = 110

VOCABULARY = (*"0123456789", "-", "+", "*", "=", "\n", ")", "no, ", "so far ", "calc(", "<answer>", "</answer>", "answer: ", "<end>")
OPERATION = re.compile(r"(no, )?(calc\()?(-?\d+)([-+*])(\d+)(?:=(-?\d+)|\))\n?")
STATEMENT = re.compile(r"so far (-?\d+)\n")
ANSWER = re.compile(r"(?:(?:<answer>|answer: )(-?\d+)(?:</answer>)?)+(?:<end>)?")


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


# The problem, and the checker.


def result(value: int, sign: str, operand: int) -> int:
    return value + operand if sign == "+" else value - operand if sign == "-" else value * operand


@dataclass(frozen=True)
class Problem:
    start: int
    operations: tuple[tuple[str, int], ...]
    calculator: bool = False

    @property
    def prompt(self) -> str:
        chain = "".join(f"{sign}{operand}" for sign, operand in self.operations)
        return f"{self.start}{chain} from left to right" + (", calc() allowed" if self.calculator else "")

    @classmethod
    def read(cls, prompt: str) -> Problem:
        chain = re.match(r"(-?\d+)((?:[-+*]\d+)+) ", prompt)
        assert chain is not None, prompt
        return cls(int(chain[1]), tuple((s, int(n)) for s, n in re.findall(r"([-+*])(\d+)", chain[2])), "calc()" in prompt)

    def truth(self) -> int:
        value = self.start
        for sign, operand in self.operations:
            value = result(value, sign, operand)
        return value


@dataclass(frozen=True)
class Standing:
    """Where the lines so far have come to: the value last stated, operations done, both before the last operation, and whether the
    last line was wrong."""

    value: int
    done: int = 0
    value_before: int = 0
    done_before: int = 0
    wrong: bool = False

    @classmethod
    def at(cls, problem: Problem) -> Standing:
        return cls(problem.start, 0, problem.start, 0)

    def again(self) -> Standing:
        return replace(self, value=self.value_before, done=self.done_before)


def grade(problem: Problem, before: Standing, line: str) -> tuple[int, Standing]:
    """A line's grade, and where it leads to. Forgives nothing twice: the value is taken as the line states it."""
    if found := OPERATION.fullmatch(line):
        again, calls, left, sign, right, stated = found.groups()
        here = before.again() if again else before
        true = result(int(left), sign, int(right))
        value = true if calls else int(stated or 0)
        places = [i for i in range(here.done, len(problem.operations)) if problem.operations[i] == (sign, int(right))]
        good = here.done in places and int(left) == here.value and value == true and (stated is None) == (calls is not None)
        # An operation that is not in the chain stands for the next one.
        done = places[0] + 1 if places else min(here.done + 1, len(problem.operations))
        return (1 if good else -1), Standing(value, done, here.value, here.done, not good)
    if found := STATEMENT.fullmatch(line):
        good = int(found[1]) == before.value
        return (0 if good else -1), replace(before, value=int(found[1]), wrong=not good)
    if found := ANSWER.fullmatch(line):
        good = before.done == len(problem.operations) and int(found[1]) == before.value
        return (1 if good else -1), replace(before, wrong=not good)
    return -1, replace(before, wrong=True)


def grade_steps(problem: Problem, lines: list[str]) -> list[int]:
    standing, grades = Standing.at(problem), []
    for line in lines:
        one, standing = grade(problem, standing, line)
        grades.append(one)
    return grades


def grade_rollout(problem: Problem, text: str) -> tuple[int, int]:
    """Outcome and format of what the policy wrote."""
    answers = re.findall(r"<answer>(-?\d+)</answer>", text) or re.findall(r"answer: (-?\d+)", text)
    outcome = int(bool(answers) and int(answers[-1]) == problem.truth())
    ends = re.search(r"<answer>-?\d+</answer><end>$", text) is not None
    return outcome, int(ends and len(re.findall("answer", text)) == 2)


# The policy.


@dataclass(frozen=True)
class Skill:
    """Logits of what a writer may do next; every other token has 0."""

    copy: float = 9.0
    """What the rule writes next: a digit already on the page, a sign, the end of a line."""
    compute: float = 7.2
    """The right digit of a result (its neighbours have 4 less); a product's 1 less."""
    notice: float = 8.6
    """A correction after a wrong line."""
    skip: float = 5.0
    state: float = 5.4
    untidy: float = 6.4
    hurry: float = 3.4


POLICY = Skill()
TEACHER = Skill(copy=11.0, compute=11.0, notice=13.0, skip=2.0, state=4.0, untidy=3.0, hurry=0.0)


def _number(target: str, written: str, strength: float, then: dict[str, float]) -> dict[str, float]:
    if len(written) >= len(target):
        return then
    right = target[len(written)]
    near = {str(d): strength - 4.0 for d in (int(right) - 1, int(right) + 1) if 0 <= d <= 9} if right.isdigit() else {}
    return near | {right: strength}


def logits(problem: Problem, standing: Standing, line: str, skill: Skill) -> dict[str, float]:
    """What may follow the unfinished `line`. Total: any text has a next token."""
    total = len(problem.operations)
    if line == "":
        found = {"no, ": skill.notice} if standing.wrong else {}
        if standing.done == total:
            return found | {"<answer>": skill.copy, "answer: ": skill.untidy, "so far ": skill.state}
        found |= {"so far ": skill.state, "answer: ": skill.hurry, str(standing.value)[0]: skill.copy}
        return found | ({"calc(": skill.copy - 0.5} if problem.calculator else {})
    if part := re.fullmatch(r"so far (-?\d*)", line):
        return _number(str(standing.value), part[1], skill.copy, {"\n": skill.copy})
    if part := re.search(r"(<answer>|answer: )(-?\d*)$", line):
        return _number(str(standing.value), part[2], skill.copy, {"</answer>" if part[1] == "<answer>" else "<end>": skill.copy})
    if line.endswith("</answer>"):
        return {"<end>": skill.copy, "<answer>": skill.untidy - 1.0}
    part = re.fullmatch(r"(no, )?(calc\()?(-?\d*)(?:([-+*])(?:(\d+)(=(-?\d*))?)?)?", line)
    here = standing.again() if part and part[1] else standing
    if part is None or here.done == total:
        return {"\n": skill.copy}
    _, calls, left, sign, right, equals, stated = part.groups()
    ahead = problem.operations[here.done : here.done + 2]
    if sign is None:
        return _number(str(here.value), left, skill.copy, {ahead[-1][0]: skill.skip} | {ahead[0][0]: skill.copy})
    if right is None:
        fits = [operation for operation in ahead if operation[0] == sign] or ahead[:1]
        return {str(fits[-1][1]): skill.skip if fits[-1] != ahead[0] else skill.copy} | ({str(ahead[0][1]): skill.copy} if ahead[0] in fits else {})
    if equals is None:
        return {")" if calls else "=": skill.copy}
    strength = skill.compute - (1.0 if sign == "*" else 0.0)
    return _number(str(result(int(left or 0) if left != "-" else 0, sign, int(right))), stated, strength, {"\n": skill.copy})


def weights(found: dict[str, float], temperature: float) -> list[int]:
    """softmax(logits / temperature) over the vocabulary as whole numbers, so that every machine samples the same tokens."""
    top = max(found.values())
    return [max(round(2.0**32 * math.exp((found.get(token, 0.0) - top) / temperature)), 1) for token in VOCABULARY]


def draw(random: Random, shares: list[int]) -> int:
    at = random.below(sum(shares))
    for index, share in enumerate(shares):
        at -= share
        if at < 0:
            return index
    raise AssertionError


@dataclass
class Attempt:
    """Tokens, their log-probabilities (None: the calculator's), and the policy's lines as (begin, end)."""

    tokens: list[str]
    logp_policy: list[float | None]
    logp_teacher: list[float | None]
    lines: list[tuple[int, int]]

    def texts(self) -> list[str]:
        return ["".join(self.tokens[begin:end]) for begin, end in self.lines]


def attempt(random: Random, problem: Problem, temperature: float) -> Attempt:
    made = Attempt([], [], [], [])
    standing, begin = Standing.at(problem), 0
    while len(made.tokens) < MOST_TOKENS:
        line = "".join(made.tokens[begin:])
        shares = weights(logits(problem, standing, line, POLICY), temperature)
        chosen = draw(random, shares)
        teacher = weights(logits(problem, standing, line, TEACHER), 1.0)
        made.tokens.append(VOCABULARY[chosen])
        for kept, of in ((made.logp_policy, shares), (made.logp_teacher, teacher)):
            kept.append(round(math.log(of[chosen] / sum(of)), 4))
        line += VOCABULARY[chosen]
        if VOCABULARY[chosen] in ("\n", ")", "<end>") or len(made.tokens) == MOST_TOKENS:
            made.lines.append((begin, len(made.tokens)))
            _, standing = grade(problem, standing, line)
            if VOCABULARY[chosen] == "<end>":
                break
            if VOCABULARY[chosen] == ")" and problem.calculator:
                reply = ["[", "calc", ": ", *(str(standing.value) if OPERATION.fullmatch(line) else "?"), "]", "\n"]
                made.tokens += reply
                made.logp_policy += [None] * len(reply)
                made.logp_teacher += [None] * len(reply)
            begin = len(made.tokens)
    return made


# The file.


def draw_problem(random: Random, number: int) -> Problem:
    while True:
        length = 1 + random.below(3) if TEMPERATURES[number % len(TEMPERATURES)] < 1 else 3 + random.below(4)
        operations = [("+-*+"[random.below(4)], 2 + random.below(8)) for _ in range(length)]
        if number % 7 == 2:
            operations[length // 2] = ("*", 0)  # Whatever went wrong before it is washed out.
        problem = Problem(2 + random.below(28), tuple(operations), number % 3 == 1)
        values = [Problem(problem.start, problem.operations[: i + 1]).truth() for i in range(length)]
        if all(abs(value) < 400 for value in values):
            return problem


def rollout(problem: Problem, made: Attempt, group: int, sample: int) -> dict[str, object]:
    outcome, fmt = grade_rollout(problem, "".join(made.texts()))
    return {
        "group": group, "sample": sample, "len": len(made.tokens), "prompt": problem.prompt,
        "step_begin": [begin for begin, _ in made.lines], "step_end": [end for _, end in made.lines], "step_score": grade_steps(problem, made.texts()),
        "outcome": outcome, "format": fmt, "tokens": made.tokens, "logp_policy": made.logp_policy, "logp_teacher": made.logp_teacher,
    }


def rollouts() -> list[dict[str, object]]:
    random = Random(SEED)
    rows = []
    for group, size in enumerate(SIZES):
        problem, temperature = draw_problem(random, group), TEMPERATURES[group % len(TEMPERATURES)]
        rows += [rollout(problem, attempt(random, problem, temperature), group, sample) for sample in range(size)]
    return rows


def text() -> str:
    return "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rollouts())


if __name__ == "__main__":
    if sys.argv[1:] == ["-"]:
        sys.stdout.write(text())
    else:
        FILE.write_text(text(), encoding="ascii", newline="\n")
