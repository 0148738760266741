"""Draws the pictures of docs/pictures.md from the example's rollouts: `make pictures`."""
from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

import passrl
from passrl.cli import distributions, page, picture
from passrl.cli.stream import read
from passrl.cli.terms import explain

HERE = Path(__file__).resolve().parent
ROLLOUTS = HERE.parents[1] / "bindings" / "python" / "examples" / "arithmetic_rollouts.jsonl"
PAPER = ("grpo_pooled", "grpo_process", "pass")
GROUP = 4
MOST_BYTES = 150_000


def save(name: str, png: bytes) -> None:
    """Few colours make a small file."""
    small = Image.open(io.BytesIO(png)).convert("RGB").quantize(192, dither=Image.Dither.NONE)
    small.save(HERE / name, optimize=True)
    size = (HERE / name).stat().st_size
    if size > MOST_BYTES:
        sys.exit(f"{name} has {size} bytes; it must have {MOST_BYTES} at most")


def screenshot(path: Path) -> bytes | None:
    """The page as a browser shows it, pointing at a token; None where there is none to show it."""
    found = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        return None
    if found is None:
        return None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found)
        tab = browser.new_page(viewport={"width": 1280, "height": 860})
        tab.goto(path.as_uri())
        tab.locator(".group .text").nth(2).locator("b").nth(10).hover()
        png = tab.screenshot()
        browser.close()
    return bytes(png)


def main() -> None:
    rollouts = read(ROLLOUTS, text=True)
    configs = {name: passrl.Config(name) for name in PAPER}
    shaped = {name: passrl.shape(config, **rollouts.arguments(config)) for name, config in configs.items()}
    terms = explain(configs["pass"], rollouts.arguments(configs["pass"]), shaped["pass"], rollouts.scope())
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        picture.compare(made / "compare.png", rollouts, shaped, GROUP)
        distributions.plot(made / "distributions.png", rollouts, "pass", shaped["pass"], terms)
        page.write(made / "page.html", rollouts, "pass", configs["pass"], shaped["pass"], terms)
        for name in ("compare.png", "distributions.png"):
            save(name, (made / name).read_bytes())
        png = screenshot(made / "page.html")
    if png is None:
        print("page.png is as it was: it needs a Chromium and playwright")
    else:
        save("page.png", png)


if __name__ == "__main__":
    main()
