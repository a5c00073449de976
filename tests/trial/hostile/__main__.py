"""Play hostile cases on one boundary until one breaks something: see scripts/fuzz."""

import argparse
import asyncio
import json
import logging
import re
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from random import SystemRandom

from tests.trial.hostile.frame import Rooms, hunt, load, names

_UNITS = {"s": 1, "m": 60, "h": 3600}


def _seconds(text: str) -> float:
    parts = re.fullmatch(r"(\d+)([smh])", text)
    if parts is None:
        raise argparse.ArgumentTypeError("a time as 90s, 20m or 1h")
    return int(parts[1]) * _UNITS[parts[2]]


def _cases(text: str) -> range:
    first, _, last = text.partition("-")
    if not first.isdigit() or not (last or first).isdigit():
        raise argparse.ArgumentTypeError("a case as 7, or cases as 3-7")
    return range(int(first), int(last or first) + 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("boundary", choices=names())
    parser.add_argument("--for", dest="seconds", type=_seconds, default=600.0, metavar="TIME")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    parser.add_argument("--case", type=_cases, help="this case of the seed, or FIRST-LAST")
    parser.add_argument("--steps", type=Path, help="a file with a case's steps as JSON")
    return parser.parse_args()


async def _run(options: argparse.Namespace, folder: Path) -> int:
    boundary = load(options.boundary)
    if options.steps is not None:
        broke = await Rooms(boundary, folder).try_alone(json.loads(options.steps.read_text()))
        print(broke or "nothing broke")
        return 1 if broke else 0
    print(f"{options.boundary}, seed {options.seed}", flush=True)
    finding, played = await hunt(
        options.boundary,
        boundary,
        folder,
        seed=options.seed,
        numbers=options.case or count(),
        until=float("inf") if options.case else time.monotonic() + options.seconds,
    )
    print(f"{played} cases: {finding or 'nothing broke'}")
    return 1 if finding else 0


def main() -> int:
    logging.basicConfig(level=logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        return asyncio.run(_run(_options(), Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
