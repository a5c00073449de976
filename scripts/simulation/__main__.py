"""Play a day of faults to a fleet: the agent's own core against a fixed retry and nobody.

  scripts/simulate --instances 2000
  scripts/simulate --instances 100000 --svg simulation.svg
  scripts/simulate --outages            what one outage costs, beyond its own length
  scripts/simulate --stuck              how long a session that hangs on a backend needs

Virtual time, seeded: the same arguments give the same table.
"""

import argparse
import gc
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

from scripts.simulation import faults, picture, report
from scripts.simulation.agent import Agent
from scripts.simulation.outages import every_outage, outage_rows
from scripts.simulation.plain import FixedRetry, Nobody
from scripts.simulation.session import Supervising
from scripts.simulation.stuck import every_stuck, stuck_rows
from scripts.simulation.tally import Tally
from scripts.simulation.world import Machine

WAYS: dict[str, Callable[[Machine], Supervising]] = {
    "wa-agent": Agent,
    "fixed 2 s retry": FixedRetry,
    "no supervision": Nobody,
}


def play(job: tuple[str, str, int]) -> tuple[str, Tally]:
    """One machine's day under one way of supervising."""
    way, seed, size = job
    tally = Tally()
    machine = Machine(seed, size, tally)
    machine.supervising = WAYS[way](machine)
    machine.play()
    return way, tally


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/simulate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--instances", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="processes to use")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--outages", action="store_true", help="single outages instead of a day")
    parser.add_argument("--stuck", action="store_true", help="sessions that hang on a backend")
    parser.add_argument("--svg", type=Path, help="write the curves to this file")
    given = parser.parse_args()
    if given.instances < 1 or given.jobs < 1:
        parser.error("--instances and --jobs must be at least 1")
    if given.outages:
        head, rows = outage_rows(list(every_outage()))
        print(report.grid(head, rows, markdown=given.markdown))
        return 0
    if given.stuck:
        head, rows = stuck_rows(list(every_stuck()))
        print(report.grid(head, rows, markdown=given.markdown))
        return 0
    sizes = [faults.MACHINE] * (given.instances // faults.MACHINE)
    if rest := given.instances % faults.MACHINE:
        sizes.append(rest)
    jobs = [
        (way, f"{given.seed}/{number}", size) for way in WAYS for number, size in enumerate(sizes)
    ]
    tallies = {way: Tally() for way in WAYS}
    begun = time.monotonic()
    gc.disable()
    with get_context("fork").Pool(given.jobs, maxtasksperchild=20) as pool:
        for done, (way, tally) in enumerate(pool.imap(play, jobs), start=1):
            tallies[way].add(tally)
            if sys.stderr.isatty():
                print(f"\r{done} of {len(jobs)} machine days", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    seconds = time.monotonic() - begun
    print(
        f"{given.instances:,} instances, {faults.MACHINE} on a machine, one day, seed {given.seed};"
        f" {tallies['wa-agent'].passes:,} passes of the agent, {seconds:.0f} s of run time\n"
    )
    print(report.markdown(tallies) if given.markdown else report.table(tallies))
    if given.svg:
        given.svg.write_text(picture.plot(tallies))
        print(f"\nwrote {given.svg}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
