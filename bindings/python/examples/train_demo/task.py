"""The task: short chains of arithmetic, every line graded exactly from the text by the project's checker (`../arithmetic_rollouts.py`)."""
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from arithmetic_rollouts import VOCABULARY, Problem, attempt, grade_rollout, grade_steps  # noqa: E402
from arithmetic_rollouts import Random as Random  # noqa: E402

PAD, END = "<pad>", "<end>"
TOKENS = (PAD, *VOCABULARY)
MOST_TOKENS = 48
# A line ends with one of these.
_LINE_ENDS = ("\n", END)


def draw(random: Random) -> Problem:
    """Two or three operations on small numbers."""
    operations = tuple(("+-"[random.below(2)], 2 + random.below(5)) for _ in range(2 + random.below(2)))
    return Problem(2 + random.below(12), operations)


def prompt(problem: Problem) -> str:
    """What the model is given: the chain, and a line end."""
    return f"{problem.start}{''.join(f'{sign}{operand}' for sign, operand in problem.operations)}\n"


def read(text: str) -> Problem:
    """The problem of a prompt."""
    return Problem.read(text.rstrip("\n") + " ")


def lines(tokens: list[str]) -> list[int]:
    """Exclusive ends of the lines, in tokens; what is left at the end is a line too."""
    ends = [i + 1 for i, token in enumerate(tokens) if token in _LINE_ENDS]
    return ends if tokens and ends and ends[-1] == len(tokens) else [*ends, len(tokens)]


def graded(problem: Problem, tokens: list[str]) -> dict[str, Any]:
    """The process record of a completion, with its outcome and format rewards."""
    ends = lines(tokens) if tokens else []
    texts = ["".join(tokens[begin:end]) for begin, end in zip([0, *ends], ends)]
    outcome, tidy = grade_rollout(problem, "".join(tokens))
    return {"step_end": ends, "step_score": grade_steps(problem, texts), "outcome": outcome, "format": tidy}


def attempts(random: Random, count: int, temperature: float) -> list[tuple[str, list[str]]]:
    """Prompts, and what the noisy writer of the sample file writes to them: the text that the model is first made to imitate."""
    found: list[tuple[str, list[str]]] = []
    while len(found) < count:
        problem = draw(random)
        tokens = attempt(random, problem, temperature).tokens
        if len(tokens) <= MOST_TOKENS and tokens[-1] == END:
            found.append((prompt(problem), tokens))
    return found
