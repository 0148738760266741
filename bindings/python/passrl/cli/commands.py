"""Commands of the console script."""
from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import __version__
from ..config import Config, presets as all_presets
from ..errors import Error
from ..plan import Plan
from . import help
from .comparison import Comparison, Records
from .explained import Explained
from .lines import BadLine, printable
from .output import Output, Refused, whole
from .rollouts import Rollouts
from .shaper import Shaper, differences, limits, settled
from .stream import BATCH_TOKENS, Source, batches
from .table import Run, Tally, located
from .work import Work

BASELINE = "grpo_process"


@contextmanager
def _to_standard_output() -> Iterator[None]:
    """A write's refusal says where to."""
    try:
        yield
    except OSError as fault:
        # Else the interpreter writes what is held once more, at its end.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OSError(fault.errno, fault.strerror, "standard output") from None


class _Console(Console):
    def print(self, *objects: Any, **options: Any) -> None:
        with _to_standard_output():
            super().print(*objects, **options)


def _console() -> Console:
    console = _Console()
    return console if console.is_terminal else _Console(width=150)


def _say(sentence: str) -> None:
    with _to_standard_output():
        click.echo(sentence)


def _answered(command: Callable[..., None]) -> Callable[..., None]:
    """What went wrong, as one line on standard error: status 2, or 130 for an interruption."""
    @functools.wraps(command)
    def run(**options: Any) -> None:
        try:
            command(**options)
        except (BadLine, Refused, Error) as fault:
            click.echo(f"passrl: {printable(str(fault).removeprefix('passrl: '))}", err=True)
            sys.exit(2)
        except OSError as fault:
            if fault.errno == errno.EPIPE:
                # Whoever read this has gone away, and wants no more: click ends quietly with status 1.
                raise
            click.echo(f"passrl: {printable(_place(fault, options))}: {fault.strerror or fault}", err=True)
            sys.exit(2)
        except MemoryError:
            click.echo(f"passrl: {options.get('file', '')}: does not fit into memory; give a smaller --batch-tokens, and leave out --whole-file", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo("passrl: interrupted; nothing was written", err=True)
            sys.exit(130)

    return run


# What a file that is read never answers.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _place(fault: OSError, options: dict[str, Any]) -> str:
    """Where the system has refused something: a write names no file."""
    if fault.filename is not None:
        return str(fault.filename)
    written = [str(options[name]) for name in ("out", "page", "distributions", "plot") if options.get(name) is not None]
    return ", ".join(written) if fault.errno in _NO_ROOM and written else str(options.get("file") or "the file system")


def _options(*options: Callable[..., Any]) -> Callable[..., Any]:
    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_file = click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
_preset = click.option("--preset", default="pass", show_default=True, help="What to compute; see `passrl presets`.")
_set = click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A field of the configuration, as k=0.5 or outcome.ddof=0. Repeatable.")
_kind = click.option("--kind", type=click.Choice(["prm", "kl", "none"]), help="The process signal; prm unless the file has log-probabilities alone.")
_threads = click.option("--threads", default=0, show_default=True, help="Threads; 0 lets the library choose. Results do not depend on it.")
_backend = click.option("--backend", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True,
                        help="cuda: on device 0, to which the file's arrays are copied. Results do not depend on it.")
_run = _options(
    click.option("--batch-tokens", type=click.IntRange(min=1), default=BATCH_TOKENS, show_default=True,
                 help="Tokens held at a time (whole groups). Results do not depend on it."),
    click.option("--whole-file", is_flag=True, help="Hold the whole file; groups may then lie anywhere in it."),
    click.option("--quiet", is_flag=True, help="No progress bar, no table."),
)
_plot = _options(
    click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw one group to this picture (.png, .svg, .pdf)."),
    click.option("--group", "chosen", metavar="NAME", help="The group to draw (default: the most legible, which is told)."),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 130}, epilog=help.TOP)
@click.version_option(__version__, prog_name="passrl")
def commands() -> None:
    """Turns the rewards of RL rollouts into one advantage per token."""


@commands.command("presets", epilog=help.PRESETS)
@click.argument("name", required=False)
@_answered
def presets_command(name: str | None) -> None:
    """Lists the presets and where each comes from; with NAME those that begin with it, or the fields of one."""
    found = [preset for preset in all_presets() if preset.startswith(name or "")]
    if name is not None and (name in found or not found):
        _show_preset(name, Config(name))
        return
    shown = Table(header_style="bold")
    for head in ("preset", "source"):
        shown.add_column(head, overflow="fold")
    for preset in found:
        shown.add_row(escape(preset), escape(preset.source))
    _console().print(shown)


def _show_preset(name: str, config: Config) -> None:
    source = next((one.source for one in all_presets() if one == name), "")
    _say(f"preset {name}: {source}")
    changed = differences(config)
    _say("fields that differ from the defaults:" if changed else "all fields are the defaults")
    for field, value, default in changed:
        _say(f"  {field} = {value} (default {default})")


def _configured(preset: str, settings: tuple[str, ...], kind: str | None) -> Config:
    config = Config(preset)
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise Refused(f"--set {setting}: write KEY=VALUE, as k=0.5")
        config.set(key.strip(), value.strip())
    if kind is not None:
        config.set("kind", kind)
    return config


@commands.command("shape", epilog=help.SHAPE)
@_options(_file, _preset, _set, _kind)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the results here: .npz, .jsonl or .parquet.")
@click.option("--page", type=click.Path(dir_okay=False, path_type=Path), help="Write this HTML page: every rollout, and each token's terms.")
@click.option("--distributions", type=click.Path(dir_okay=False, path_type=Path), help="Draw the batch's advantages to this picture (.png, .svg, .pdf).")
@_options(_plot, _run, _threads, _backend)
@_answered
def shape_command(
    file: str, preset: str, settings: tuple[str, ...], kind: str | None, out: Path | None, page: Path | None, distributions: Path | None,
    plot: Path | None, chosen: str | None, threads: int, backend: str, batch_tokens: int, whole_file: bool, quiet: bool,
) -> None:
    """Computes the advantages of the rollouts in FILE, shows what changes against process-supervised GRPO, and writes them."""
    _apart(file, {"--out": out, "--page": page, "--distributions": distributions, "--plot": plot})
    config = _configured(preset, settings, kind)
    output = None if out is None else Output(out)
    explained = Explained(page, distributions, threads)
    work = Work(Source(file, quiet), None if whole_file else batch_tokens, plot, chosen, text=page is not None)
    shaper = Shaper(config, threads, whole_file, backend)
    work.add(preset, shaper)
    if preset != BASELINE and not quiet:
        # An estimator of outcomes alone is shown against the process signal that the file has all the same.
        kinds = {"kind": config.kind} if config.kind != "none" and ("kind" in config.told or config.kind != "prm") else {}
        work.add(BASELINE, Shaper(Config(BASELINE, **kinds), threads, whole_file, backend), beside=True)
    console = _console()
    tally: Tally | None = None
    told = False
    with ExitStack() as stack:
        writer = None if output is None else stack.enter_context(output)
        for batch in work.batches():
            if writer is not None:
                writer.add(batch.rollouts, batch.runs[-1].shaped)
            explained.add(batch.rollouts, batch.runs[-1], batch.rows)
            if quiet:
                told = told or _warned(batch.runs[-1], batch.rollouts)
            else:
                tally = tally or Tally([run.name for run in batch.runs])
                tally.add(batch.rollouts, batch.runs, batch.rows, batch.scope)
        picture = None if plot is None else work.picture(plot, stack.enter_context(whole(plot)))
        pages = explained.write(shaper.config, stack)
    for sentence in work.notes:
        console.print(sentence, highlight=False, markup=False)
    if tally is not None:
        tally.show(console)
        for sentence in filter(None, [None if out is None else f"advantages: {out}", picture, *pages]):
            console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def _warned(run: Run, rollouts: Rollouts) -> bool:
    """Says on standard error what a batch's data has, where no table will."""
    if run.shaped.status:
        click.echo(f"passrl: {run.name}: {located(run.shaped.message, rollouts)}; its group, and others like it, have advantage 0", err=True)
    return bool(run.shaped.status)


def _apart(file: str, outputs: dict[str, Path | None]) -> None:
    """No output is the input, or another output."""
    seen = {} if file == "-" else {Path(file).resolve(): "FILE"}
    for option, path in outputs.items():
        if path is None:
            continue
        other = seen.setdefault(path.resolve(), option)
        if other != option:
            raise Refused(f"{option} {path}: is {other} as well, which would be lost; give another name")


def _named(specs: tuple[str, ...], kind: str | None) -> dict[str, Config]:
    """Configurations by label: `name` or `name:key=value,key=value`, separated by commas."""
    texts: list[str] = []
    for item in (item.strip() for spec in specs for item in spec.split(",")):
        head = item.partition("=")[0]
        if "=" in item and ":" not in head:
            if not texts:
                raise Refused(f"--presets {item}: begins with a setting; write name or name:key=value,key=value")
            texts[-1] += ("," if ":" in texts[-1] else ":") + item
        elif item:
            texts.append(item)
    found: dict[str, Config] = {}
    for text in texts:
        name, _, fields = text.partition(":")
        if text in found:
            raise Refused(f"--presets has {text} twice")
        found[text] = _configured(name.strip(), tuple(field for field in fields.split(",") if field), kind)
    if not found:
        raise Refused("--presets is empty; write names of `passrl presets`, as pass,grpo_process")
    return found


@commands.command("compare", epilog=help.COMPARE)
@_file
@click.option("--presets", "specs", multiple=True, default=("pass,grpo_process,grpo_pooled",), show_default=True, metavar="NAME[:KEY=VALUE,...],...",
              help="Configurations; each is held against the first.")
@_kind
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the numbers, of all and of each group: .json, .csv or .parquet.")
@_options(_plot, _run, _threads)
@_answered
def compare_command(
    file: str, specs: tuple[str, ...], kind: str | None, out: Path | None, plot: Path | None, chosen: str | None, threads: int,
    batch_tokens: int, whole_file: bool, quiet: bool,
) -> None:
    """Computes the advantages of FILE under several configurations and says how they differ."""
    configs = _named(specs, kind)
    output = None if out is None else Records(out)
    work = Work(Source(file, quiet), None if whole_file else batch_tokens, plot, chosen)
    for name, config in configs.items():
        work.add(name, Shaper(config, threads, whole_file))
    console = _console()
    with ExitStack() as stack:
        records = None if output is None else stack.enter_context(output)
        comparison = Comparison(list(configs), (lambda record: None) if records is None else records.add)
        for batch in work.batches():
            comparison.add(batch.rollouts, batch.runs, batch.rows, batch.scope)
        if records is not None:
            records.finish(comparison.totals())
        picture = None if plot is None else work.picture(plot, stack.enter_context(whole(plot)))
    if not quiet:
        comparison.show(console)
        told = [None if out is None else f"numbers: {out}", picture]
        for sentence in filter(None, told):
            console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def _limit(name: str, default: str) -> Callable[..., Any]:
    return click.option(f"--{name}", type=click.IntRange(min=1), help=f"The most of a run (default: {default}).")


@commands.command("describe", epilog=help.DESCRIBE)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), required=False)
@_options(_preset, _set, _kind)
@_options(_limit("rollouts", "1024"), _limit("groups", "an eighth of the rollouts"), _limit("rollout-tokens", "4096"),
          _limit("tokens", "rollouts times rollout tokens"), _limit("steps", "tokens"), _threads)
@_answered
def describe_command(file: str | None, preset: str, settings: tuple[str, ...], kind: str | None, threads: int, **given: int | None) -> None:
    """Says what a configuration computes: its fields that differ from the defaults, and the plan's stages, reductions and memory.

    With FILE the limits are those of the whole file as one batch.
    """
    config = _configured(preset, settings, kind)
    told = {name: value for name, value in given.items() if value is not None}
    if file is not None:
        (rollouts,) = batches(Source(file), None)
        config = settled(config, rollouts)
        most = limits([rollouts.arguments(config)], config) | told
    else:
        count, longest = told.get("rollouts", 1024), told.get("rollout_tokens", 4096)
        most = {"rollouts": count, "groups": max(count // 8, 1), "rollout_tokens": longest, "tokens": count * longest} | told
        # The exact sums' own limit, which the library checks: what a group of average size can hold.
        size = -(-count // most["groups"])
        elements = min(size * longest, (1 << 17) - 1) if config.kind == "prm" else size * longest
        most |= {"group_rollouts": size, "group_elements": elements}
    plan = Plan(config, threads=threads, **most)
    _show_preset(preset, config)
    _say(str(plan).rstrip())
