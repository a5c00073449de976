"""The agent's own figures."""

from collections import Counter
from collections.abc import Iterator, Mapping

from agent.core.figures.repair_statistics import RepairStatistics, since
from agent.core.model import InstanceId
from agent.core.view import AgentStatus, CheckTime, InstanceView
from agent.metrics.sessions import STATUSES
from agent.metrics.text import COUNTER, GAUGE, HISTOGRAM, SUMMARY, Family, histogram_lines, sample

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


Samples = Iterator[tuple[Family, str]]


def _gauge(name: str, meaning: str, value: float) -> tuple[Family, str]:
    return Family(name, GAUGE, meaning), sample(name, value)


def _counter(name: str, meaning: str, value: float) -> tuple[Family, str]:
    return Family(name, COUNTER, meaning), sample(name, value)


def _summary(name: str, meaning: str, total: float, count: int) -> tuple[Family, str]:
    text = sample(f"{name}_sum", total) + sample(f"{name}_count", count)
    return Family(name, SUMMARY, meaning), text


def _by_kind(name: str, meaning: str, counted: Mapping[str, int]) -> tuple[Family, str]:
    text = "".join(sample(name, count, kind=kind) for kind, count in sorted(counted.items()))
    return Family(name, COUNTER, meaning), text


def agent_samples(
    status: AgentStatus, views: Mapping[InstanceId, InstanceView], listeners: int
) -> Samples:
    yield (
        Family("wa_agent_info", GAUGE, "The agent's version and host; always 1."),
        sample("wa_agent_info", 1, version=status.version, host=status.host),
    )
    name = "wa_agent_config_reload_success_timestamp_seconds"
    yield _gauge(name, "Time at which the settings in force were read.", status.config_read_wall)
    name = "wa_agent_config_reload_successful"
    yield _gauge(name, "0 after a reload that was refused.", int(not status.config_refused))
    yield _gauge("wa_agent_ready", "1 when all sessions are restored.", int(status.ready))
    done, total = status.restoring
    yield _gauge("wa_agent_restoring_sessions", "Sessions still to restore.", total - done)
    counted = Counter(view.status for view in views.values())
    yield (
        Family("wa_agent_sessions", GAUGE, "Sessions by status."),
        "".join(
            sample("wa_agent_sessions", counted[state], status=word) for state, word in STATUSES
        ),
    )
    name = "wa_agent_active_connections"
    links = sum(view.linked for view in views.values())
    yield (
        Family(name, GAUGE, "Open connections to workers and to listeners for events."),
        sample(name, links, kind="worker") + sample(name, listeners, kind="events"),
    )
    yield from _duration_samples(status)
    yield from _loop_samples(status)
    yield from repair_samples(status)
    yield from _store_and_host_samples(status)


_DURATIONS = {
    "reconnect": "Time from a lost to the next connection, of sessions not stopped by hand.",
    "response": "Answer times of probes.",
    "acknowledgement": "Time from sent to acknowledged, of messages sent through the agent.",
    "repair": "Duration of repairs.",
}


def _duration_samples(status: AgentStatus) -> Samples:
    for what, histogram in status.durations.histograms.items():
        name = f"wa_agent_session_{what}_seconds"
        bounds = (f"{bound:g}" for bound in histogram.bounds)
        lines = histogram_lines(name, bounds, histogram.counts, histogram.total)
        yield Family(name, HISTOGRAM, _DURATIONS[what]), lines


def _loop_samples(status: AgentStatus) -> Samples:
    yield _summary(
        "wa_agent_pass_duration_seconds",
        "Duration of passes.",
        status.pass_seconds_total,
        status.passes_total,
    )
    if status.last_pass_age is not None:
        yield _gauge(
            "wa_agent_last_pass_age_seconds", "Age of the last pass.", status.last_pass_age
        )
    yield _counter("wa_agent_passes_late_total", "Passes that began late.", status.passes_late)
    yield _gauge("wa_agent_event_loop_lag_seconds", "Delay of the event loop.", status.loop_lag)


def _store_and_host_samples(status: AgentStatus) -> Samples:
    yield _summary(
        "wa_agent_db_write_seconds",
        "Duration of commits.",
        status.db_write_seconds,
        status.db_writes,
    )
    yield _by_kind("wa_agent_db_errors_total", "Errors of the database.", status.db_errors)
    yield _by_kind(
        "wa_agent_link_refusals_total",
        "Refused connections and messages of workers.",
        status.link_refusals,
    )
    yield _gauge("wa_agent_db_size_bytes", "Size of the database and its log.", status.db_bytes)
    yield _counter("wa_agent_log_lines_lost_total", "Dropped log lines.", status.log_dropped)
    name = "wa_agent_waiting_starts"
    yield _gauge(name, "Sessions that wait for a turn to log in.", status.waiting_starts)
    if status.logins_left is not None:
        name = "wa_agent_logins_left"
        yield _gauge(name, "Logins that the budget allows at once.", status.logins_left)
    yield _gauge("wa_agent_jobs_pending", "Unfinished jobs at the host.", status.jobs_pending)
    if status.dbus_connected is not None:
        yield _gauge("wa_agent_dbus_connected", "1 on D-Bus.", int(status.dbus_connected))
