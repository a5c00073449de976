"""Walk an agent over a real Evolution server, behind a proxy that delays, cuts and spoils what
passes, in front of a stand-in WhatsApp that goes silent.

  scripts/chaos evolution --server FOLDER                     25 sessions, WhatsApp silent for 240 s
  scripts/chaos evolution --server FOLDER --sessions 8 --seconds 60

FOLDER holds Evolution API 1.8 or 2.x with its packages; scripts/README.md says how to make one. It
runs in a copy, and FOLDER stays as it is. Exit status 1 if a paired session does not come back, or
logs in again and again, or its pairing was to end. Without a server that can run here it says why,
and leaves the walk out.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts.benches.machine import this_machine
from scripts.real_evolution.server import version_of, why_not
from scripts.real_evolution.walk import ROUNDS, Cost, open_walk
from tests.standin.baileys import run as node

HEAD = ("round", "back after (s)", "logins of one", "GET connect", "answered (s)", "held")


async def walk(source: Path, place: Path, sessions: int, seconds: float) -> list[Cost]:
    costs = []
    async with open_walk(source, place, sessions) as opened:
        print(f"{sessions} sessions, {len(opened.paired)} paired", file=sys.stderr)
        for name in ROUNDS:
            costs.append(await opened.play(name, seconds))
            print(f"{name}: {', '.join(_cells(costs[-1])[1:])}", file=sys.stderr, flush=True)
    return costs


def _cells(cost: Cost) -> list[str]:
    held = "; ".join(cost.broke) or "yes"
    counts = (str(cost.logins), str(cost.connects))
    return [cost.round, f"{cost.back:.1f}", *counts, f"{cost.answered:.1f}", held]


def table(rows: Sequence[Sequence[str]]) -> str:
    """As Markdown, which a terminal shows well enough too; the first column names its rows."""
    lines = [f"| {' | '.join(cells)} |" for cells in (HEAD, *rows)]
    return "\n".join([lines[0], "|---|" + "---:|" * (len(HEAD) - 1), *lines[1:]])


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/chaos evolution",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--server", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--sessions", type=int, default=25, metavar="N", help="three of five paired"
    )
    parser.add_argument("--seconds", type=float, default=240, help="length of each round's fault")
    options = parser.parse_args(argv)
    if reason := why_not(options.server) or node.why_not("baileys"):
        print(f"scripts/chaos evolution: left out: {reason}", file=sys.stderr)
        return 0
    place = Path(tempfile.mkdtemp(prefix="wa-evolution-", dir="/var/tmp"))
    place.chmod(0o711)  # PostgreSQL runs as a user of its own
    try:
        costs = asyncio.run(walk(options.server, place, options.sessions, options.seconds))
    except Exception as error:
        print(f"not held: {error!r}; the logs are in {place}", file=sys.stderr)
        return 1
    print(f"Evolution API {version_of(options.server)} on {this_machine()}.\n")
    print(table([_cells(cost) for cost in costs]))
    if any(cost.broke for cost in costs):
        print(f"the logs are in {place}", file=sys.stderr)
        return 1
    shutil.rmtree(place)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
