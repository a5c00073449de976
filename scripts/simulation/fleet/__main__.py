"""Play seeded schedules of faults to a fleet, in virtual time, on the core's own arithmetic.

  scripts/simulate fleet --schedules 100000 --jobs 2

Each schedule has two to five machines, one database and up to seven faults that begin within
45 seconds: agents killed and stopped, workers crashed, machines without power, ways between
machines and to the database cut, one way or both, a database away, its clock set an hour off,
records lost, messages held for up to 90 s, a database that refuses its machines, a state disk that
is full for a while or for ever, a machine's disk that is as it was a minute before. In one of five
one fault is alone: a standby is promoted while the old primary lives, a machine is copied and both
run, or the whole database is as it was at any moment before. Sessions write to their files and
are paired; machines store copies. In no schedule may two machines run a session at one instant, a
copy replace a newer acknowledged one, or a session log in without its last acknowledged pairing,
and after the faults every session must run again. A schedule that fails is named: --seed plays it
again.
"""

import argparse
import sys
import time
from multiprocessing import get_context

from scripts.simulation.fleet.schedule import Outcome, play


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/simulate fleet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--schedules", type=int, default=2000)
    parser.add_argument("--seed", default="1", help="of all schedules, or one as it was printed")
    parser.add_argument("--jobs", type=int, default=1, help="processes to use")
    given = parser.parse_args(arguments)
    if given.schedules < 1 or given.jobs < 1:
        parser.error("--schedules and --jobs must be at least 1")
    if "/" in given.seed:
        return _report([play(given.seed)], 0.0)
    begun = time.monotonic()
    seeds = [f"{given.seed}/{number}" for number in range(given.schedules)]
    with get_context("fork").Pool(given.jobs) as pool:
        outcomes = list(pool.imap_unordered(play, seeds, chunksize=100))
    return _report(outcomes, time.monotonic() - begun)


def _report(outcomes: list[Outcome], seconds: float) -> int:
    twice = sorted((it for it in outcomes if it.violations), key=lambda it: it.seed)
    down = sorted((it for it in outcomes if it.starving or it.halted), key=lambda it: it.seed)
    print(
        f"{len(outcomes):,} schedules, {sum(it.takeovers for it in outcomes):,} takeovers,"
        f" {sum(it.losses for it in outcomes):,} losses of records accepted, {seconds:.0f} s of"
        f" run time\n{len(twice)} in which a session ran twice or with older files,"
        f" {len(down)} in which a session stayed down or the fleet halted"
    )
    for outcome in twice[:10]:
        print(f"--seed {outcome.seed}: {outcome.violations[0]}")
    for outcome in down[:10]:
        print(f"--seed {outcome.seed}: {', '.join(outcome.starving) or 'owners'} stayed down")
    return 1 if twice or down else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
