"""Incidents, checks and repairs of the whole agent."""

from collections.abc import Iterator

from agent.core.figures.repair_statistics import RepairStatistics, since
from agent.core.view import AgentStatus, CheckTime
from agent.metrics.text import COUNTER, GAUGE, SUMMARY, Family, sample

INCIDENT_REASON = "wa_agent_incident_reason"


def labels_of_group(group: str) -> dict[str, str]:
    """The labels of a group: an engine, or an engine on one backend."""
    engine, _, backend = group.partition("/")
    return {"engine": engine, "backend": backend} if backend else {"engine": engine}


def repair_samples(status: AgentStatus) -> Iterator[tuple[Family, str]]:
    name = "wa_agent_incident_active"
    yield (
        Family(name, GAUGE, "1 while an incident of this engine goes on."),
        "".join(
            sample(name, int(members > 0), **labels_of_group(group))
            for group, members in sorted(status.incidents.items())
        ),
    )
    yield (
        Family(INCIDENT_REASON, GAUGE, "1 for the reason that its members fail with."),
        "".join(
            sample(INCIDENT_REASON, 1, **labels_of_group(group), reason=code)
            for group, code in sorted(status.incident_reasons.items())
        ),
    )
    counted = since(status.repairs, status.repairs_before)
    yield _checks(status, counted)
    yield from _statistics(counted)


def _checks(status: AgentStatus, counted: RepairStatistics) -> tuple[Family, str]:
    name = "wa_agent_check_duration_seconds"
    health = CheckTime(counted.checked, counted.check_seconds)
    text = "".join(
        sample(f"{name}_sum", time.seconds, check=check)
        + sample(f"{name}_count", time.count, check=check)
        for check, time in {"health": health, **status.checks}.items()
    )
    return Family(name, SUMMARY, "Duration of checks by kind."), text


def _statistics(totals: RepairStatistics) -> Iterator[tuple[Family, str]]:
    name = "wa_agent_repairs_total"
    outcomes = {"repaired": totals.repaired, "cleaned": totals.cleaned, "failed": totals.failed}
    yield (
        Family(name, COUNTER, "Repairs that ended, by outcome."),
        "".join(sample(name, count, outcome=word) for word, count in outcomes.items()),
    )
    name = "wa_agent_interventions_total"
    yield (
        Family(name, COUNTER, "Repairs requested by a person, or left to one."),
        "".join(sample(name, count, kind=kind) for kind, count in totals.interventions.items()),
    )
    name = "wa_agent_repair_duration_seconds"
    yield (
        Family(name, SUMMARY, "Duration of the repairs that healed."),
        sample(f"{name}_sum", totals.repair_seconds)
        + sample(f"{name}_count", totals.repaired + totals.cleaned),
    )
