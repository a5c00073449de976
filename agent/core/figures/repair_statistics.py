"""Counts of checks and repairs: one value per agent, added to and never reset."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent.core.recovery.repair import Ending, Goal, RecoveryKind, Repair

_HEALED = (Ending.RECOVERED, Ending.CLEANED)
_FOR_A_PERSON = (Ending.NEEDS_SCAN, Ending.NEEDS_PERSON)
_UNHEALED = (Ending.GAVE_UP, Ending.NEEDS_SCAN, Ending.NEEDS_PERSON)


@dataclass(frozen=True, slots=True)
class StepTally:
    done: int = 0
    failed: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class RepairStatistics:
    checked: int = 0
    check_seconds: float = 0.0
    repaired: int = 0
    cleaned: int = 0
    failed: int = 0
    repair_seconds: float = 0.0
    """Of the repairs that healed: from the begin until what helped was done."""
    steps: Mapping[str, StepTally] = field(default_factory=dict)
    asked: int = 0
    """Repairs that an operator asked for, or joined."""
    needed_person: int = 0
    """Repairs that ended with something only a person can do."""
    since_wall: float = 0.0
    """When the first of them was counted; 0 = not known."""

    @property
    def interventions(self) -> Mapping[str, int]:
        return {"asked": self.asked, "needed": self.needed_person}

    @property
    def mean_check_seconds(self) -> float | None:
        return self.check_seconds / self.checked if self.checked else None

    @property
    def mean_time_to_repair(self) -> float | None:
        healed = self.repaired + self.cleaned
        return self.repair_seconds / healed if healed else None

    @property
    def success_rate(self) -> float | None:
        healed = self.repaired + self.cleaned
        return healed / (healed + self.failed) if healed + self.failed else None


def since(now: RepairStatistics, before: RepairStatistics) -> RepairStatistics:
    """What was counted after `before`."""
    return RepairStatistics(
        checked=now.checked - before.checked,
        check_seconds=now.check_seconds - before.check_seconds,
        repaired=now.repaired - before.repaired,
        cleaned=now.cleaned - before.cleaned,
        failed=now.failed - before.failed,
        repair_seconds=now.repair_seconds - before.repair_seconds,
        steps={
            kind: StepTally(
                tally.done - before.steps.get(kind, StepTally()).done,
                tally.failed - before.steps.get(kind, StepTally()).failed,
                tally.seconds - before.steps.get(kind, StepTally()).seconds,
            )
            for kind, tally in now.steps.items()
        },
        asked=now.asked - before.asked,
        needed_person=now.needed_person - before.needed_person,
    )


def note_check(statistics: RepairStatistics, seconds: float) -> RepairStatistics:
    return replace(
        statistics, checked=statistics.checked + 1, check_seconds=statistics.check_seconds + seconds
    )


def note_step(
    statistics: RepairStatistics, kind: RecoveryKind, ok: bool, seconds: float
) -> RepairStatistics:
    before = statistics.steps.get(kind, StepTally())
    after = StepTally(before.done + ok, before.failed + (not ok), before.seconds + seconds)
    return replace(statistics, steps={**statistics.steps, kind: after})


def note_repair(statistics: RepairStatistics, repair: Repair) -> RepairStatistics:
    """Count a repair that ended; without a step, or no longer wanted, it repaired nothing."""
    statistics = replace(
        statistics,
        asked=statistics.asked + (repair.goal is not Goal.HEAL),
        needed_person=statistics.needed_person + (repair.ending in _FOR_A_PERSON),
    )
    if repair.ending in _UNHEALED:
        return replace(statistics, failed=statistics.failed + 1)
    if repair.ending not in _HEALED:
        return statistics
    cleaned = repair.ending is Ending.CLEANED
    return replace(
        statistics,
        repaired=statistics.repaired + (not cleaned),
        cleaned=statistics.cleaned + cleaned,
        repair_seconds=statistics.repair_seconds + repair.seconds,
    )
