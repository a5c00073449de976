"""Checks on demand: a pass now for some instances or all."""

import asyncio
from collections.abc import Callable, Collection, Mapping

from agent.core.model import HealthVerdict, InstanceId
from agent.supervise.facts import Facts
from agent.supervise.passes.run import Passes
from agent.supervise.registry import Registry
from agent.supervise.views import NOT_LOOKED_YET


class Checking:
    def __init__(
        self,
        registry: Registry,
        passes: Passes,
        wake: Callable[[InstanceId], None],
        *,
        at_once: int,
    ) -> None:
        self._registry = registry
        self._passes = passes
        self._wake = wake
        self._places = asyncio.Semaphore(at_once)

    async def check_now(
        self, ids: Collection[InstanceId] | None = None
    ) -> Mapping[InstanceId, HealthVerdict]:
        chosen = list(self._registry.facts) if ids is None else list(ids)
        all_facts = [self._registry.get(id) for id in chosen]
        await asyncio.gather(*(self._check(facts) for facts in all_facts))
        return {facts.id: facts.verdict or NOT_LOOKED_YET for facts in all_facts}

    async def _check(self, facts: Facts) -> None:
        facts.next_probe = 0.0
        async with self._places:
            await self._passes.run(facts)
        self._wake(facts.id)  # the loop knows its next deadline
