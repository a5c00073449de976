"""Costs of supervising N workers: the agent, supervisord, pm2 and plain systemd in turn.

All supervise the same worker program on the same sessions, one after the other in one run.
"""

import asyncio
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.host.life import Limits
from scripts.benches.fleet import SLOW_LOGIN, measure_many, measure_ours, measure_slow_logins
from scripts.benches.machine import this_machine
from scripts.benches.peers import NotHere, Pm2, Supervisord
from scripts.benches.report import OURS, Goal, Report, Row
from scripts.benches.rounds import QUICK, Figures, Times, at_rest, kills, starts_and_stops
from scripts.benches.site import Site, Supervisor, all_connected, make_sessions, open_site
from scripts.benches.systemd import Systemd

SYSTEMS = (OURS, "supervisord", "pm2", "systemd")
Found = Mapping[str, Figures]


MANY = "many "
"""Before the keys of the figures of the larger fleet, of the agent alone."""


def measure(instances: int, only: Sequence[str] | None, *, many: int, quick: bool) -> Report:
    """`many`: number of sessions that the agent keeps in a second turn; 0 = there is none."""
    times, wanted = (QUICK if quick else Times()), only or SYSTEMS
    if instances < 2 * times.kills + 1:
        raise SystemExit(f"scripts/bench: needs at least {2 * times.kills + 1} instances")
    machine, found, versions, notes = this_machine(), {}, {}, []
    try:
        with open_site(instances) as site:
            for name in (name for name in SYSTEMS if name in wanted):
                print(f"measuring {name} ...", file=sys.stderr)
                try:
                    found[name], versions[name] = asyncio.run(_measure_one(name, site, times))
                except NotHere as why:
                    notes.append(f"Not measured: {why}.")
        if OURS in found:
            with open_site(instances) as site:
                found[OURS] |= asyncio.run(measure_slow_logins(site))
        if many and OURS in found:
            print(f"measuring {OURS} with {many:,} sessions ...", file=sys.stderr)
            with open_site(many) as site:
                figures = asyncio.run(measure_many(site, times))
            found[OURS] |= {MANY + key: runs for key, runs in figures.items()}
    except (KeyboardInterrupt, SystemExit):
        notes.append(f"Interrupted: measured so far are {', '.join(found) or 'none'}.")
    rows = [row for shape in shapes(instances, many) if (row := shape.row(found)) is not None]
    return Report("footprint", machine, versions, rows, [*_notes(times), *notes])


async def _measure_one(name: str, site: Site, times: Times) -> tuple[Figures, str]:
    from importlib.metadata import version

    if name == OURS:
        return await measure_ours(site, times), version("wa-agent")
    make_sessions(site)
    figures = Figures(list)
    if name == "systemd":
        return await _measure_systemd(site, times, figures)
    peer: Supervisor = Supervisord(site) if name == "supervisord" else Pm2(site)
    await starts_and_stops(peer, site, times, figures)
    await _at_rest_and_killed(peer, site, times, figures)
    await peer.end()
    return figures, peer.version


async def _measure_systemd(site: Site, times: Times, figures: Figures) -> tuple[Figures, str]:
    systemd = Systemd(site)
    try:
        systemd.boot()
        await starts_and_stops(systemd, site, times, figures)
        await _at_rest_and_killed(systemd, site, times, figures)
        await systemd.restart_after("0")
        workers = await all_connected(systemd, site.ids)
        chosen = site.ids[times.kills : 2 * times.kills]
        await kills(systemd, workers, chosen, figures, suffix=" at once")
        await systemd.end()
    finally:
        systemd.close()
    return figures, systemd.version


async def _at_rest_and_killed(
    system: Supervisor, site: Site, times: Times, figures: Figures
) -> None:
    workers = await all_connected(system, site.ids)
    await at_rest(system, workers, times, figures)
    await kills(system, workers, site.ids[: times.kills], figures)
    if system.name != "systemd":
        # These two restart at once anyway: the same figure stands beside both of ours.
        for measure_ in ("new pid", "connected again"):
            figures[measure_ + " at once"] = figures[measure_]


@dataclass(frozen=True, slots=True)
class Shape:
    """One row to be: where its figures come from and what they must reach."""

    key: str
    measure: str
    unit: str
    goal: Callable[[Found], Goal] | None = None

    def row(self, found: Found) -> Row | None:
        figures = {name: runs for name, figures in found.items() if (runs := figures.get(self.key))}
        if not figures:
            return None
        goal = self.goal(found) if self.goal is not None and OURS in figures else None
        return Row(self.measure, self.unit, figures, goal)


def fixed(limit: float) -> Callable[[Found], Goal]:
    return lambda _found: Goal("", limit)


def as_good_as_pm2(key: str, factor: float = 1.0) -> Callable[[Found], Goal]:
    def goal(found: Found) -> Goal:
        runs = found["pm2"].get(key) if "pm2" in found else None
        limit = statistics.median(runs) * factor if runs else None
        return Goal("pm2's" if factor == 1 else f"{factor:g} x pm2's", limit)

    return goal


def idle_goal(instances: int) -> float:
    """Seconds a minute: 0.1 for 200, 0.7 for 1,000, in a line between and beyond them."""
    return max(0.1, 0.1 + 0.6 * (instances - 200) / 800)


def boot_goal(instances: int) -> float:
    """Seconds: 15 for 51, 60 for 200, in a line between and beyond them."""
    return max(15.0, 15.0 + 45.0 * (instances - 51) / 149)


def shapes(instances: int, many: int = 0) -> list[Shape]:
    """Each measure of the larger fleet stands below the same one of the other."""
    found, goals = [], _of_many(many) if many else {}
    for shape in _shapes(instances):
        found.append(shape)
        if shape.key in goals:
            measure = f"{many:,} sessions: {shape.measure.removeprefix('… ')}"
            found.append(Shape(MANY + shape.key, measure, shape.unit, goals[shape.key]))
    return found


def _of_many(many: int) -> dict[str, Callable[[Found], Goal] | None]:
    """Return the goals of 1,000 sessions, as they cost once; of more of them in proportion."""
    share = many / 1000
    return {
        "agent uss": fixed(76.5 * share),
        "idle": fixed(idle_goal(many)),
        **dict.fromkeys(("create", "stop", "scrape client")),
        "adoption": fixed(2.1 * share),
        "adoption lost": fixed(0.0),
    }


def _shapes(instances: int) -> list[Shape]:
    delay = Limits().restart_delay * 1000
    idle = idle_goal(instances)
    return [
        Shape("uss", "own memory (USS), all own processes", "MiB", as_good_as_pm2("uss")),
        Shape("agent uss", "… the agent's process alone", "MiB", fixed(40.0)),
        Shape("worker pss", "one worker, PSS", "MiB", fixed(11.0)),
        Shape("everything", f"all {instances} and who keeps them, PSS", "MiB"),
        Shape("idle", "idle CPU of its own", "s/min", fixed(idle)),
        Shape("idle workers", "idle CPU of all workers together", "s/min"),
        Shape("new pid", f"kill -9 worker → new PID, delay {delay:g} ms", "ms"),
        Shape("new pid at once", "kill -9 worker → new PID, delay 0", "ms"),
        Shape(
            "connected again",
            f"kill -9 worker → CONNECTED, delay {delay:g} ms",
            "ms",
            fixed(500.0),
        ),
        Shape("connected again at once", "kill -9 worker → CONNECTED, delay 0", "ms"),
        Shape("create", "create all over the API → all CONNECTED", "s"),
        Shape("start", f"start {instances} → all CONNECTED", "s", as_good_as_pm2("start", 0.8)),
        Shape(
            "start as installed",
            f"start {instances} with the settings as installed → all CONNECTED",
            "s",
            fixed(boot_goal(instances)),
        ),
        Shape(
            "start as installed, slow",
            f"… where each login takes {SLOW_LOGIN:g} s",
            "s",
            fixed(boot_goal(instances)),
        ),
        Shape("stop", "stop all in order", "s"),
        Shape("adoption", "kill -9 agent → all adopted and CONNECTED", "s", fixed(2.0)),
        Shape("adoption lost", "… sessions dropped or workers replaced by it", "", fixed(0.0)),
        Shape("series", "one scrape: series", ""),
        Shape("scrape client", "one scrape: over HTTP, as the client sees it", "ms"),
    ]


def _notes(times: Times) -> list[str]:
    return [
        "Worker: `python -m agent.worker`, engine sandbox, no messages; the same for all systems.",
        "supervisord and pm2 watch for ended processes only; the agent and systemd also take a "
        "watchdog ping of each worker every 8 s, at rest the agent probes each session every 90 s.",
        f"Idle over {times.idle:g} s after {times.settle:g} s of rest, one window; then memory.",
        "Starts are measured from the supervisor's own start (systemd: from `systemctl start`); "
        "CONNECTED of ours is what the agent publishes, of theirs what the worker says. The agent "
        "starts all at once here, as they do; the row that says so has `[start]` as installed.",
        "systemd: PID 1 of a container, Type=notify, WatchdogSec as ours, RestartSec=100ms and 0; "
        "its journal's process is not counted.",
    ]
