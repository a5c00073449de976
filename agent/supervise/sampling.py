"""What instances use, measured in one look, and what is done about too much memory."""

import asyncio
import logging
from collections.abc import Callable

from agent.config import Config
from agent.core.memory import InstanceMemory, MemoryPolicy, MemoryStep, decide_memory, memory_budget
from agent.core.model import Category, ConnectionStatus, InstanceId
from agent.errors import WaError
from agent.host.machine import machine_memory
from agent.host.resources import Usage, measure
from agent.log import bound
from agent.supervise.facts import Facts
from agent.supervise.loop import boot_now
from agent.supervise.registry import Registry
from agent.supervise.remember import entry

log = logging.getLogger(__name__)


class Sampler:
    """Measures all workers every so often; frees and restarts, one at a time."""

    def __init__(
        self,
        registry: Registry,
        config: Callable[[], Config],
        policy: Callable[[], MemoryPolicy],
        limit: Callable[[Facts], int],
        wake: Callable[[InstanceId], None],
    ) -> None:
        self._registry = registry
        self._config = config
        self._policy = policy
        self._limit = limit
        self._wake = wake

    async def run(self) -> None:
        await asyncio.sleep(self._config().start.first_check)
        while True:
            await self.sample()
            await self.care()
            await asyncio.sleep(self._config().memory.interval)

    async def sample(self) -> None:
        pids = {
            facts.id: facts.unit.main_pid
            for facts in self._registry.facts.values()
            if facts.unit.runs and facts.unit.main_pid and self._config().memory.measure
        }
        found = await asyncio.to_thread(measure, pids)
        now = boot_now()
        for facts in list(self._registry.facts.values()):
            _note(facts, found.get(facts.id), self._policy(), now)
            self._registry.touch(facts)

    async def care(self) -> None:
        """Gentle first: ask to free caches; then at most one graceful restart at a time."""
        policy, now = self._policy(), boot_now()
        budget = memory_budget(machine_memory().total, policy)
        for action in decide_memory(self._seen(), budget, policy, now):
            facts = self._registry.facts[action.id]
            said = bound(Category.MEMORY, facts.id)
            if action.step is MemoryStep.FREE:
                said.info("asked to free its caches: %s", action.reason)
                facts.freed_at = now
                sentence = f"asked to free its caches: {action.reason}"
                self._registry.note(entry(facts, "memory", sentence, Category.MEMORY))
                await _free(facts)
            else:
                said.warning("restarts gracefully: %s", action.reason)
                facts.memory_restart_at = now
                facts.restart_for = action.reason
                self._wake(facts.id)

    def _seen(self) -> list[InstanceMemory]:
        return [
            InstanceMemory(
                facts.id,
                facts.memory_bytes,
                self._limit(facts),
                facts.freed_at,
                facts.memory_restart_at,
                restarting=facts.acting is not None or bool(facts.restart_for),
                restartable=facts.record.status is ConnectionStatus.CONNECTED,
            )
            for facts in self._registry.facts.values()
            if facts.memory_bytes is not None and facts.unit.runs
        ]


async def _free(facts: Facts) -> None:
    if facts.link is None:
        return
    try:
        await facts.link.call("free_memory", timeout=10.0)
    except WaError as error:
        log.info("cannot free the memory of %s: %s", facts.id, error)


def _note(facts: Facts, usage: Usage | None, policy: MemoryPolicy, now: float) -> None:
    facts.memory_bytes = usage.memory_bytes if usage else None
    facts.cpu_seconds = usage.cpu_seconds if usage else None
    facts.processes = usage.processes if usage else None
    if facts.memory_bytes is not None:
        facts.memory_history = facts.memory_history.note(facts.memory_bytes, policy, now)
