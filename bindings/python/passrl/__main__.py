"""`passrl` on the command line; needs the extra `cli`."""
from __future__ import annotations

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
    commands(prog_name="passrl")


def _terminated(*_: Any) -> None:
    print("passrl: terminated; nothing was written", file=sys.stderr)
    sys.exit(143)


if __name__ == "__main__":
    main()
