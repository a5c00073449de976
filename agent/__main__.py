"""The one program: `wa-agent COMMAND ...`, also `python -m agent`."""

import os
import sys


def main() -> int:
    # The lists in question are short; the C++ runtime that they would bring is 1 MiB.
    os.environ.setdefault("FROZENLIST_NO_EXTENSIONS", "1")
    from agent.cli.main import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
