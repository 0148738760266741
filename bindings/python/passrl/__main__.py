"""`passrl` on the command line; needs the extra `cli`."""
from __future__ import annotations

import io
import signal
import sys
from typing import Any


def main() -> None:
    """Entry point of the console script."""
    # As an exception, so that partial files are removed on the way out.
    signal.signal(signal.SIGTERM, _terminated)
    try:
        from .cli.commands import commands
    except KeyboardInterrupt:
        print("passrl: interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)
    except ModuleNotFoundError as fault:
        if (fault.name or "").partition(".")[0] in ("click", "rich", "tqdm"):
            sys.exit(f"passrl: the command line needs {fault.name}; install what it needs with: pip install click rich tqdm matplotlib")
        raise
    for stream in (sys.stdout, sys.stderr):
        # An encoding without a character (LANG=C, PYTHONIOENCODING=ascii) gets it written out.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    try:
        commands(prog_name="passrl")
    except OSError as fault:
        # A command answers for its own; the text of --help is click's.
        print(f"passrl: standard output: {fault.strerror or fault}", file=sys.stderr)
        sys.exit(2)


def _terminated(*_: Any) -> None:
    print("passrl: terminated; nothing was written", file=sys.stderr)
    sys.exit(143)


if __name__ == "__main__":
    main()
