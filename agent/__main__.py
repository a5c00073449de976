"""The one program: `wa-agent COMMAND ...`, also `python -m agent`."""

import sys


def main() -> int:
    from agent.cli.main import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
