"""`passrl` on the command line; needs the extra `cli`."""
from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the console script."""
    try:
        from .cli.commands import commands
    except KeyboardInterrupt:
        print("passrl: interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)
    except ModuleNotFoundError as fault:
        if (fault.name or "").partition(".")[0] in ("click", "rich", "tqdm"):
            sys.exit(f"passrl: the command line needs {fault.name}; install it with: pip install 'passrl[cli]'")
        raise
    commands(prog_name="passrl")


if __name__ == "__main__":
    main()
