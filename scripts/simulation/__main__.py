"""Simulate a day of faults for a fleet: the agent's core, a fixed retry, and no supervision.

  scripts/simulate --instances 2000
  scripts/simulate --instances 100000 --svg simulation.svg
  scripts/simulate --outages            how long sessions need after one outage
  scripts/simulate --stuck              how long a session that hangs on a backend needs
  scripts/simulate --budgets            the agent's day without its limits on starts, one by one

Time is virtual, and the random numbers have a seed: the same arguments give the same table.
"""

import argparse
import gc
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from pathlib import Path

from scripts.simulation import faults, picture, report
from scripts.simulation.agent import Agent
from scripts.simulation.budgets import BUDGETS, budget_rows
from scripts.simulation.outages import every_outage, outage_rows
from scripts.simulation.plain import FixedRetry, NoSupervision
from scripts.simulation.session import Supervising
from scripts.simulation.stuck import every_stuck, stuck_rows
from scripts.simulation.tally import Tally
from scripts.simulation.world import Machine

Ways = Mapping[str, tuple[type[Machine], Callable[[Machine], Supervising]]]
WAYS: Ways = {
    "wa-agent": (Machine, Agent),
    "fixed 2 s retry": (Machine, FixedRetry),
    "no supervision": (Machine, NoSupervision),
}


def play(job: tuple[str, str, int]) -> tuple[str, Tally]:
    """One machine's day under one way of supervising."""
    way, seed, size = job
    tally = Tally()
    of_machine, of_supervising = {**WAYS, **BUDGETS}[way]
    machine = of_machine(seed, size, tally)
    machine.supervising = of_supervising(machine)
    machine.play()
    return way, tally


def play_all(ways: Ways, instances: int, seed: int, processes: int) -> dict[str, Tally]:
    """Every machine's day under each of these ways."""
    sizes = [faults.MACHINE] * (instances // faults.MACHINE)
    if rest := instances % faults.MACHINE:
        sizes.append(rest)
    jobs = [(way, f"{seed}/{number}", size) for way in ways for number, size in enumerate(sizes)]
    tallies = {way: Tally() for way in ways}
    gc.disable()
    with get_context("fork").Pool(processes, maxtasksperchild=20) as pool:
        for done, (way, tally) in enumerate(pool.imap(play, jobs), start=1):
            tallies[way].add(tally)
            if sys.stderr.isatty():
                print(f"\r{done} of {len(jobs)} machine days", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return tallies


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/simulate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--instances", type=int, default=2000, help="sessions")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers")
    parser.add_argument("--jobs", type=int, default=1, help="processes to use")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--outages", action="store_true", help="single outages instead of a day")
    parser.add_argument("--stuck", action="store_true", help="sessions that hang on a backend")
    parser.add_argument("--budgets", action="store_true", help="the day without limits on starts")
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
    if given.budgets:
        head, rows = budget_rows(play_all(BUDGETS, given.instances, given.seed, given.jobs))
        print(report.grid(head, rows, markdown=given.markdown))
        return 0
    begun = time.monotonic()
    tallies = play_all(WAYS, given.instances, given.seed, given.jobs)
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
