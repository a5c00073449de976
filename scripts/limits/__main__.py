"""Many messages in one session: that wait, that come at once, whose consumer is away for a day.

  scripts/chaos limits waiting [--messages 100000]
  scripts/chaos limits burst [--messages 5000] [--engine sandbox|baileys]
  scripts/chaos limits outage [--seconds 240] [--rate 20] [--kills 12] [--engine sandbox|baileys]

Exit status 1 if one was lost, came to the webhook out of the order of its chat, or is kept twice.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts.benches.machine import this_machine
from scripts.limits.burst import burst
from scripts.limits.outage import Day, outage
from scripts.limits.waiting import waiting
from tests.standin.baileys.run import why_not


def main(argv: Sequence[str]) -> int:
    options = _parser().parse_args(argv)
    engine = getattr(options, "engine", "sandbox")
    if engine == "baileys" and (reason := why_not("baileys")):
        print(f"scripts/chaos: {reason}", file=sys.stderr)
        return 1
    print(f"On {this_machine()}.\n", flush=True)
    root = Path(tempfile.mkdtemp(prefix="wa-limits-", dir="/var/tmp"))
    if options.what == "waiting":
        run = waiting(root, options.messages)
    elif options.what == "burst":
        run = burst(root, engine, options.messages)
    else:
        run = outage(root, engine, Day(options.seconds, options.rate, options.kills))
    table, broke = asyncio.run(run)
    print(table)
    if broke:
        print("not held:", *broke, f"see {root}", sep="\n", file=sys.stderr)
        return 1
    shutil.rmtree(root)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/chaos limits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subjects = parser.add_subparsers(dest="what", required=True, metavar="waiting|burst|outage")
    subject = subjects.add_parser("waiting", help="messages that nobody has read yet")
    subject.add_argument("--messages", type=int, default=100_000, metavar="N", help="that wait")
    subject = subjects.add_parser("burst", help="messages that come at once")
    subject.add_argument("--messages", type=int, default=5000, metavar="N", help="at once")
    _engine(subject)
    subject = subjects.add_parser("outage", help="a webhook's target that is away for a day")
    words = "in which the day passes"
    subject.add_argument("--seconds", type=float, default=240.0, metavar="N", help=words)
    subject.add_argument("--rate", type=float, default=20.0, metavar="N", help="messages a second")
    words = "of the agent and of the worker in turn, at most 48"
    subject.add_argument("--kills", type=int, default=12, metavar="N", help=words)
    _engine(subject)
    return parser


def _engine(subject: argparse.ArgumentParser) -> None:
    choices = ("sandbox", "baileys")
    subject.add_argument("--engine", choices=choices, default="sandbox", help="default %(default)s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
