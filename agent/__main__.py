"""The one program: `wa-agent COMMAND ...`, also `python -m agent`."""

import os
import sys


def main() -> int:
    if sys.getfilesystemencoding() != "utf-8":  # a locale that cannot name every session
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    # The lists in question are short; the C++ runtime that they would bring is 1 MiB.
    os.environ.setdefault("FROZENLIST_NO_EXTENSIONS", "1")
    try:
        from agent.cli.command import run

        return run(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
