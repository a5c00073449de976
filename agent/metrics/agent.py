"""The agent's own figures, and those of backends' servers."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from agent.core.figures.repair_statistics import since
from agent.core.view import AgentStatus, BackendView, CheckTime, InstanceView
from agent.core.words import ConnectionStatus
from agent.metrics.family import Family, Row, Summary, by_label, one

_DURATIONS = {
    "reconnect": "Time from a lost to the next connection, of sessions not stopped by hand.",
    "response": "Answer times of probes.",
    "acknowledgement": "Time from sent to acknowledged, of messages sent through the agent.",
    "repair": "Duration of repairs.",
}


def labels_of_group(group: str) -> dict[str, str]:
    """The labels of a group: an engine, or an engine on one backend."""
    engine, _, backend = group.partition("/")
    return {"engine": engine, "backend": backend} if backend else {"engine": engine}


def agent_families(
    status: AgentStatus, views: Collection[InstanceView], listeners: int
) -> Iterator[Family]:
    labels = {"version": status.version, "host": status.host}
    yield Family("wa_agent_info", "Its version and host; always 1.", [(labels, 1)])
    counted = Counter(view.status for view in views)
    counts = {status.lower(): counted[status] for status in ConnectionStatus}
    yield by_label("wa_agent_sessions", "Sessions by status.", "status", counts)
    counts = {"worker": sum(view.linked for view in views), "events": listeners}
    meaning = "Open connections to workers and to listeners for events."
    yield by_label("wa_agent_active_connections", meaning, "kind", counts)
    for what, its in status.durations.histograms.items():
        now = replace(its, counts=its.counts.copy())
        yield Family(f"wa_agent_session_{what}_seconds", _DURATIONS[what], [({}, now)])
    rows: list[Row] = [(labels_of_group(it), int(n > 0)) for it, n in status.incidents.items()]
    yield Family("wa_agent_incident_active", "1 while an incident of this engine goes on.", rows)
    repairs = since(status.repairs, status.repairs_before)
    checks = {"health": CheckTime(repairs.checked, repairs.check_seconds), **status.checks}
    rows = [({"check": check}, Summary(it.seconds, it.count)) for check, it in checks.items()]
    yield Family("wa_agent_check_duration_seconds", "Duration of checks by kind.", rows)
    name = "wa_agent_db_errors_total"
    yield by_label(name, "Errors of the database.", "kind", status.db_errors)
    passes = Summary(status.pass_seconds_total, status.passes_total)
    commits = Summary(status.db_write_seconds, status.db_writes)
    read = "Time at which the settings in force were read."
    plain: dict[str, tuple[str, float | Summary | None]] = {
        "config_reload_success_timestamp_seconds": (read, status.config_read_wall),
        "pass_duration_seconds": ("Duration of passes.", passes),
        "last_pass_age_seconds": ("Age of the last pass.", status.last_pass_age),
        "event_loop_lag_seconds": ("Delay of the event loop.", status.loop_lag),
        "db_write_seconds": ("Duration of commits.", commits),
        "db_size_bytes": ("Size of the database and its log.", status.db_bytes),
        "waiting_starts": ("Sessions that wait for a turn to log in.", status.waiting_starts),
        "jobs_pending": ("Unfinished jobs at the host.", status.jobs_pending),
        "dbus_connected": ("1 on D-Bus.", status.dbus_connected),
    }
    for name, (meaning, value) in plain.items():
        yield one(f"wa_agent_{name}", meaning, value)


def backend_families(backends: Iterable[BackendView]) -> Iterator[Family]:
    views = sorted(backends, key=lambda view: view.name)
    up: list[Row] = [({"backend": view.name}, int(view.up)) for view in views]
    yield Family("wa_backend_up", "1 while the server of the backend answers.", up)
    held = [
        ({"backend": view.name, "state": state}, count)
        for view in views
        for state, count in zip(
            ("held", "connected", "seen"), (view.held, view.connected, view.sessions), strict=True
        )
        if count is not None
    ]
    yield Family("wa_backend_sessions", "Sessions by state: held, connected, seen.", held)
    times = [({"backend": it.name}, it.seconds) for it in views if it.checked_wall is not None]
    yield Family("wa_backend_check_duration_seconds", "Duration of the last check.", times)
