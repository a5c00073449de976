"""What an agent learned and the next should know: statistics, usual message rates, the points of
the charts. Written each hour and at the stop; a kill loses an hour of counting."""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from agent.core.figures import AllTrends, RepairStatistics, StepTally, Trend, read_trend
from agent.core.findings.silence import HOURS, Inbound
from agent.core.model import InstanceId
from agent.errors import StoreError
from agent.store.database import Store
from agent.supervise.facts import Facts
from agent.supervise.passes.repair import Ladder
from agent.supervise.registry import Registry

log = logging.getLogger(__name__)

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
