"""What instances and the machine use, measured side by side in one look."""

import asyncio
from collections.abc import Callable

from agent.config import Config
from agent.host.resources import Usage, measure
from agent.supervise.facts import Facts
from agent.supervise.registry import Registry


class Sampler:
    """Measures all workers every so often and notes it in their facts."""

    def __init__(self, registry: Registry, config: Callable[[], Config]) -> None:
        self._registry = registry
        self._config = config

    async def run(self) -> None:
        await asyncio.sleep(self._config().start.first_check)
        while True:
            await self.sample()
            await asyncio.sleep(self._config().health.memory_interval)

    async def sample(self) -> None:
        pids = {
            facts.id: facts.unit.main_pid
            for facts in self._registry.facts.values()
            if facts.unit.runs and facts.unit.main_pid
        }
        found = await asyncio.to_thread(measure, pids)
        for facts in list(self._registry.facts.values()):
            _note(facts, found.get(facts.id))
            self._registry.touch(facts)


def _note(facts: Facts, usage: Usage | None) -> None:
    facts.memory_bytes = usage.memory_bytes if usage else None
    facts.cpu_seconds = usage.cpu_seconds if usage else None
    facts.processes = usage.processes if usage else None
