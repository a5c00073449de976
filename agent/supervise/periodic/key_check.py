"""The round: a regular check for sessions whose keys still fail, and a log line with its result.
Crossing the threshold wakes a session at once; the round finds sessions that were missed."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from agent.clock import boot_now
from agent.core.figures import RepairStatistics
from agent.core.findings.crypto import CryptoPolicy
from agent.core.model import Category, InstanceId
from agent.log import bound
from agent.supervise.facts import Facts
from agent.supervise.passes.findings import judge_keys
from agent.supervise.registry import Registry


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
