"""The sample file is what its program writes, its grades are those of its text, and it has the cases that matter."""
from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import passrl

from conftest import ROOT

EXAMPLES = ROOT / "bindings/python/examples"
FILE = EXAMPLES / "arithmetic_rollouts.jsonl"


def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("arithmetic_rollouts", EXAMPLES / "arithmetic_rollouts.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name.
    spec.loader.exec_module(module)
    return module


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in FILE.read_text("ascii").splitlines()]


def lines_of(row: dict[str, Any]) -> list[str]:
    return ["".join(row["tokens"][begin:end]) for begin, end in zip(row["step_begin"], row["step_end"])]


def test_the_program_writes_the_same_bytes() -> None:
    done = subprocess.run([sys.executable, EXAMPLES / "arithmetic_rollouts.py", "-"], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == FILE.read_bytes()
    assert len(done.stdout) <= 200_000


def test_another_seed_writes_others() -> None:
    module = program()
    module.SEED += 1
    assert module.text() != FILE.read_text("ascii")


def test_rows_are_well_formed() -> None:
    for row in rows():
        begins, ends, scores = row["step_begin"], row["step_end"], row["step_score"]
        assert len(ends) == len(scores) == len(begins) >= 1
        assert row["len"] == len(row["tokens"]) == len(row["logp_policy"]) == len(row["logp_teacher"])
        assert all(b < e for b, e in zip(begins, ends)) and begins[0] == 0 and ends[-1] <= row["len"]
        assert all(e <= b for e, b in zip(ends, begins[1:]))
        assert set(scores) <= {-1, 0, 1} and row["outcome"] in (0, 1) and row["format"] in (0, 1)
        inside = {t for begin, end in zip(begins, ends) for t in range(begin, end)}
        for key in ("logp_policy", "logp_teacher"):
            assert {t for t, logp in enumerate(row[key]) if logp is not None} == inside
            assert all(logp <= 0 for logp in row[key] if logp is not None)


def test_grades_are_those_of_the_text() -> None:
    m = program()
    for row in rows():
        problem = m.Problem.read(row["prompt"])
        assert problem.prompt == row["prompt"]
        assert m.grade_steps(problem, lines_of(row)) == row["step_score"]
        assert m.grade_rollout(problem, "".join(lines_of(row))) == (row["outcome"], row["format"])


def is_integer(text: str) -> bool:
    return text.removeprefix("-").isdigit()


def test_outcomes_by_another_reading() -> None:
    """The outcome without the program: the chain by a loop over its characters, the answer by splitting."""
    for row in rows():
        chain = row["prompt"].split()[0].replace("-", " - ").replace("+", " + ").replace("*", " * ").split()
        value = int(chain[0])
        for sign, operand in zip(chain[1::2], chain[2::2]):
            value = {"+": value + int(operand), "-": value - int(operand), "*": value * int(operand)}[sign]
        text = "".join(lines_of(row))
        boxed = [part.split("</answer>")[0] for part in text.split("<answer>")[1:] if "</answer>" in part]
        plain = [part.replace("<", " ").replace("\n", " ").split()[0] for part in text.split("answer: ")[1:] if part]
        stated = [part for part in boxed if is_integer(part)] or [part for part in plain if is_integer(part)]
        right = bool(stated) and int(stated[-1]) == value
        assert row["outcome"] == int(right), (row["prompt"], text)


def decisions() -> Iterator[tuple[ModuleType, dict[str, Any], int, Any, Any, str]]:
    """Every token that the policy wrote, with the problem, the standing and the unfinished line it was written after."""
    m = program()
    for row in rows():
        problem = m.Problem.read(row["prompt"])
        standing = m.Standing.at(problem)
        for begin, end in zip(row["step_begin"], row["step_end"]):
            line = ""
            for t in range(begin, end):
                yield m, row, t, problem, standing, line
                line += row["tokens"][t]
            _, standing = m.grade(problem, standing, line)


def test_log_probabilities_are_those_of_the_two_writers() -> None:
    policy_total = 0.0
    for m, row, t, problem, standing, line in decisions():
        temperature = m.TEMPERATURES[row["group"] % len(m.TEMPERATURES)]
        for key, skill, heat in (("logp_policy", m.POLICY, temperature), ("logp_teacher", m.TEACHER, 1.0)):
            found = m.logits(problem, standing, line, skill)
            assert set(found) <= set(m.VOCABULARY)
            scale = np.array([found.get(token, 0.0) for token in m.VOCABULARY]) / heat
            logp = scale - scale.max() - math.log(np.exp(scale - scale.max()).sum())
            assert row[key][t] == pytest.approx(logp[m.VOCABULARY.index(row["tokens"][t])], abs=6e-5)
        policy_total += math.exp(row["logp_policy"][t])
    # The tokens were really sampled from the policy: the sum of p(token) is its expectation within four standard errors.
    expectation = variance = 0.0
    for m, row, t, problem, standing, line in decisions():
        temperature = m.TEMPERATURES[row["group"] % len(m.TEMPERATURES)]
        shares = np.array(m.weights(m.logits(problem, standing, line, m.POLICY), temperature), dtype=np.float64)
        p = shares / shares.sum()
        expectation, variance = expectation + float((p * p).sum()), variance + float((p**3).sum() - (p * p).sum() ** 2)
    assert abs(policy_total - expectation) < 4 * math.sqrt(variance), (policy_total, expectation, math.sqrt(variance))


def test_the_teacher_is_better() -> None:
    """On tokens of right lines the teacher is at least as sure as the policy, on those of wrong lines it is taken aback somewhere."""
    right, wrong = [], []
    for row in rows():
        for begin, end, score in zip(row["step_begin"], row["step_end"], row["step_score"]):
            worst = min(b - a for a, b in zip(row["logp_policy"][begin:end], row["logp_teacher"][begin:end]))
            (right if score == 1 else wrong).append(worst)
    assert np.median(right) > -0.5 and np.median(wrong) < -1


def test_the_file_has_the_cases_that_matter() -> None:
    groups: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows():
        groups[row["group"]].append(row)
    assert list(groups) == list(range(20))
    assert {len(g) for g in groups.values()} == {1, 2, 3, 4, 5, 6, 7, 8}, "groups of uneven size, one of a single rollout"
    constant = [g for g in groups.values() if len(g) > 1 and len({s for r in g for s in r["step_score"]}) == 1 and len({r["outcome"] for r in g}) == 1]
    assert len(constant) >= 2, "groups with zero variance"
    everything = [r for g in groups.values() for r in g]
    assert sum(r["format"] == 0 for r in everything) >= 8, "format violations"
    assert sum(any(e < b for e, b in zip(r["step_end"], r["step_begin"][1:])) for r in everything) >= 15, "tool output between steps"
    assert {s for r in everything for s in r["step_score"]} == {-1, 0, 1}
    assert 0.2 < sum(r["outcome"] for r in everything) / len(everything) < 0.8
    mended = [r for r in everything if any(line.startswith("no, ") and score == 1 for line, score in zip(lines_of(r), r["step_score"]))]
    assert len(mended) >= 5, "a wrong step, then right"
    lucky = [r for r in everything if r["outcome"] == 1 and -1 in r["step_score"] and "no, " not in r["tokens"]]
    assert len(lucky) >= 3, "right by luck: a wrong step washed out"
    assert any(r["outcome"] == 0 and r["format"] == 1 for r in everything) and any(r["outcome"] == 1 and r["format"] == 0 for r in everything)


@pytest.mark.parametrize(("lines", "grades", "rollout"), [
    (["4+3=7\n", "7*2=14\n", "<answer>14</answer><end>"], [1, 1, 1], (1, 1)),
    (["4+3=8\n", "8*2=16\n", "answer: 16<end>"], [-1, 1, 1], (0, 0)),
    (["4*2=8\n", "<answer>8</answer><end>"], [-1, 1], (0, 1)),
    (["so far 4\n", "4+3=7\n", "<answer>7</answer><end>"], [0, 1, -1], (0, 1)),
    (["4+3=8\n", "no, 4+3=7\n", "7*2=14\n", "<answer>14</answer><end>"], [-1, 1, 1, 1], (1, 1)),
    (["4+3=8\n", "no, 4+3=9\n", "so far 7\n", "7*2=14\n", "<answer>14</answer><end>"], [-1, -1, -1, 1, 1], (1, 1)),
    (["calc(4+3)", "7*2=14\n", "<answer>14</answer><answer>14</answer><end>"], [1, 1, 1], (1, 0)),
    (["calc(4+4)", "8*2=16\n", "<answer>16</answer>"], [-1, 1, 1], (0, 0)),
    (["4+3==7\n", "4+3=7\n", "7*2=14\n", "answer: 14<end>"], [-1, 1, 1, 1], (1, 0)),
    (["4+3=7\n", "7*2=14\n"], [1, 1], (0, 0)),
    (["4+3=7", "<answer></answer><end>"], [1, -1], (0, 0)),
])
def test_the_checker_on_hand_made_attempts(lines: list[str], grades: list[int], rollout: tuple[int, int]) -> None:
    m = program()
    problem = m.Problem(4, (("+", 3), ("*", 2)))
    assert m.grade_steps(problem, lines) == grades
    assert m.grade_rollout(problem, "".join(lines)) == rollout


def test_a_lucky_end() -> None:
    m = program()
    problem = m.Problem.read("4+3*0+5 from left to right")
    lines = ["4+3=8\n", "8*0=0\n", "0+5=5\n", "<answer>5</answer><end>"]
    assert (m.grade_steps(problem, lines), m.grade_rollout(problem, "".join(lines))) == ([-1, 1, 1, 1], (1, 1))


def test_any_text_has_a_next_token() -> None:
    """The policy's rule is total: after any tokens at all some token has a logit, and all of them are of the vocabulary."""
    m = program()
    random = m.Random(7)
    for case in range(3000):
        problem = m.Problem(random.below(30), (("+", 3), ("*", 2), ("-", 4))[: 1 + random.below(3)], random.below(2) == 1)
        standing = m.Standing(random.below(99) - 40, random.below(len(problem.operations) + 1), 5, 0, random.below(2) == 1)
        line = "".join(m.VOCABULARY[random.below(len(m.VOCABULARY))] for _ in range(random.below(6)))
        found = m.logits(problem, standing, line, m.POLICY)
        assert found and set(found) <= set(m.VOCABULARY), (case, line)
        m.grade(problem, standing, line)


def test_kl_form_through_the_library() -> None:
    """OPD on the file: out of scope nothing is read (null there), in scope every token has a signal."""
    every = rows()
    lengths = [r["len"] for r in every]
    offsets = np.concatenate([[0], np.cumsum([len(r["step_end"]) for r in every])])
    flat = {key: np.array([v for r in every for v in r[key]], dtype=dtype)
            for key, dtype in (("step_begin", np.int64), ("step_end", np.int64), ("logp_policy", np.float64), ("logp_teacher", np.float64))}
    shaped = passrl.shape(kind="kl", steps=passrl.Steps(offsets, flat["step_end"], None, flat["step_begin"]), lengths=lengths,
                          logp_policy=flat["logp_policy"], logp_teacher=flat["logp_teacher"], groups=[r["group"] for r in every])
    assert shaped.status == 0, shaped.message
    assert shaped.report.tokens == sum(sum(r["step_end"]) - sum(r["step_begin"]) for r in every) < sum(lengths)
    assert np.isfinite(shaped.advantages).all() and np.count_nonzero(shaped.advantages) > 1000
