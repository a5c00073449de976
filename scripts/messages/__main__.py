"""Numbered messages in both directions through the sessions of one agent, while worker, Node, agent
and the webhook's target are killed and frozen and the network is cut. Consumers are a webhook and a
reader with a cursor; contacts show two messages of one id as one, as phones do.

  scripts/chaos messages                               10,000 each way over eight baileys sessions
  scripts/chaos messages --engine sandbox --messages 2000
  scripts/chaos messages --pack 4                      in packs of four

Exit status 1 if a message of a session was lost or doubled, in any direction.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agent.errors import HostError
from scripts.benches.machine import this_machine
from scripts.messages.beds import BaileysBed, Bed, SandboxBed, WebBed
from scripts.messages.load import Run
from scripts.messages.tally import table
from tests.standin.baileys.run import why_not

BEDS: Mapping[str, Callable[[Path], Bed]] = {
    "baileys": BaileysBed,
    "sandbox": lambda _: SandboxBed(),
    "web": lambda _: WebBed(),
}


def report(run: Run, options: argparse.Namespace, seconds: float) -> str:
    faults = ", ".join(f"{count} times {name}" for name, count in sorted(run.faults.done.items()))
    packs = f" in packs of {options.pack}" if options.pack > 1 else ""
    words = (
        f"Engine {options.engine}{packs}, seed {options.seed}, {run.faults.done.total()} faults in"
        f" {seconds:.0f} s ({faults}); the target was begun {run.target.process.starts} times."
    )
    bots = [run.bot.tally] if run.bot else []
    return f"{words}\n\n{table([*run.ours.values()], bots)}"


def why_left_out(options: argparse.Namespace) -> str:
    if options.engine != "baileys" and options.pack > 1:
        return "--pack is of the engine baileys"
    return "--pack is a number of sessions, 1 or more" if options.pack < 1 else ""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/chaos messages",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--messages", type=int, default=10_000, metavar="N", help="each way, in all"
    )
    parser.add_argument("--sessions", type=int, default=8, metavar="N", help="of one agent")
    parser.add_argument("--engine", choices=[*BEDS], default="baileys", help="default %(default)s")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of all choices")
    parser.add_argument(
        "--rate", type=float, default=20.0, metavar="N", help="messages a second each way"
    )
    parser.add_argument(
        "--every", type=float, default=2.0, metavar="SECONDS", help="between two faults"
    )
    parser.add_argument("--pack", type=int, default=1, metavar="N", help="sessions of one Node")
    parser.add_argument("--markdown", action="store_true", help="print the table only")
    options = parser.parse_args(argv)
    reason = why_not("baileys")
    if options.engine == "baileys" and reason:
        print(f"scripts/chaos: {reason}", file=sys.stderr)
        return 1
    reason = why_left_out(options)
    if reason:
        print(f"scripts/chaos: {reason}", file=sys.stderr)
        return 2
    if not options.markdown:
        print(f"On {this_machine()}.\n", flush=True)
    root = Path(tempfile.mkdtemp(prefix="wa-messages-", dir="/var/tmp"))
    bed = BEDS[options.engine](root)
    run = Run(root, bed, options, say=_say)
    begun = time.monotonic()
    try:
        asyncio.run(run.play(options.messages, options.rate, options.every))
    except HostError as error:
        print(f"not held: {error}; see {root}", file=sys.stderr)
        return 1
    print(report(run, options, time.monotonic() - begun))
    if broke := run.broke():
        print("not held:", *broke, f"see {root}", sep="\n", file=sys.stderr)
        return 1
    shutil.rmtree(root)
    return 0


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
