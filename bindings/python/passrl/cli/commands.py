"""Commands of the console script."""
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .. import __version__
from ..batch import Steps, group_index
from ..config import Config, presets as all_presets
from ..errors import Error
from ..shape import shape as shape_batch
from . import table
from .rollouts import BadLine, Rollouts, read

BASELINE = "grpo_process"
# Files above this many bytes get a progress bar.
LONG = 1 << 20


def _console(stderr: bool = False) -> Console:
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=150)


def _fail(sentence: str) -> Any:
    click.echo(f"passrl: {sentence.removeprefix('passrl: ')}", err=True)
    sys.exit(2)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="passrl")
def commands() -> None:
    """Turns the rewards of RL rollouts into per-token advantages."""


@commands.command("presets")
def presets_command() -> None:
    """Lists the presets and where each comes from."""
    shown = Table(header_style="bold")
    for head in ("preset", "source", "differs from pass by"):
        shown.add_column(head, overflow="fold")
    for preset in all_presets():
        shown.add_row(preset, preset.source, repr(preset.config).removeprefix("Config(").removesuffix(")") or "-")
    _console().print(shown)


@commands.command("shape")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--preset", default="pass", show_default=True, help="What to compute; see `passrl presets`.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A field of the configuration, as k=0.5 or outcome.ddof=0. Repeatable.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write advantages and chunks to this .npz.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw one group to this picture.")
@click.option("--distributions", type=click.Path(dir_okay=False, path_type=Path), help="Draw the whole batch's advantages to this picture: streams, places, lengths.")
@click.option("--page", type=click.Path(dir_okay=False, path_type=Path), help="Write this HTML page: every rollout, each token's terms on pointing at it.")
@click.option("--group", "chosen", help="The group to draw (default: the most legible, which is told).")
@click.option("--threads", default=0, show_default=True, help="Threads; 0 lets the library choose. Results do not depend on it.")
def shape_command(file: Path, preset: str, settings: tuple[str, ...], out: Path | None, plot: Path | None, distributions: Path | None,
                  page: Path | None, chosen: str | None, threads: int) -> None:
    """Shapes the rollouts of FILE: one JSON object a line with group, sample, len, step_end (exclusive), step_score and optionally
    step_begin (tokens between steps are out of scope), outcome, format, format_ok; or signal, a value a token, instead of step_score."""
    try:
        _shape(file, preset, settings, out, plot, chosen, threads, distributions, page)
    except (BadLine, Error) as fault:
        _fail(str(fault))
    except OSError as fault:
        _fail(f"{fault.filename or file}: {fault.strerror or fault}")


def _read(file: Path) -> Rollouts:
    size = file.stat().st_size
    if size < LONG:
        return read(file)
    columns = (TextColumn("reading {task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console(stderr=True), transient=True) as progress:
        task = progress.add_task(file.name, total=size)
        return read(file, lambda seen: progress.update(task, completed=seen))


def _settings(settings: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            _fail(f"--set {setting}: write KEY=VALUE, as k=0.5")
        found[key.strip()] = value.strip()
    return found


def _batch(rollouts: Rollouts) -> dict[str, Any]:
    batch: dict[str, Any] = {
        "cu_seqlens": rollouts.cu_seqlens, "groups": rollouts.group, "outcome": rollouts.outcome, "format": rollouts.format,
        "format_ok": rollouts.format_ok, "signal": rollouts.signal,
    }
    if rollouts.step_end is not None:
        batch["steps"] = Steps(rollouts.step_offsets, rollouts.step_end, rollouts.step_score, rollouts.step_begin)
    return batch


def _shape(
    file: Path, preset: str, settings: tuple[str, ...], out: Path | None, plot: Path | None, chosen: str | None, threads: int,
    distributions: Path | None, page: Path | None,
) -> None:
    config = Config(preset, **_settings(settings))
    rollouts = _read(file)
    if rollouts.step_score is None and rollouts.signal is None and "kind" not in config.told:
        config.set("kind", "none")
    batch = _batch(rollouts)
    run = table.Run(preset, shape_batch(config, threads=threads, **batch))
    console = _console()
    runs = [run]
    if preset != BASELINE:
        try:
            runs.insert(0, table.Run(BASELINE, shape_batch(Config(BASELINE, kind=config.kind), threads=threads, **batch)))
        except Error as fault:
            console.print(f"{BASELINE} is not shown: {fault}", highlight=False)
    index, _ = group_index(rollouts.group)
    scope = rollouts.scope()
    rows = table.groups(rollouts, run, index, scope)
    table.show(console, rollouts, runs, rows, scope)
    if out is not None:
        _write(out, rollouts, run)
        console.print(f"advantages: {out}", highlight=False)
    if plot is not None:
        _draw(console, plot, rollouts, runs, rows, chosen)
    if distributions is not None or page is not None:
        _explain(console, distributions, page, rollouts, run, config, batch, threads)


def _explain(
    console: Console, distributions: Path | None, page: Path | None, rollouts: Rollouts, run: table.Run, config: Config, batch: dict[str, Any], threads: int,
) -> None:
    from . import distributions as panels, page as pages
    from .terms import explain

    terms = explain(config, batch, run.shaped, rollouts.scope(), threads)
    for path in (distributions, page):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if distributions is not None:
            panels.plot(distributions, rollouts, run.name, run.shaped, terms)
            console.print(f"distributions: {distributions}", highlight=False)
        if page is not None:
            said = pages.write(page, rollouts, run.name, config, run.shaped, terms)
            console.print(f"page: {page}. {said}".rstrip(". "), highlight=False)
    except ModuleNotFoundError as fault:
        _fail(f"--distributions needs {fault.name}; install it with: pip install 'passrl[cli]'")
    except pages.TooLarge as fault:
        _fail(f"--page: {fault}")


def _write(out: Path, rollouts: Rollouts, run: table.Run) -> None:
    shaped = run.shaped
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("wb") as target:
        np.savez_compressed(
            target, advantages=shaped.advantages, cu_seqlens=rollouts.cu_seqlens, group=np.array(rollouts.group), sample=np.array(rollouts.sample),
            path_scores=shaped.path_scores, num_chunks=shaped.num_chunks, chunk_offsets=shaped.chunk_offsets, chunk_ends=shaped.chunk_ends,
            chunk_values=shaped.chunk_values)


def _draw(console: Console, plot: Path, rollouts: Rollouts, runs: list[table.Run], rows: list[table.GroupRow], chosen: str | None) -> None:
    steps = np.diff(rollouts.step_offsets) if rollouts.step_offsets is not None else runs[-1].shaped.num_chunks
    if chosen is None:
        row, why = table.legible(rollouts, runs, rows, steps)
    else:
        named = [one for one in rows if str(one.key) == chosen]
        if not named:
            keys = ", ".join(str(one.key) for one in rows[:5])
            _fail(f"--group {chosen}: the file has no such group; its {len(rows)} groups are {keys}{', ...' if len(rows) > 5 else ''}")
        row, why = named[0], "as asked"
    try:
        from .picture import compare

        plot.parent.mkdir(parents=True, exist_ok=True)
        compare(plot, rollouts, {runs[-1].name: runs[-1].shaped}, row.key)
    except ModuleNotFoundError as fault:
        _fail(f"--plot needs {fault.name}; install it with: pip install 'passrl[cli]'")
    console.print(f"picture of group {row.key} ({why}): {plot}", highlight=False)
