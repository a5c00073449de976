"""What an agent learned and the next should know: statistics, usual message rates. Written each
hour and at the stop; a kill loses an hour of counting."""

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from agent.core.figures.repair_statistics import RepairStatistics, StepTally
from agent.core.findings.silence import HOURS, Inbound
from agent.errors import StoreError
from agent.store.database import Store
from agent.supervise.facts import Facts
from agent.supervise.passes.repair import Ladder
from agent.supervise.registry import Registry

log = logging.getLogger(__name__)

EVERY = 3600.0
_STATISTICS = "repair_statistics"
_INBOUND = "inbound:"


class Handover:
    def __init__(self, store: Store, ladder: Ladder, registry: Registry) -> None:
        self._store = store
        self._ladder = ladder
        self._registry = registry
        self._written: dict[str, str] = {}

    async def take_over(self) -> None:
        """What cannot be read is dropped: only usual rates depend on it."""
        text = await self._store.get_fact(_STATISTICS)
        if text is not None and (statistics := read_statistics(text)) is not None:
            self._ladder.statistics = statistics
        for name, value in (await self._store.get_facts(_INBOUND)).items():
            self._written[name] = value
            facts = next((known for known in self._every() if _INBOUND + known.id == name), None)
            if facts is not None and (inbound := read_inbound(value)) is not None:
                facts.inbound = inbound

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
        changed = {name: value for name, value in rows.items() if self._written.get(name) != value}
        gone = [name for name in self._written if name not in rows]
        if changed:
            await self._store.put_facts(changed)
        if gone:
            await self._store.forget_facts(gone)
        self._written = rows

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


def _known(kind: Any, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Without the keys of a newer version; only numbers and containers are taken."""
    names = {field.name for field in fields(kind)}
    for name, value in raw.items():
        if name in names and not isinstance(value, int | float | list | dict):
            raise TypeError(f"{name} is {type(value).__name__}")
    return {name: value for name, value in raw.items() if name in names}
