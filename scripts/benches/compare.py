"""Two commits' agents in turns on one machine: what the newer one costs beside the older.

This checkout measures both, so both are asked the same; each runs in the environment of its own
tree. The order of a round is the reverse of the round before, so that what grows with time (a
warmer disk, a neighbour) meets both.
"""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.benches.fleet import measure_one_round
from scripts.benches.machine import CACHE, TOP, git, this_commit, this_machine
from scripts.benches.report import OURS, Goal, Report, Row
from scripts.benches.rounds import QUICK, Figures, Times
from scripts.benches.site import open_site

TIMES = Times(starts=1, kills=3, adoptions=1, scrapes=5, idle=30.0, settle=10.0)
MEMORY, PROCESSOR, SECONDS = 1.05, 1.25, 1.25
"""Ratio of ours to the other's above which a row is a step back: memory varies by a few hundredths
from run to run, times by more."""

MEASURES: Mapping[str, tuple[str, str, float]] = {
    "agent uss": ("the agent's process, USS", "MiB", MEMORY),
    "worker pss": ("one worker, PSS", "MiB", MEMORY),
    "everything": ("all sessions and who keeps them, PSS", "MiB", MEMORY),
    "idle": ("idle CPU of the agent", "s/min", PROCESSOR),
    "idle workers": ("idle CPU of all workers together", "s/min", PROCESSOR),
    "create": ("create all over the API → all CONNECTED", "s", SECONDS),
    "start": ("start → all CONNECTED", "s", SECONDS),
    "start as installed": ("start with [start] as installed → all CONNECTED", "s", SECONDS),
    "stop": ("stop all in order", "s", SECONDS),
    "connected again": ("kill -9 worker → CONNECTED", "ms", SECONDS),
    "adoption": ("kill -9 agent → all adopted and CONNECTED", "s", SECONDS),
    "scrape client": ("one scrape, as the client sees it: no goal", "ms", float("inf")),
    "kept alone": ("a record of messages.db, kept alone", "µs", SECONDS),
    "kept by 1,000": ("a record of messages.db, 1,000 with one write", "µs", SECONDS),
}


@dataclass(frozen=True, slots=True)
class Program:
    """One of the two: `name` is its column."""

    name: str
    tree: Path
    python: Path


def measure(commit: str, instances: int, *, rounds: int, quick: bool) -> Report:
    times = replace(QUICK, settle=3.0) if quick else TIMES
    if instances <= times.kills:
        raise SystemExit(f"scripts/bench: needs at least {times.kills + 1} instances")
    other = lay_out(commit)
    programs = (Program(OURS, TOP, Path(sys.executable)), other)
    found = {one.name: Figures(list) for one in programs}
    machine, ours, done = this_machine(), this_commit(), 0
    notes = [
        f"{instances} sandbox sessions; one round = created, started, {times.idle:g} s at rest, "
        f"{times.kills} workers and the agent killed, started with the settings as installed.",
        "A killed worker is restarted after the default delay; each is spawned, as on systemd.",
        "A row is missed where ours is larger than the other commit's by more than its factor.",
    ]
    try:
        for turn in range(rounds):
            for one in programs[:: -1 if turn % 2 else 1]:
                print(f"round {turn + 1} of {rounds}: {one.name} ...", file=sys.stderr)
                for key, runs in _round(one, instances, times).items():
                    found[one.name][key] += runs
            done += 1
    except (KeyboardInterrupt, SystemExit):
        notes.append(f"Interrupted: {done} of {rounds} rounds were whole.")
    rows = [row for key in MEASURES if (row := _row(key, other.name, found)) is not None]
    return Report("compare", machine, {OURS: ours, other.name: other.name}, rows, notes)


def lay_out(commit: str) -> Program:
    """The commit's tree with an environment of its own, both kept for the next comparison."""
    full = git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    if not full:
        raise SystemExit(f"scripts/bench: cannot find the commit {commit} in this repository")
    name = full[:8]
    tree = CACHE / "trees" / name
    if not (tree / "agent").is_dir():
        tree.mkdir(parents=True, exist_ok=True)
        archive = subprocess.Popen(["git", "-C", str(TOP), "archive", full], stdout=subprocess.PIPE)
        subprocess.run(["tar", "-x", "-C", str(tree)], stdin=archive.stdout, check=True)
        if archive.wait():
            raise SystemExit(f"scripts/bench: cannot read the tree of {commit}")
    print(f"making the environment of {name} ...", file=sys.stderr)
    made = subprocess.run(
        [tree / "scripts" / "venv", "run"], stdout=subprocess.PIPE, text=True, check=False
    )
    if made.returncode:
        raise SystemExit(f"scripts/bench: cannot make the environment of {commit} in {tree}")
    return Program(name, tree, Path(made.stdout.split()[-1]) / "bin" / "python")


def _round(program: Program, instances: int, times: Times) -> Figures:
    words, path = [program.python, TOP / "scripts/benches/keeping.py"], {"PYTHONPATH": program.tree}
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        kept = subprocess.check_output([*words, folder], env=path, text=True).split()
    with open_site(instances) as site:
        one = measure_one_round(site, times, tree=program.tree, python=program.python)
        alone, many = ([float(it)] for it in kept[1:])
        return asyncio.run(one) | {"kept alone": alone, "kept by 1,000": many}


def _row(key: str, other: str, found: Mapping[str, Mapping[str, Sequence[float]]]) -> Row | None:
    measure_, unit, factor = MEASURES[key]
    figures = {name: runs for name, of in found.items() if (runs := of.get(key))}
    if not figures:
        return None
    row = Row(measure_, unit, figures)
    theirs = row.median(other)
    limit = None if theirs is None else theirs * factor
    return replace(row, goal=Goal(f"{factor:g} x {other}'s", limit))
