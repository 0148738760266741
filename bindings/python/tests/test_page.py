"""The HTML page: its data by themselves, then the page in a headless Chromium."""
from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import passrl

for needed in ("click", "rich", "tqdm", "matplotlib"):
    pytest.importorskip(needed, reason=f"SKIPPED: {needed} is not installed, the page was not written")

from passrl.cli import page as pages  # noqa: E402
from pictured import dense, example, taken_apart  # noqa: E402

EVIL = ['</script><img src=x onerror="window.hit=1">', "<!--<script>", "@DATA@", "\u2028", '"\\'] + ["<b>"] * 2


def written(path: Path, rollouts: Any, preset: str = "pass", most: int = pages.MOST_BYTES, groups: int = 0, **fields: Any) -> tuple[dict[str, Any], str]:
    config, result, terms = taken_apart(rollouts, preset, **fields)
    said = pages.write(path, rollouts, preset, config, result, terms, most, groups)
    return data_of(path), said


def data_of(path: Path) -> dict[str, Any]:
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', path.read_text("utf-8"), re.S)
    assert len(found) == 1
    return json.loads(found[0])  # type: ignore[no-any-return]


@pytest.mark.parametrize(("preset", "fields"), [("pass", {}), ("pass", {"temperature": 2.0}), ("grpo_pooled", {}), ("pass", {"kind": "kl", "missing": "exclude"})])
def test_data_are_the_runs(tmp_path: Path, preset: str, fields: dict[str, Any]) -> None:
    rollouts = example(text=True)
    config, result, terms = taken_apart(rollouts, preset, **fields)
    data, said = written(tmp_path / "p.html", rollouts, preset, **fields)
    assert said == "" and [group["key"] for group in data["groups"]] == [str(key) for key in dict.fromkeys(rollouts.group)]
    advantages, seen = np.zeros(len(result.advantages)), 0
    for i, row in enumerate(row for group in data["groups"] for row in group["rollouts"]):
        begin = int(rollouts.cu_seqlens[i])
        assert row["len"] == rollouts.cu_seqlens[i + 1] - begin == len(row["tokens"]) and len(row["chunks"]) == result.num_chunks[i]
        assert row["tokens"] == rollouts.tokens[i] and row["score"] == pytest.approx(result.path_scores[i], rel=1e-6)
        for f, *parts in row["chunks"]:
            assert sum(parts) == pytest.approx(f, abs=1e-5)
        for first, last, chunk, a, _, d in row["segments"]:
            assert d / config.temperature == pytest.approx(a, abs=1e-5)
            assert set(terms.chunk[begin + first : begin + last]) == {result.chunk_offsets[i] + chunk - 1}
            advantages[begin + first : begin + last] = a
            seen += last - first
    np.testing.assert_allclose(advantages, result.advantages, rtol=1e-6)
    assert seen == result.report.tokens
    assert data["overview"]["groups"][0] == ["all groups", 20]


def test_a_large_batch_is_cut_to_whole_groups(tmp_path: Path) -> None:
    rollouts = example(text=True)
    data, _ = written(tmp_path / "all.html", rollouts)
    most = len(json.dumps(data["groups"])) // 3
    some, said = written(tmp_path / "some.html", rollouts, most=most)
    count = len(some["groups"])
    assert 0 < count < 20 and some["groups"] == data["groups"][:count]
    assert said == some["cut"] == f"This page holds the first {count} of 20 groups: the data of all is more than {most / 1e6:.1f} MB. The overview is of all."
    assert (tmp_path / "some.html").stat().st_size < most + 40_000
    with pytest.raises(pages.TooLarge, match="group 0 alone has .* MB of data, and a page holds 0.0 MB at most; give a file with fewer"):
        written(tmp_path / "none.html", rollouts, most=100)
    _, said = written(tmp_path / "first.html", rollouts, groups=50)
    assert said == "This page holds the first 20 of 50 groups. The overview is of the first 20."


def test_text_cannot_leave_the_data(tmp_path: Path) -> None:
    rollouts = dense([7], [1, 1, 2, 2, 2, 0, 0], groups=["</title><script>window.hit=1</script>"], tokens=[EVIL])
    rollouts.sample[0] = "<img src=x onerror=window.hit=1>"  # type: ignore[call-overload]
    data, _ = written(tmp_path / "p.html", rollouts)
    (row,) = data["groups"][0]["rollouts"]
    assert row["tokens"] == EVIL and data["groups"][0]["key"] == rollouts.group[0]
    text = (tmp_path / "p.html").read_text("utf-8")
    assert text.count("<script") == 2 and "<img" not in text and text.count("</title>") == 1


def test_the_command(tmp_path: Path) -> None:
    import subprocess
    import sys

    from pictured import EXAMPLE

    def run(*arguments: Any) -> str:
        done = subprocess.run([sys.executable, "-m", "passrl", "shape", str(EXAMPLE), *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    told = run("--page", tmp_path / "p.html", "--distributions", tmp_path / "d.png")
    assert f"page: {tmp_path / 'p.html'}" in told and f"distributions: {tmp_path / 'd.png'}" in told
    assert len(data_of(tmp_path / "p.html")["groups"]) == 20 and (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
    assert data_of(tmp_path / "p.html")["groups"][0]["rollouts"][0]["tokens"]
    told = run("--page", tmp_path / "p.html", "--batch-tokens", 2000)
    held = len(data_of(tmp_path / "p.html")["groups"])
    assert 0 < held < 20 and f"page of the file's first {held} of 20 groups (the first batch; --whole-file takes all)" in told
    done = subprocess.run([sys.executable, "-m", "passrl", "shape", str(EXAMPLE), "--distributions", str(tmp_path / "d.gif")], capture_output=True, text=True)
    assert done.returncode == 2 and "must end in .png, .svg, .pdf" in done.stderr


# In a browser.

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="SKIPPED: playwright is not installed, the page was not opened in a browser; pip install playwright")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("SKIPPED: no Chromium here, the page was not opened in a browser; sudo apt-get install chromium-headless-shell")
    with playwright.sync_playwright() as running:
        one = running.chromium.launch(executable_path=found)
        yield one
        one.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens a batch's page; at the end nothing was said on the console, no error raised, nothing else fetched."""
    faults: list[str] = []
    contexts: list[Any] = []

    def open_(rollouts: Any, width: int = 1280, scheme: str = "light", **fields: Any) -> tuple[Any, dict[str, Any]]:
        path = tmp_path / f"{width}{scheme}.html"
        data, _ = written(path, rollouts, **fields)
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda fault: faults.append(str(fault)))
        page.on("request", lambda request: faults.append(request.url) if request.url != path.as_uri() else None)
        page.goto(path.as_uri())
        return page, data

    yield open_
    for context in contexts:
        context.close()
    assert faults == []


def values(page: Any) -> dict[str, float]:
    """Numbers of the box beside the pointer."""
    return {row["name"]: float(row["value"]) for row in page.eval_on_selector_all("#tip tr", "rows => rows.map(row => ({...row.dataset}))")}


def keys(page: Any) -> list[str]:
    return [text.removeprefix("group ") for text in page.locator("#groups h2").all_inner_texts()]


def test_pointing_at_a_token_tells_its_terms(opened: Any) -> None:
    page, data = opened(example(text=True))
    assert page.title() == data["title"] == page.inner_text("h1")
    row = data["groups"][1]["rollouts"][0]
    body = page.locator(".group").nth(1).locator(".text").first
    assert body.locator("b").count() == row["len"]
    assert body.text_content() == "".join(row["tokens"]).replace("\n", "↵\n")
    begin, end, chunk, a, g, d = row["segments"][1]
    body.locator("b").nth(begin).hover()
    tip = page.inner_text("#tip")
    k = len(row["chunks"])
    assert f"token {begin} of {row['len']}" in tip and f"chunk {chunk} of {k}, K − j + 1 = {k - chunk + 1}" in tip
    f, process, outcome, form = row["chunks"][chunk - 1]
    assert values(page) == {"process": process, "outcome": outcome, "format": form, "F": f, "G": g, "D": d, "A": a}
    covered = {t for one in row["segments"] for t in range(one[0], one[1])}
    out = next(t for t in range(row["len"]) if t not in covered)
    body.locator("b").nth(out).hover()
    assert "out of scope" in page.inner_text("#tip") and "out" in body.locator("b").nth(out).get_attribute("class")
    # Chunk marks: as many as chunks (each is in one piece here).
    assert body.locator("b.chunk").count() == k
    page.mouse.move(2, 2)
    assert not page.locator("#tip").is_visible()


def test_colours_follow_the_advantage(opened: Any) -> None:
    page, data = opened(example(text=True))
    found = page.eval_on_selector_all(".group:first-child .text", "rows => rows.map(r => [...r.children].map(c => getComputedStyle(c).backgroundColor))")
    for row, colours in zip(data["groups"][0]["rollouts"], found):
        for begin, _, _, a, _, _ in row["segments"]:
            red, green, blue, *alpha = map(float, re.findall(r"[\d.]+", colours[begin]))
            assert (blue > red) == (a > 0)
            assert (alpha or [1.0])[0] == pytest.approx((abs(a) / data["most"]) ** 0.5, abs=0.01)


def test_filters_and_orders(opened: Any) -> None:
    page, data = opened(example(text=True))
    everything = [group["key"] for group in data["groups"]]
    assert keys(page) == everything
    page.fill("#find", "7")
    assert keys(page) == ["7"] and "1 of 1 groups shown, 19 filtered out" in page.inner_text("#shown")
    page.fill("#find", "")
    page.select_option("#only", "dead groups (every A is 0)")
    assert keys(page) == [group["key"] for group in data["groups"] if group["dead"]] != []
    page.select_option("#only", "all groups")
    page.select_option("#sort", "spread of path scores")
    spread = {g["key"]: max(r["score"] for r in g["rollouts"]) - min(r["score"] for r in g["rollouts"]) for g in data["groups"]}
    assert [spread[key] for key in keys(page)] == sorted(spread.values(), reverse=True)
    page.select_option("#rows", "score")
    shown = [float(text.replace("−", "-")) for text in page.locator(".group:first-child .score").all_inner_texts()]
    assert shown == sorted(shown, reverse=True) and len(shown) > 1
    page.uncheck("#text")
    assert page.locator(".text").count() == 0 and page.locator(".bar").count() == sum(len(g["rollouts"]) for g in data["groups"])
    page.locator(".bar").first.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert "token 2 of" in page.inner_text("#tip")
    page.keyboard.press("Escape")
    assert not page.locator("#tip").is_visible()


def test_narrow_and_dark(opened: Any) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        page, _ = opened(example(text=True), width=400, scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        grounds[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.uncheck("#text")
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        page.locator(".bar").first.hover()
        box = page.locator("#tip").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 400
    assert grounds == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}


def test_markup_in_tokens_is_harmless(opened: Any) -> None:
    rollouts = dense([7, 2], [1, 1, 2, 2, 2, 0, 0, 3, 1], groups=["</title><img src=x onerror=window.hit=1>"] * 2, tokens=[EVIL, ["a", "b"]])
    rollouts.sample[0] = "<img src=x onerror=window.hit=1>"  # type: ignore[call-overload]
    page, _ = opened(rollouts)
    assert page.locator("#groups .text").first.text_content() == "".join(EVIL)
    page.locator("#groups .text b").first.hover()
    assert EVIL[0] in page.inner_text("#tip") and rollouts.sample[0] in page.inner_text(".label >> nth=0") and rollouts.group[0] in keys(page)[0]
    assert page.locator("img").count() == 0 and page.evaluate("window.hit") is None and page.evaluate("document.scripts.length") == 2


def test_many_chunks_are_painted(opened: Any) -> None:
    rng = np.random.default_rng(1)
    rollouts = dense([3000, 100, 2000, 0], rng.normal(size=5100), outcome=[1, 0, 0, 1])
    page, data = opened(rollouts, width=900, kind="kl")
    assert page.evaluate("document.documentElement.scrollWidth") <= 900
    assert page.locator("canvas").count() == 3
    # A pixel a token, coloured by its sign.
    pixels = page.evaluate("Array.from(document.querySelectorAll('canvas')[1].getContext('2d').getImageData(0, 0, 100, 1).data)")
    for i, (_, _, _, a, _, _) in enumerate(data["groups"][0]["rollouts"][1]["segments"]):
        red, _, blue, alpha = pixels[4 * i : 4 * i + 4]
        assert alpha < 40 or (blue > red) == (a > 0)
    page.locator(".bar").first.hover()
    assert "of 3000" in page.inner_text("#tip") and len(values(page)) == 6


def test_groups_come_in_parts(opened: Any) -> None:
    count = 40
    rollouts = dense([500] * count, np.tile([1.0, 0], 250 * count), groups=list(range(count)), tokens=[["x "] * 500] * count)
    page, _ = opened(rollouts)
    first = len(keys(page))
    assert 0 < first < count and f"{first} of {count} groups shown" in page.inner_text("#shown")
    page.click("#more")
    assert len(keys(page)) > first
