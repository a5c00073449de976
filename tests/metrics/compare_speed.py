"""Prints what a scrape costs beside prometheus_client's own.

Run: python -m tests.metrics.compare_speed
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from agent.core.model import InstanceId
from agent.metrics.exporter import Exporter
from tests.fakes.supervisor import FakeSupervisor, make_view

ROUNDS = 7


def median_ms(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        taken.append((time.perf_counter() - begun) * 1000)
    return statistics.median(taken)


class TheirCollector:
    def __init__(self, sessions: int, families: int) -> None:
        self._sessions, self._families = sessions, families

    def collect(self) -> Iterator[Metric]:
        for family in range(self._families):
            found = GaugeMetricFamily(f"family_{family}", "help", labels=["session"])
            for session in range(self._sessions):
                found.add_metric([f"i{session}"], session)
            yield found


def main() -> None:
    print("sessions  series   first  nothing new  1 % new  all new   client: gauges  collector")
    for sessions in (200, 1000):
        supervisor = FakeSupervisor()
        for place in range(sessions):
            supervisor.known[InstanceId(f"i{place}")] = make_view(f"i{place}")
        exporter = Exporter(supervisor.views, supervisor.status, Path("/"))
        begun = time.perf_counter()
        text = exporter.render()[0]
        first = (time.perf_counter() - begun) * 1000
        series = sum(not line.startswith(b"#") for line in text.splitlines())

        def change(share: int, ours: Exporter = exporter, of: FakeSupervisor = supervisor) -> None:
            for id in list(of.known)[::share]:
                of.known[id] = replace(of.known[id], memory_bytes=time.perf_counter_ns())
            ours.render()

        same = median_ms(exporter.render)
        few, every = median_ms(lambda: change(100)), median_ms(lambda: change(1))
        families = series // sessions
        registry = CollectorRegistry()
        for family in range(families):
            gauge = Gauge(f"family_{family}", "help", ["session"], registry=registry)
            for place in range(sessions):
                gauge.labels(f"i{place}").set(place)
        theirs = median_ms(partial(generate_latest, registry))
        custom = CollectorRegistry()
        custom.register(TheirCollector(sessions, families))
        collected = median_ms(partial(generate_latest, custom))
        print(
            f"{sessions:8}  {series:6}  {first:6.1f}  {same:11.2f}  {few:7.2f}  {every:7.1f}"
            f"   {theirs:14.1f}  {collected:9.1f}   ms"
        )


if __name__ == "__main__":
    main()
