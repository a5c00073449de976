"""The counters of the sessions that go on over an orderly restart of the agent.

A counter may shrink only to 0: Prometheus takes any other fall for a new beginning and adds the
whole value again. So the counters are written once, when /metrics is closed, and removed from the
database as soon as the next agent has read them. After a kill all begin at 0.
"""

import json
import logging
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from agent.clock import boot_now
from agent.core.model import ConnectionStatus
from agent.errors import StoreError
from agent.log import about
from agent.store.database import Store
from agent.supervise.facts import Facts
from agent.supervise.registry import Registry

log = logging.getLogger(__name__)

_PREFIX = "counters:"
_WHOLE = "counters_whole"
"""Its row stands for an orderly end."""
_OWN = ("messages", "errors")
"""Counters beside those of the table."""
_LONGEST = 256
"""Entries of one counter that are taken over; nothing that the agent counts has more."""


class CarriedCounters:
    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self.ended_in_order = False
        """Whether the agent before this one wrote what it had counted."""

    async def take_over(self) -> None:
        """Before anything is shown. A value that cannot be read begins at 0, which is
        always right."""
        rows = await self._store.get_facts(_PREFIX)
        self.ended_in_order = await self._store.get_fact(_WHOLE) is not None
        # First: from here on this agent counts on, and a kill must not bring the old numbers back.
        try:
            await self._store.forget_facts([*rows, _WHOLE])
        except StoreError as error:
            log.warning("cannot take over the kept counters, they begin at 0: %s", error)
            self.ended_in_order = False
            return
        for facts in self._registry.facts.values():
            text = rows.get(_PREFIX + facts.id)
            if text is not None:
                try:
                    _add(facts, json.loads(text))
                except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                    log.warning(
                        "the counters of %s begin at 0: %s", facts.id, error, extra=about(facts.id)
                    )
                self._registry.touch(facts)

    async def keep(self) -> None:
        """After /metrics has answered for the last time. Never raises."""
        now = boot_now()
        rows = {
            _PREFIX + facts.id: json.dumps(_counted(facts, now))
            for facts in self._registry.facts.values()
        }
        try:
            await self._store.put_facts({**rows, _WHOLE: ""})
        except StoreError as error:
            log.warning("cannot read the kept counters, they begin at 0: %s", error)


def _counted(facts: Facts, now: float) -> dict[str, Any]:
    return {
        **{name: dict(counter) for name, counter in _counters(facts).items()},
        "since_wall": facts.counters.since_wall,
        "repair_steps": [[*key, count] for key, count in facts.counters.repair_steps.items()],
        "repair_seconds": facts.counters.repair_seconds,
        "probes": facts.counters.probes,
        "probe_seconds": facts.counters.probe_seconds,
        "status_seconds": facts.status_time.totals(now),
    }


def _add(facts: Facts, kept: Mapping[str, Any]) -> None:
    """All or nothing: everything is read before anything is added."""
    # An agent that had no such count yet wrote no row of it.
    counted = {name: _read_counter(kept.get(name, {})) for name in _counters(facts)}
    steps = {(str(kind), str(result)): _count(n) for kind, result, n in kept["repair_steps"]}
    repair_seconds, probe_seconds = (
        _seconds(kept["repair_seconds"]),
        _seconds(kept["probe_seconds"]),
    )
    probes = _count(kept["probes"])
    since_wall = _seconds(kept.get("since_wall", facts.counters.since_wall))
    spent = {
        ConnectionStatus(word): _seconds(value) for word, value in kept["status_seconds"].items()
    }
    for name, counter in _counters(facts).items():
        counter.update(counted[name])
    facts.counters.since_wall = since_wall
    facts.counters.repair_steps.update(steps)
    facts.counters.repair_seconds += repair_seconds
    facts.counters.probes += probes
    facts.counters.probe_seconds += probe_seconds
    facts.status_time = facts.status_time.with_earlier(spent)


def _counters(facts: Facts) -> dict[str, Counter[str]]:
    own = {name: getattr(facts.counters, name) for name in _OWN}
    return {**facts.counters.by_word, **own}


def _read_counter(kept: Mapping[str, Any]) -> Counter[str]:
    if len(kept) > _LONGEST:
        raise ValueError(f"{len(kept)} entries")
    return Counter({str(word): _count(value) for word, value in kept.items()})


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r:.40} is no count")
    return value


def _seconds(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{value!r:.40} is no duration")
    return float(value)
