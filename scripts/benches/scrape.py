"""One scrape of 30,000 series: ours beside prometheus_client's gauges and its custom collector."""

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from agent.core.model import (
    Claim,
    ClaimFact,
    ConnectionStatus,
    Desired,
    Health,
    HealthVerdict,
    Instance,
    InstanceId,
    SessionRecord,
    UnitState,
    UnitStatus,
)
from agent.core.view import AgentStatus, InstanceView
from agent.metrics.exporter import Exporter
from scripts.benches.machine import this_machine
from scripts.benches.report import OURS, Goal, Report, Row

SERIES = 30_000
GAUGES, COLLECTOR = "gauges", "collector"


class Fleet:
    """Views as the supervisor would show them: one object per session until it changes."""

    def __init__(self, sessions: int) -> None:
        self.views = {InstanceId(f"i{n:04}"): _view(f"i{n:04}") for n in range(sessions)}
        self.exporter = Exporter(lambda: self.views, _status, Path("/"))

    def series(self) -> int:
        text = self.exporter.render()[0]
        return sum(not line.startswith(b"#") for line in text.splitlines())

    def change(self, share: float) -> None:
        """What changes on a live session from one scrape to the next."""
        step = max(1, round(1 / share))
        for id in list(self.views)[::step]:
            view = self.views[id]
            self.views[id] = replace(
                view, probes=view.probes + 1, probe_seconds=view.probe_seconds + 0.001
            )


def measure(*, quick: bool = False) -> Report:
    rounds = 5 if quick else 15
    per_session = Fleet(101).series() - Fleet(1).series()
    fleet = Fleet(-(-SERIES * 100 // per_session))
    series, sessions = fleet.series(), len(fleet.views)
    families = series // sessions
    theirs = {
        GAUGES: _milliseconds(partial(generate_latest, _gauges(sessions, families)), rounds),
        COLLECTOR: _milliseconds(partial(generate_latest, _custom(sessions, families)), rounds),
    }
    same = _milliseconds(fleet.exporter.render, rounds)
    rows = [
        _row(f"{series:,} series, nothing changed", same, theirs),
        _row("1 % of the sessions changed", _changing(fleet, 0.01, rounds), theirs, goals=True),
        _row("10 % changed", _changing(fleet, 0.1, rounds), theirs),
        _row("every session changed", _changing(fleet, 1.0, rounds), theirs),
        _row("first scrape", _milliseconds(lambda: _first(sessions), min(rounds, 5)), {}),
    ]
    thousand = Fleet(1000)
    title = f"1,000 sessions ({thousand.series():,} series), 1 % changed"
    rows.append(_row(title, _changing(thousand, 0.01, rounds), {}))
    names = {OURS: version("wa-agent"), **dict.fromkeys((GAUGES, COLLECTOR), _their_version())}
    notes = [
        f"{sessions} sessions of {families} series each; theirs have as many with one label.",
        "Ours counts the server's own work; the way over HTTP is in `footprint`.",
    ]
    return Report("scrape", this_machine(), names, rows, notes)


def _row(
    measure: str, ours: list[float], theirs: dict[str, list[float]], *, goals: bool = False
) -> Row:
    row = Row(measure, "ms", {OURS: ours, **theirs})
    fastest = min((row.median(name) or 0.0 for name in theirs), default=0.0)
    goal = Goal("2 ms and 1/50 of prometheus_client's", min(2.0, fastest / 50)) if goals else None
    return replace(row, goal=goal)


def _changing(fleet: Fleet, share: float, rounds: int) -> list[float]:
    return _milliseconds(fleet.exporter.render, rounds, before=lambda: fleet.change(share))


def _first(sessions: int) -> None:
    """The views are made outside of what is asked: only their share of it is small."""
    Fleet(sessions).exporter.render()


def _milliseconds(
    work: Callable[[], object], rounds: int, before: Callable[[], None] | None = None
) -> list[float]:
    taken = []
    work()
    gc.collect()
    for _ in range(rounds):
        if before is not None:
            before()
        begun = time.perf_counter()
        work()
        taken.append((time.perf_counter() - begun) * 1000)
    return taken


def _gauges(sessions: int, families: int) -> CollectorRegistry:
    registry = CollectorRegistry()
    for family in range(families):
        gauge = Gauge(f"family_{family}", "What it means.", ["session"], registry=registry)
        for place in range(sessions):
            gauge.labels(f"i{place:04}").set(place)
    return registry


def _custom(sessions: int, families: int) -> CollectorRegistry:
    class Theirs:
        def collect(self) -> Iterator[Metric]:
            for family in range(families):
                found = GaugeMetricFamily(f"family_{family}", "What it means.", labels=["session"])
                for session in range(sessions):
                    found.add_metric([f"i{session:04}"], session)
                yield found

    registry = CollectorRegistry()
    registry.register(Theirs())
    return registry


def _their_version() -> str:
    return f"(prometheus_client {version('prometheus-client')})"


def _status() -> AgentStatus:
    return AgentStatus("0", "process", time.time(), ready=True, last_pass_age=0.5, passes_total=3)


def _view(id: str) -> InstanceView:
    now, connected = time.time(), ConnectionStatus.CONNECTED
    return InstanceView(
        instance=Instance(InstanceId(id), "sandbox", True, {}, now - 100),
        desired=Desired(True),
        record=SessionRecord(connected, now - 60, paired=True),
        unit=UnitStatus(UnitState.ACTIVE, "run1", 1234),
        status=connected,
        status_since_wall=now - 60,
        reason="",
        sentence="connected",
        verdict=HealthVerdict(Health.HEALTHY, connected, "", "connected"),
        linked=True,
        claim=ClaimFact(Claim(connected, proof_age=1.0), 10.0, 5.0),
        proof_age=1.0,
        connected_since_wall=now - 60,
        started_wall=now - 90,
        memory_bytes=10_000_000,
        cpu_seconds=1.5,
        processes=1,
        messages={"in": 5, "out": 3, "ack": 2},
        probes=10,
        probe_seconds=0.01,
        seen_wall=now,
    )
