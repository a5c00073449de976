"""Take the network from running sessions, and measure when they are connected again.

  scripts/chaos outage                             10, 30 and 120 s, 1, 2 and 100 sessions
  scripts/chaos outage --seconds 900 --sessions 1,2 --on sandbox,backend

Sandbox sessions lose their network, browsers their way to the stand-in page, and backend sessions
their stand-in server, which comes back with no session connected. Exit status 1 if a session is
connected later than 10 s after its network (with 100 sessions: plus the time that the budget of
logins costs), or logged in more than twice.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.core.admission import StartPolicy
from scripts.outages.beds import Bed, make_bed
from scripts.table import table

KINDS = ("sandbox", "web", "backend")
MOST_BROWSERS = 8
BACK_WITHIN = 10.0
MOST_LOGINS = 2
WATCHED = 120.0
"""Seconds after which one that is not connected is given up."""
EVERY = 0.1


@dataclass(frozen=True, slots=True)
class Cost:
    kind: str
    sessions: int
    seconds: float
    first: float
    """Seconds from the network's return until the first was connected again; inf = none was."""
    last: float
    logins: int
    """The most that one session began for it."""

    @property
    def allowed(self) -> float:
        policy = StartPolicy()
        return BACK_WITHIN + max(self.sessions - policy.logins, 0.0) * policy.login_every

    @property
    def held(self) -> bool:
        return self.last <= self.allowed and self.logins <= MOST_LOGINS


async def measure(bed: Bed, kind: str, seconds: float) -> Cost:
    before = await bed.logins()
    await bed.cut(seconds)
    back = time.monotonic()
    if len(await bed.connected()) == len(bed.ids):
        raise RuntimeError(f"{kind}: no session noticed the outage of {seconds:g} s")
    first = last = float("inf")
    while time.monotonic() - back < WATCHED:
        up, late = len(await bed.connected()), time.monotonic() - back
        if up:
            first = min(first, late)
        if up == len(bed.ids):
            last = late
            break
        await asyncio.sleep(EVERY)
    after = await bed.logins()
    return Cost(kind, len(bed.ids), seconds, first, last, after - before)


async def play(kind: str, count: int, lengths: Sequence[float], place: Path) -> list[Cost]:
    async with make_bed(kind, count, place) as bed:
        costs = []
        for seconds in lengths:
            costs.append(await measure(bed, kind, seconds))
            print(f"{kind}, {count}, {seconds:g} s: {_cells(costs[-1])}", file=sys.stderr)
        return costs


async def play_all(
    kinds: Sequence[str], sizes: Sequence[int], lengths: Sequence[float], parallel: int
) -> list[Cost]:
    places = asyncio.Semaphore(parallel)
    with tempfile.TemporaryDirectory(prefix="wa-outage-") as root:

        async def one(kind: str, count: int) -> list[Cost]:
            async with places:
                return await play(kind, count, lengths, Path(root) / f"{kind}-{count}")

        cases = [(kind, n) for kind in kinds for n in sizes if kind != "web" or n <= MOST_BROWSERS]
        found = await asyncio.gather(*(one(kind, count) for kind, count in cases))
    return [cost for costs in found for cost in costs]


def _cells(cost: Cost) -> list[str]:
    held = "yes" if cost.held else "**no**"
    return [
        str(cost.sessions),
        f"{cost.seconds:g} s",
        f"{cost.first:.1f} s",
        f"{cost.last:.1f} s",
        f"{cost.allowed:.0f} s",
        str(cost.logins),
        held,
    ]


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/chaos outage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--seconds", type=_numbers, default=[10, 30, 120], help="lengths of the outages"
    )
    parser.add_argument(
        "--sessions", type=_numbers, default=[1, 2, 100], help="numbers of sessions"
    )
    parser.add_argument("--on", default=",".join(KINDS), help=f"kinds, of {', '.join(KINDS)}")
    parser.add_argument("--parallel", type=int, default=4, help="agents at a time")
    given = parser.parse_args()
    kinds = given.on.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"--on: no such sessions: {', '.join(sorted(unknown))}")
    costs = asyncio.run(play_all(kinds, given.sessions, given.seconds, given.parallel))
    head = ["on", "sessions", "outage", "first back", "last back", "at most", "logins", "held"]
    rows = [[cost.kind, *_cells(cost)] for cost in costs]
    print(table(head, rows))
    return 0 if all(cost.held for cost in costs) else 1


if __name__ == "__main__":
    sys.exit(main())
