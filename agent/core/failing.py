"""Which instances fail now and with what, so that a repair knows whether its case is the only one.

The agent and the simulation keep the same book.
"""

from collections.abc import Mapping

from agent.core.model import ConnectionStatus, HealthVerdict, InstanceId
from agent.core.recovery.repair import RecoveryKind, Repair, needs_repair
from agent.core.waiting import HOLDS

STALE = 900.0
"""Seconds after which a failure that was not seen again says nothing about others."""

_ON_ITS_WAY = frozenset({"starting", "stopping", "not_running", "ping_failed", *HOLDS})
"""Between two tries: what it failed with before still counts for a while."""


def is_well(verdict: HealthVerdict) -> bool:
    """Connected, or it shows its code: its group counts it as recovered."""
    return verdict.healthy or verdict.state is ConnectionStatus.QR_REQUIRED


def goes_all_the_way(repair: Repair | None, *, paired: bool) -> bool:
    """A canary without a pairing to lose has not failed before its repair has made it again."""
    if repair is None or repair.over or paired:
        return False
    return repair.step is not RecoveryKind.CLEANUP


class Failing:
    """By group (engine, or engine and backend): the failing instances, their reasons and times."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[InstanceId, tuple[str, float]]] = {}

    def note(self, group: str, id: InstanceId, verdict: HealthVerdict, now: float) -> None:
        seen = self._seen.setdefault(group, {})
        if needs_repair(verdict):
            seen[id] = (verdict.reason, now)
        elif verdict.reason not in _ON_ITS_WAY:
            seen.pop(id, None)

    def forget(self, group: str, id: InstanceId) -> None:
        self._seen.get(group, {}).pop(id, None)

    def now(self, group: str, now: float) -> Mapping[InstanceId, str]:
        seen = self._seen.get(group, {})
        return {id: reason for id, (reason, at) in seen.items() if now - at < STALE}
