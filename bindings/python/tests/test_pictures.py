"""Pictures: files of the right size, colours that are the advantages', one scale, numbers in words that a plain loop gives too."""
from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import passrl

matplotlib = pytest.importorskip("matplotlib", reason="SKIPPED: matplotlib is not installed, the pictures were not drawn")

from passrl.cli import captions, distributions, picture  # noqa: E402
from pictured import PAPER, dense, example, shaped, taken_apart  # noqa: E402
from reference import standardised  # noqa: E402


@pytest.fixture(autouse=True)
def closed() -> Any:
    yield
    from matplotlib import pyplot

    pyplot.close("all")


def size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    return struct.unpack(">II", data[16:24])  # type: ignore[return-value]


def marks(panel: Any, name: str) -> list[Any]:
    return [one for one in (*panel.lines, *panel.patches, *panel.texts) if one.get_gid() == name]


# One group.


def test_compare_writes_a_file(tmp_path: Path) -> None:
    rollouts = example()
    picture.compare(tmp_path / "three.png", rollouts, shaped(rollouts), group=0)
    picture.compare(tmp_path / "one.png", rollouts, shaped(rollouts, "pass"), group="0")
    (width, three), (other, one) = size(tmp_path / "three.png"), size(tmp_path / "one.png")
    assert width == other == 1600 and 2 * one < three < 3 * one + 200
    for kind, begin in (("svg", b"<?xml"), ("pdf", b"%PDF")):
        picture.compare(tmp_path / f"x.{kind}", rollouts, shaped(rollouts, "pass"), group=0)
        assert (tmp_path / f"x.{kind}").read_bytes().startswith(begin)


def test_colours_are_the_advantages_on_one_scale() -> None:
    rollouts, group = example(), 1
    results = shaped(rollouts)
    figure = picture.draw(rollouts, results, group)
    panels = figure.axes[: len(PAPER)]
    assert [panel.get_title(loc="left") for panel in panels] == list(PAPER)
    rows = [i for i, key in enumerate(rollouts.group) if key == group]
    scope, norms, drawn = rollouts.scope(), set(), 0
    for panel, name in zip(panels, PAPER):
        advantages = results[name].advantages
        images = sorted(panel.images, key=lambda one: (one.get_extent()[3], one.get_extent()[0]))
        found = np.concatenate([np.asarray(image.get_array())[0] for image in images])
        inside = np.concatenate([advantages[rollouts.cu_seqlens[i] : rollouts.cu_seqlens[i + 1]][scope[rollouts.cu_seqlens[i] : rollouts.cu_seqlens[i + 1]]] for i in rows])
        np.testing.assert_array_equal(found, inside)
        drawn += len(found)
        norms |= {id(image.norm) for image in images}
        for image in images:
            red, _, blue, _ = np.moveaxis(image.to_rgba(image.get_array()), -1, 0)
            assert ((np.sign(np.round(blue - red, 3)) == np.sign(image.get_array())) | (np.abs(image.get_array()) < 1e-3)).all()
            assert {image.get_cmap().name} == {"RdBu"}
    assert len(norms) == 1 and drawn > 100
    norm = panels[0].images[0].norm
    assert norm.vmax == -norm.vmin == max(np.abs(results[name].advantages[rollouts.cu_seqlens[i] : rollouts.cu_seqlens[i + 1]]).max() for name in PAPER for i in rows)
    assert norm(0.0) == pytest.approx(0.5) and norm(norm.vmax / 4) == pytest.approx(0.75)


def test_scope_chunks_labels_and_scores_are_drawn() -> None:
    rollouts, group = example(), 1
    result = shaped(rollouts, "pass")["pass"]
    (panel, *_) = picture.draw(rollouts, {"pass": result}, group).axes
    rows = [i for i, key in enumerate(rollouts.group) if key == group]
    scope = rollouts.scope()
    gaps = edges = 0
    for i in rows:
        inside = scope[rollouts.cu_seqlens[i] : rollouts.cu_seqlens[i + 1]]
        gaps += int(np.count_nonzero(np.diff(inside.astype(int)) == -1)) + int(not inside[0])
        ends = result.chunk_ends[result.chunk_offsets[i] : result.chunk_offsets[i + 1]]
        edges += sum(1 for end in ends if end < len(inside) and inside[end - 1] and inside[end])
    assert gaps > 0 and len(marks(panel, "out")) == gaps
    assert all(one.get_hatch() for one in marks(panel, "out"))
    assert edges > 0 and len(marks(panel, "edge")) + len(marks(panel, "still")) == edges
    labels = [tick.get_text() for tick in panel.get_yticklabels()]
    assert labels == [f"sample {rollouts.sample[i]}, outcome {rollouts.outcome[i]:g}, format {'ok' if rollouts.format_ok[i] else 'wrong'}" for i in rows]
    red = [tick.get_color() == picture.WRONG for tick in panel.get_yticklabels()]
    assert red == [not rollouts.format_ok[i] for i in rows]
    told = {text.get_text() for text in panel.texts}
    assert {f"{result.path_scores[i]:+.2f}" for i in rows} <= told


def test_the_papers_troubles_are_measured_and_marked() -> None:
    rollouts = example()
    results = shaped(rollouts)
    # Signs by a plain loop: sums of the steps' own standardised scores, and outcome and format by theirs, against the pooled advantages.
    wanted: dict[int, list[int]] = {}
    for key in dict.fromkeys(rollouts.group):
        rows = [i for i, one in enumerate(rollouts.group) if one == key]
        steps = {i: range(rollouts.step_offsets[i], rollouts.step_offsets[i + 1]) for i in rows}
        pool = [float(rollouts.step_score[s]) for i in rows for s in steps[i]]
        z = dict(zip([s for i in rows for s in steps[i]], standardised(pool, pool)))
        outcome = dict(zip(rows, standardised([rollouts.outcome[i] for i in rows], [rollouts.outcome[i] for i in rows])))
        form = dict(zip(rows, standardised([rollouts.format[i] for i in rows], [rollouts.format[i] for i in rows])))
        for i in rows:
            for s in steps[i]:
                own = sum(z[later] for later in steps[i] if later >= s) + outcome[i] + form[i]
                begin = int(rollouts.step_begin[s])
                if own * float(results["grpo_pooled"].advantages[rollouts.cu_seqlens[i] + begin]) < 0:
                    wanted.setdefault(i, []).append(begin)
    turned = captions.shifted(rollouts, results)
    assert turned is not None and turned.sum() == sum(map(len, wanted.values())) > 5
    # The group that is chosen shows it, and marks just these.
    key, members = picture.choose(rollouts, results, None)
    notes = captions.notes(rollouts, results, members)
    assert notes.flipped["grpo_pooled"] == {i: tokens for i, tokens in wanted.items() if i in members} != {}
    figure = picture.draw(rollouts, results)
    count = sum(map(len, notes.flipped["grpo_pooled"].values()))
    assert [len(marks(panel, "flipped")) for panel in figure.axes[:3]] == [count, 0, 0]
    assert [len(marks(panel, "pointed")) for panel in figure.axes[:3]] == [0, 1, 0]
    first, second, third = notes.sentences
    assert f"gives {count} of " in first and first.startswith("① Contamination (grpo_pooled)")
    still = sum(len(marks(panel, "still")) for panel in figure.axes[:3])
    edges = still + sum(len(marks(panel, "edge")) for panel in figure.axes[:3])
    assert f": {still // 3} of {edges // 3}, in all" in second and still > 0
    i = notes.pointed["grpo_process"]
    assert f"Sample {rollouts.sample[i]} (③)" in third and rollouts.format_ok[i]
    drawn = "".join(text.get_text() for axes in figure.axes for text in axes.texts)
    assert "① Contamination" in drawn and "② Resolution mismatch" in drawn and "③ Cumulative trap" in drawn


def test_joined_steps_have_no_edge_where_the_signal_stays() -> None:
    rollouts = example()
    (panel, *_) = picture.draw(rollouts, shaped(rollouts, "pass", merge_equal_steps=True), 0).axes
    assert marks(panel, "edge") and not marks(panel, "still")


def test_log_probabilities_beside_scores_are_not_called_steps() -> None:
    rollouts = example()
    results = shaped(rollouts, kind="kl", missing="exclude")
    notes = captions.notes(rollouts, results, picture.choose(rollouts, results, 0)[1])
    assert notes.moves is None and captions.shifted(rollouts, results) is None
    assert [sentence[0] for sentence in notes.sentences] == ["③"]


def test_large_groups_are_cut_with_a_sentence() -> None:
    rollouts = dense([7] * 40, np.tile([1, 1, 2, 2, 2, 0, 0], 40))
    figure = picture.draw(rollouts, shaped(rollouts))
    assert "(first 16 of 40 rollouts)" in figure.get_suptitle()
    assert len(figure.axes[0].get_yticklabels()) == 16


@pytest.mark.parametrize("rollouts", [
    dense([0, 0], []), dense([5], [1, 1, 2, 2, 2], outcome=[1.0]), dense([3, 0, 2], outcome=[0.5, np.nan, 1.0]),
    dense([2, 2], [np.nan, 1, 1, 1]), dense([400, 300], np.arange(700), form=[1, 0]),
    dense([2, 2], [1, 2, 1, 3], groups=["$a_1$ </b>", "$a_1$ </b>"]),
], ids=["empty", "single", "outcome", "bad", "dense", "dollars"])
def test_odd_groups(rollouts: Any, tmp_path: Path) -> None:
    kind = "prm" if rollouts.signal is not None else "none"
    results = shaped(rollouts, *(PAPER if kind == "prm" else ["pass"]), kind=kind)
    picture.compare(tmp_path / "x.png", rollouts, results)
    assert size(tmp_path / "x.png")[0] == 1600
    config, result, terms = taken_apart(rollouts, kind=kind)
    distributions.plot(tmp_path / "d.png", rollouts, "pass", result, terms)
    assert size(tmp_path / "d.png")[0] == 1600


def test_an_unknown_group_is_refused() -> None:
    rollouts = example()
    with pytest.raises(KeyError, match="group 99 is not in the rollouts"):
        picture.draw(rollouts, shaped(rollouts, "pass"), 99)


# Terms.


@pytest.mark.parametrize(("preset", "fields", "names"), [
    ("pass", {}, ["process", "outcome", "format"]),
    ("pass", {"temperature": 2.0, "w_outcome": 0.5, "gamma": 0.9}, ["process", "outcome", "format"]),
    ("pass", {"standardize": "leave_one_out", "divide_scope": "process", "clip": 1.5}, ["process", "outcome", "format"]),
    ("pass", {"kind": "kl", "missing": "exclude"}, ["process", "outcome", "format"]),
    ("pass", {"kind": "none"}, ["outcome", "format"]),
    ("pass", {"fusion": "reward_shaping"}, ["reward"]),
    ("grpo_process", {}, ["process"]),
    ("grpo_pooled", {}, ["process", "outcome", "format"]),
])
def test_terms_add_up(preset: str, fields: dict[str, Any], names: list[str]) -> None:
    rollouts = example()
    config, result, terms = taken_apart(rollouts, preset, **fields)
    assert terms.names == names and len(terms.fused) == result.report.chunks
    np.testing.assert_allclose(terms.parts.sum(axis=0), terms.fused, atol=1e-5)
    np.testing.assert_array_equal(terms.fused, result.chunk_values)
    np.testing.assert_allclose(np.clip(terms.divided / config.temperature, -config.clip, config.clip), terms.advantages, atol=1e-5)
    inside = terms.chunk >= 0
    assert (terms.advantages[~inside] == 0).all() and inside.sum() == result.report.tokens
    if config.divide_scope == "process":
        return  # G is then that of the process term, and the others' terms.
    # G: discounted sums of F from the rollout's end, by a plain loop; every token of a chunk has its chunk's.
    wanted, to_go = np.zeros(len(terms.fused)), 0.0
    for c in reversed(range(len(terms.fused))):
        to_go = terms.fused[c] + (config.gamma * to_go if terms.number[c] < terms.count[c] else 0.0)
        wanted[c] = to_go
    np.testing.assert_allclose(terms.returns[inside], wanted[terms.chunk[inside]], atol=1e-4)
    np.testing.assert_allclose(terms.returns[inside] / terms.residual[terms.chunk[inside]] ** config.k, terms.divided[inside], atol=1e-5)


def test_terms_are_the_streams_standardised() -> None:
    rollouts = example()
    _, result, terms = taken_apart(rollouts)
    by_name = dict(zip(terms.names, terms.parts))
    for key in dict.fromkeys(rollouts.group):
        rows = [i for i, one in enumerate(rollouts.group) if one == key]
        pool = np.concatenate([rollouts.step_score[rollouts.step_offsets[i] : rollouts.step_offsets[i + 1]] for i in rows]).tolist()
        process = standardised(pool, pool)
        outcome = standardised([rollouts.outcome[i] for i in rows], [rollouts.outcome[i] for i in rows])
        form = standardised([rollouts.format[i] for i in rows], [rollouts.format[i] for i in rows])
        at = 0
        for row, i in enumerate(rows):
            for c in range(result.chunk_offsets[i], result.chunk_offsets[i + 1]):
                wanted = (process[at], outcome[row], form[row]) if rollouts.format_ok[i] else (0, 0, 3 * form[row])
                assert [by_name[name][c] for name in ("process", "outcome", "format")] == pytest.approx(wanted, abs=1e-5)
                at += 1


def test_terms_under_gae_and_whitening() -> None:
    rollouts = dense([4, 3], [1, 1, 0, 0, 2, 2, 1], outcome=[1, 0], form=[1, 1])
    config = passrl.Config("pass", credit="gae", k=0.0, lam=0.9, whiten="tokens")
    rollouts.values = np.linspace(0, 1, 7)
    batch = rollouts.arguments(config)
    result = passrl.shape(config, **batch)
    from passrl.cli.terms import explain

    terms = explain(config, batch, result, rollouts.scope())
    d = terms.divided
    np.testing.assert_allclose((d - d.mean()) / np.sqrt(d.var(ddof=1) + 1e-8), terms.advantages, atol=1e-5)
    np.testing.assert_allclose(terms.returns, d + batch["values"], atol=1e-5)
    np.testing.assert_allclose(terms.parts.sum(axis=0), terms.fused, atol=1e-5)


# A batch.


def test_distributions_are_those_of_plain_loops(tmp_path: Path) -> None:
    rollouts = example()
    _, result, terms = taken_apart(rollouts)
    batch = distributions.measure(rollouts, result, terms)
    scope = rollouts.scope()
    places: dict[int, list[float]] = {}
    left: dict[int, list[float]] = {}
    for i in range(len(rollouts)):
        tokens = [t for t in range(rollouts.cu_seqlens[i], rollouts.cu_seqlens[i + 1]) if scope[t]]
        ends = result.chunk_ends[result.chunk_offsets[i] : result.chunk_offsets[i + 1]]
        for n, t in enumerate(tokens):
            places.setdefault(n * 20 // len(tokens), []).append(result.advantages[t])
            j = next(j for j, end in enumerate(ends) if t - rollouts.cu_seqlens[i] < end)
            left.setdefault(len(ends) - j, []).append(result.advantages[t])
    assert batch.position.tokens.tolist() == [len(places[bin]) for bin in range(20)]
    np.testing.assert_allclose(batch.position.values[:, 7], np.quantile(places[7], distributions.QUANTILES))
    most = max(left)
    assert most <= 12 and batch.residual.bins == [str(n) for n in range(1, most + 1)]
    for n in (1, 3, most):
        np.testing.assert_allclose(batch.residual.values[:, n - 1], np.quantile(left[n], distributions.QUANTILES))
    # G is A times the chunks that remain, to the power k.
    np.testing.assert_allclose(batch.undivided.values[:, 2], batch.residual.values[:, 2] * 3**0.7, rtol=1e-5, atol=1e-5)
    assert sum(batch.share.values()) == pytest.approx(1.0)
    dead = sum(all(result.advantages[t] == 0 for i, one in enumerate(rollouts.group) if one == key for t in range(rollouts.cu_seqlens[i], rollouts.cu_seqlens[i + 1]))
               for key in dict.fromkeys(rollouts.group))
    assert batch.groups["all groups"] == 20 and batch.groups["every advantage 0"] == dead > 0
    distributions.plot(tmp_path / "d.png", rollouts, "pass", result, terms)
    assert size(tmp_path / "d.png") == (1600, 940)


def test_panels_show_the_numbers() -> None:
    rollouts = example()
    _, result, terms = taken_apart(rollouts)
    batch = distributions.measure(rollouts, result, terms)
    axes = distributions.draw(rollouts, "pass", result, terms).axes
    assert len(axes) == 6
    bars = [bar.get_width() for bar in axes[4].patches]
    assert bars == list(batch.groups.values())
    told = [text.get_text() for text in axes[0].texts]
    assert told == [f"{name}: {100 * share:.0f}% of all |terms|" for name, share in batch.share.items()]
    scores = np.concatenate([points.get_offsets()[:, 1] for points in axes[5].collections])
    np.testing.assert_allclose(np.sort(scores), np.sort(result.path_scores))
    lengths = np.concatenate([points.get_offsets()[:, 0] for points in axes[5].collections])
    assert lengths.sum() == sum(bar.get_height() for bar in axes[3].patches) == result.report.tokens


def test_bins_of_remaining_chunks_double() -> None:
    assert distributions.remaining_bins(3) == [(1, 1), (2, 2), (3, 3)]
    assert distributions.remaining_bins(60)[-3:] == [(13, 24), (25, 48), (49, 96)]
    assert distributions.remaining_bins(0) == []
