"""Upkeep on a clock: the trash is emptied, the database is checked and copied."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from agent.clock import boot_now
from agent.core.figures import AllTrends, RepairStatistics, StepTally, Trend, read_trend
from agent.core.findings.crypto import CryptoPolicy
from agent.core.findings.silence import HOURS, Inbound
from agent.core.model import Category, InstanceId
from agent.core.session import Session
from agent.errors import StoreError, WaError
from agent.log import bound
from agent.logfiles import PERFORMANCE
from agent.store.database import Store
from agent.supervise.facts import Facts
from agent.supervise.passes.findings import judge_keys
from agent.supervise.passes.repair import Ladder
from agent.supervise.registry import Registry
from agent.vault.trash import sweep

log = logging.getLogger(__name__)


SWEEP_EVERY = 3600.0
FIRST_COPY = 300.0
CHECK_EVERY = 86400.0


async def sweep_trash(session_root: Path, days: Callable[[], float]) -> None:
    swept = boot_now()
    while True:
        await asyncio.sleep(SWEEP_EVERY)
        now, kept = boot_now(), days()
        try:
            gone = await asyncio.to_thread(sweep, session_root, kept * 86400, now - swept)
        except WaError as error:
            log.warning("%s", error)
            continue
        swept = now
        for name in gone:
            log.info("removed %s from the trash, where it was for %g days", name, kept)


async def check_database(store: Store, copy: Path) -> None:
    """The full check, which each start makes too, and a verified copy, once a day."""
    await asyncio.sleep(FIRST_COPY)
    while True:
        problem = await store.check()
        if problem == "ok":
            try:
                await store.copy_to(copy)
            except WaError as error:
                log.error("%s", error)
        else:
            log.error(
                "the database is damaged: %s; the agent rebuilds it at its next start", problem
            )
        await asyncio.sleep(CHECK_EVERY)


# The round: a regular check for sessions whose keys still fail, and a log line with its result.
# Crossing the threshold wakes a session at once; the round finds sessions that were missed.


@dataclass(slots=True, eq=False, repr=False)
class KeyCheck:
    registry: Registry
    policy: Callable[[], CryptoPolicy]
    statistics: Callable[[], RepairStatistics]
    wake: Callable[[InstanceId], None]
    checked: Callable[[str, float], None]
    _renewed: int = 0
    """Keys that had healed by themselves at the last check."""

    async def run(self) -> None:
        before, self._renewed = self.statistics(), self._all_renewed()
        while True:
            await asyncio.sleep(self.policy().round)
            begun = boot_now()
            before = self._go_round(before)
            self.checked("keys", boot_now() - begun)

    def _go_round(self, before: RepairStatistics) -> RepairStatistics:
        all_facts, now = list(self.registry.facts.values()), boot_now()
        failing = [facts for facts in all_facts if self._fails(facts, now)]
        for facts in failing:
            self.wake(facts.id)
        statistics = self.statistics()
        renewed, self._renewed = self._renewed, self._all_renewed()
        healed = statistics.repaired + statistics.cleaned - before.repaired - before.cleaned
        bound(Category.CRYPTO).info(
            "key check: %d sessions, the keys of %d fail; since the last check %d repaired,"
            " %d repairs failed, %d contacts renewed their keys",
            len(all_facts),
            len(failing),
            healed,
            statistics.failed - before.failed,
            max(self._renewed - renewed, 0),
        )
        return statistics

    def _all_renewed(self) -> int:
        return sum(facts.crypto.renewed for facts in self.registry.facts.values())

    def _fails(self, facts: Facts, now: float) -> bool:
        return judge_keys(facts, self.policy(), now).signal is not None


# A line per instance and interval in the performance log, where one is kept.


# A table, kept apart from the agent's own log lines.
logging.getLogger(PERFORMANCE).propagate = False


async def log_performance(
    views: Callable[[], Mapping[InstanceId, Session]], interval: Callable[[], float]
) -> None:
    while True:
        await asyncio.sleep(interval())
        if not logging.getLogger(PERFORMANCE).handlers:
            continue
        for number, (id, view) in enumerate(sorted(views().items())):
            bound(Category.SYSTEM, id, PERFORMANCE).info("%s", performance_line(view, time.time()))
            if number % 100 == 99:
                await asyncio.sleep(0)  # thousands of lines must not block the loop


def performance_line(view: Session, now_wall: float) -> str:
    since = view.connected_since_wall
    uptime = 0 if since is None else max(0, round(now_wall - since))
    mean = "-" if view.response_seconds is None else f"{view.response_seconds:.4f}"
    figures = {
        "status": view.status.value,
        "verdict": view.verdict.health.value,
        "uptime_seconds": uptime,
        "messages": view.counters.messages["in"] + view.counters.messages["out"],
        "messages_per_minute": sum(view.messages_per_minute.values()),
        "response_seconds": mean,
        "errors": sum(view.counters.errors.values()),
        "reconnects": sum(view.counters.by_word["reconnects"].values()),
        "memory_bytes": "-" if view.run.memory_bytes is None else view.run.memory_bytes,
        "cpu_seconds": "-" if view.run.cpu_seconds is None else f"{view.run.cpu_seconds:.2f}",
    }
    return " ".join(f"{name}={value}" for name, value in figures.items())


# What an agent learned and the next should know: statistics, usual message rates, the points of the
# charts. Written each hour and at the stop; a kill loses an hour of counting.


EVERY = 3600.0
_STATISTICS = "repair_statistics"
_INBOUND = "inbound:"
_TREND = "trend:"


class Learned:
    def __init__(self, store: Store, ladder: Ladder, registry: Registry, trends: AllTrends) -> None:
        self._store = store
        self._ladder = ladder
        self._registry = registry
        self._trends = trends
        self._written: dict[str, int] = {}
        """Hashes of the rows, by name."""

    async def take_over(self) -> None:
        """What cannot be read is dropped: only usual rates and charts depend on it."""
        text = await self._store.get_fact(_STATISTICS)
        known = None if text is None else read_statistics(text)
        self._ladder.statistics = known or RepairStatistics(since_wall=time.time())
        inbounds, trends = await self._rows(_INBOUND), await self._rows(_TREND)
        for facts in self._every():
            if (inbound := read_inbound(inbounds.get(facts.id, ""))) is not None:
                facts.inbound = inbound
            for word, (noted_wall, step, trend) in read_trends(trends.get(facts.id, "")).items():
                known_trends = self._trends.get(word)
                if known_trends is not None and known_trends.step == step:  # a setting may change
                    known_trends.bring_back(facts.id, trend, noted_wall)

    async def _rows(self, prefix: str) -> dict[str, str]:
        """By instance."""
        rows = await self._store.get_facts(prefix)
        self._written |= {name: hash(text) for name, text in rows.items()}
        return {name.removeprefix(prefix): text for name, text in rows.items()}

    async def run(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            await self.keep()

    async def keep(self) -> None:
        """Never raises: its loss is not worth a failed stop."""
        try:
            await self._write()
        except StoreError as error:
            log.warning("cannot write the learned statistics: %s", error)

    async def _write(self) -> None:
        """One commit of the changes; rows of deleted instances go."""
        rows = {_STATISTICS: json.dumps(asdict(self._ladder.statistics))}
        for facts in self._every():
            if facts.inbound != Inbound():
                rows[_INBOUND + facts.id] = json.dumps(asdict(facts.inbound))
            if lines := self._lines(facts.id):
                rows[_TREND + facts.id] = json.dumps(lines, separators=(",", ":"))
        hashes = {name: hash(text) for name, text in rows.items()}
        changed = {name: rows[name] for name in rows if self._written.get(name) != hashes[name]}
        gone = [name for name in self._written if name not in rows]
        if changed:
            await self._store.put_facts(changed)
        if gone:
            await self._store.forget_facts(gone)
        self._written = hashes

    def _lines(self, id: InstanceId) -> dict[str, Any]:
        """By reach: when its newest points were taken, how far apart they are, and the points."""
        return {
            word: [trends.noted_wall, trends.step, *trend.packed()]
            for word, trends in self._trends.items()
            if (trend := trends.of(id)) is not None
        }

    def _every(self) -> list[Facts]:
        return list(self._registry.facts.values())


def read_statistics(text: str) -> RepairStatistics | None:
    try:
        raw = json.loads(text)
        steps = {name: StepTally(**_known(StepTally, step)) for name, step in raw["steps"].items()}
        return RepairStatistics(**{**_known(RepairStatistics, raw), "steps": steps})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        log.warning("cannot read the kept statistics, they begin at 0: %s", error)
        return None


def read_inbound(text: str) -> Inbound | None:
    try:
        raw = _known(Inbound, json.loads(text))
        rates = tuple(float(rate) for rate in raw.pop("rates"))
        inbound = Inbound(rates, **{name: float(value) for name, value in raw.items()})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return inbound if len(inbound.rates) == HOURS else None


def read_trends(text: str) -> dict[str, tuple[float, float, Trend]]:
    try:
        return {
            word: (float(noted_wall), float(step), read_trend(line))
            for word, (noted_wall, step, *line) in json.loads(text).items()
        }
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        return {}


def _known(kind: Any, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Without the keys of a newer version; only numbers and containers are taken."""
    names = {field.name for field in fields(kind)}
    for name, value in raw.items():
        if name in names and not isinstance(value, int | float | list | dict):
            raise TypeError(f"{name} is {type(value).__name__}")
    return {name: value for name, value in raw.items() if name in names}
