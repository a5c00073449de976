"""Faults on three real agents, one real PostgreSQL and real workers, each machine in a network of
its own. No two workers may ever send for one session, none may lose its pairing, no stored copy may
be replaced by an older one, and after each round all sessions are connected again. As root.

  scripts/chaos fleet --rounds 300 --seed 1
  scripts/chaos fleet --away 600               the database frozen for so long: no session drops
"""

import argparse
import asyncio
import os
import shutil
import signal
import statistics
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from agent.engines.baileys.fetch import fetch_packages
from scripts.benches.machine import TOP, this_machine
from scripts.nemeses.messages import counted, flowing
from scripts.nemeses.rounds import Chaos, chaos, load, now
from tests.fleet.agent import TTL
from tests.standin.baileys.run import why_not


async def run(
    rounds: int,
    seed: int,
    place: Path,
    say: Callable[[str], None],
    away: float = 0.0,
    *,
    messages: bool = False,
) -> Chaos:
    task = asyncio.current_task()
    assert task is not None
    # Ended from outside, it lets go what it froze, too.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    cache = Path(os.environ.get("WA_CACHE_PATH", TOP / ".cache"))
    if reason := why_not("baileys"):
        say(f"no sessions of the baileys engine: {reason}")
    else:
        fetch_packages(cache)
    async with chaos(place, seed, None if reason else cache) as found:
        if away:
            await found.without_database(away)
            say(f"{away:g} s without the database: no session dropped")
        async with flowing(found, count=messages) as traffic:
            for number in range(rounds):
                names = found.choose()
                await found.play(names)
                back = found.back[" + ".join(names)][-1]
                done = f"{number + 1} of {rounds}: {' + '.join(names)}"
                say(f"{done}; back after {back:.1f} s, {load()}")
        if traffic is not None:
            say(await counted(traffic))
        return found


def table(found: Chaos) -> str:
    head = ["fault", "rounds", "all connected again after it, median · longest (s)"]
    lines = ["| " + " | ".join(head) + " |", "|---|---:|---:|"]
    for name, back in sorted(found.back.items()):
        cells = (name, str(len(back)), f"{statistics.median(back):.1f} · {max(back):.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    logins = len(found.fleet.witness.connections())
    told = f"{logins} logins of the sandboxes and {found.logins_of_baileys} of baileys"
    lines.append(
        f"\n{told}, none overlapped another one of its session; no pairing lost,"
        " 0 copies replaced by older ones."
    )
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/chaos fleet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=100, metavar="N", help="number of rounds")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of all choices")
    words = "freeze the database for so many seconds, in place of the rounds"
    parser.add_argument("--away", type=float, default=0.0, metavar="SECONDS", help=words)
    words = "messages come and go in a session all the time, and are counted at the end"
    parser.add_argument("--messages", action="store_true", help=words)
    options = parser.parse_args(argv)
    rounds = 0 if options.away else options.rounds
    print(f"On {this_machine()}; ttl {TTL:g} s.\n")
    place = Path(tempfile.mkdtemp(prefix="wa-chaos-", dir="/var/tmp"))
    try:
        found = asyncio.run(
            run(rounds, options.seed, place, _say, options.away, messages=options.messages)
        )
    except Exception:
        traceback.print_exc()
        words = "not held; each machine's agent.log, and its state, the logins and the database"
        print(f"{words} in kept/, are in {place}", file=sys.stderr)
        return 1
    print(table(found))
    shutil.rmtree(place)
    return 0


def _say(text: str) -> None:
    print(f"{now()} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
