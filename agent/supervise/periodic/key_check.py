"""The round: a regular check for sessions whose keys still fail, and a log line with its result.

Crossing the threshold wakes a session at once; this is the net below that, and what people read.
"""

import asyncio
from collections.abc import Callable

from agent.clock import boot_now
from agent.core.figures.repair_statistics import RepairStatistics
from agent.core.findings.crypto import CryptoPolicy
from agent.core.model import Category, InstanceId
from agent.log import bound
from agent.supervise.facts import Facts
from agent.supervise.passes.findings import judge_keys
from agent.supervise.registry import Registry


class Rounds:
    def __init__(
        self,
        registry: Registry,
        *,
        every: Callable[[], float],
        policy: Callable[[], CryptoPolicy],
        statistics: Callable[[], RepairStatistics],
        wake: Callable[[InstanceId], None],
        checked: Callable[[str, float], None],
    ) -> None:
        self._registry = registry
        self._every = every
        self._policy = policy
        self._statistics = statistics
        self._wake = wake
        self._checked = checked

    async def run(self) -> None:
        before = self._statistics()
        while True:
            await asyncio.sleep(self._every())
            begun = boot_now()
            before = self._go_round(before)
            self._checked("keys", boot_now() - begun)

    def _go_round(self, before: RepairStatistics) -> RepairStatistics:
        every, now = list(self._registry.facts.values()), boot_now()
        failing = [facts for facts in every if self._fails(facts, now)]
        for facts in failing:
            self._wake(facts.id)
        found = self._statistics()
        healed = found.repaired + found.cleaned - before.repaired - before.cleaned
        bound(Category.CRYPTO).info(
            "round: %d sessions checked, the keys of %d fail; since the last one %d repaired,"
            " %d not healed",
            len(every),
            len(failing),
            healed,
            found.failed - before.failed,
        )
        return found

    def _fails(self, facts: Facts, now: float) -> bool:
        return judge_keys(facts, self._policy(), now).signal is not None
