"""The metrics of one session as lines of text, one piece for each family.

A session with the same view gives the same pieces, so the exporter keeps them. What grows
with the clock alone (the uptime, the time in the present status) is made at each scrape.
"""

import math
from dataclasses import dataclass

from agent.core.alerts.series import OF_KEYS, REASON, has_given_up, is_silent, is_wanted
from agent.core.model import ConnectionStatus, Health
from agent.core.reasons import Permanence, reason_of, reasons_table
from agent.core.view import RESTART_REASONS, InstanceView
from agent.metrics.pieces import Piece, by_word, one_value, state_set
from agent.metrics.repairs import CARE_FAMILIES
from agent.metrics.text import COUNTER, GAUGE, SUMMARY, Family, escape, number

STATUSES = tuple((status, status.value.lower()) for status in ConnectionStatus)
_VERDICTS = tuple(Health)
_REASONS = tuple(row[0] for row in reasons_table())
_ERRORS = (*_REASONS, *OF_KEYS)
_RECONNECT_REASONS = tuple(
    code
    for code in _REASONS
    if reason_of(code).permanence not in (Permanence.NEVER, Permanence.WAIT_FOR_PERSON)
)
_MESSAGES = (
    ("in", "in", "received"),
    ("out", "out", "sent"),
    ("ack", "out", "acknowledged"),
    ("failed", "out", "failed"),
)


def _info(label: str, view: InstanceView) -> str:
    labels = f'{label},engine="{escape(view.instance.engine)}"'
    if view.instance.backend:
        labels += f',backend="{escape(view.instance.backend)}"'
    if view.engine_version:
        labels += f',engine_version="{escape(view.engine_version)}"'
    return f"wa_session_info{{{labels}}} 1\n"


def _messages(label: str, view: InstanceView) -> str:
    return "".join(
        f'wa_session_messages_total{{{label},direction="{direction}",result="{result}"}}'
        f" {view.messages.get(word, 0)}\n"
        for word, direction, result in _MESSAGES
    )


def _response_time(label: str, view: InstanceView) -> str:
    name = "wa_session_response_time_seconds"
    return (
        f"{name}_sum{{{label}}} {number(view.probe_seconds)}\n"
        f"{name}_count{{{label}}} {view.probes}\n"
    )


def _proof_at(view: InstanceView) -> float | None:
    return None if view.proof_age is None else round(view.seen_wall - view.proof_age, 3)


def _whole(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


_STATUS = "wa_session_status"
_ENTERED = "wa_session_status_entered_timestamp_seconds"
_CONNECTED = "wa_session_connected_timestamp_seconds"
_MEMORY = "wa_session_memory_bytes"
_CPU = "wa_session_cpu_seconds_total"

FAMILIES: tuple[tuple[Family, Piece], ...] = (
    (Family("wa_session_info", GAUGE, "What the session is made of; always 1."), _info),
    (
        Family("wa_session_enabled", GAUGE, "1 when the session should run."),
        one_value("wa_session_enabled", lambda view: int(view.instance.enabled)),
    ),
    (
        Family("wa_session_wanted", GAUGE, "1 when it should run now: not stopped by hand."),
        one_value("wa_session_wanted", lambda view: int(is_wanted(view))),
    ),
    (
        Family("wa_session_given_up", GAUGE, "1 when only a person can bring it back."),
        one_value("wa_session_given_up", lambda view: int(has_given_up(view))),
    ),
    (
        Family("wa_session_silent", GAUGE, "1 when far fewer messages come than are usual."),
        one_value("wa_session_silent", lambda view: int(is_silent(view))),
    ),
    (
        Family("wa_session_in_incident", GAUGE, "1 while an incident speaks for it."),
        one_value("wa_session_in_incident", lambda view: int(view.in_incident)),
    ),
    (
        Family(_STATUS, GAUGE, "1 for the connection's present status."),
        state_set(_STATUS, "status", STATUSES, lambda view: view.status),
    ),
    (
        Family(REASON, GAUGE, "1 for the reason that it is as it is, where there is one."),
        lambda label, view: (
            f'{REASON}{{{label},reason="{escape(view.reason)}"}} 1\n' if view.reason else ""
        ),
    ),
    (
        Family("wa_session_verdict", GAUGE, "1 for the present health verdict."),
        state_set(
            "wa_session_verdict",
            "verdict",
            ((verdict, verdict.value) for verdict in _VERDICTS),
            lambda view: view.verdict.health,
        ),
    ),
    (
        Family(_ENTERED, GAUGE, "When the present status began."),
        one_value(_ENTERED, lambda view: _whole(view.status_since_wall)),
    ),
    (
        Family("wa_session_proof_timestamp_seconds", GAUGE, "When the status was last proved."),
        one_value("wa_session_proof_timestamp_seconds", _proof_at),
    ),
    (
        Family(_CONNECTED, GAUGE, "Since when it is connected."),
        one_value(_CONNECTED, lambda view: _whole(view.connected_since_wall)),
    ),
    (Family("wa_session_messages_total", COUNTER, "Messages that passed."), _messages),
    (
        Family("wa_session_response_time_seconds", SUMMARY, "How long answered probes took."),
        _response_time,
    ),
    (
        Family("wa_session_errors_total", COUNTER, "Endings and errors by kind."),
        by_word("wa_session_errors_total", "kind", _ERRORS, lambda view: view.errors),
    ),
    (
        Family("wa_session_reconnects_total", COUNTER, "Connections regained, by what was lost."),
        by_word(
            "wa_session_reconnects_total",
            "reason",
            _RECONNECT_REASONS,
            lambda view: view.reconnects,
        ),
    ),
    (
        Family("wa_session_restarts_total", COUNTER, "Restarts of the worker by cause."),
        by_word(
            "wa_session_restarts_total",
            "reason",
            RESTART_REASONS,
            lambda view: view.restarts,
            other=False,
        ),
    ),
    (
        Family(_MEMORY, GAUGE, "Memory of the session's processes."),
        one_value(_MEMORY, lambda view: view.memory_bytes),
    ),
    (
        Family(_CPU, COUNTER, "CPU time of the session's processes."),
        one_value(_CPU, lambda view: view.cpu_seconds),
    ),
    (
        Family("wa_session_processes", GAUGE, "Processes of the session."),
        one_value("wa_session_processes", lambda view: view.processes),
    ),
    (
        Family("wa_session_open_fds", GAUGE, "Open files of the session's processes."),
        one_value("wa_session_open_fds", lambda view: view.open_fds),
    ),
    (
        Family("wa_session_reconnect_attempts", GAUGE, "Tries since it was last connected."),
        one_value("wa_session_reconnect_attempts", lambda view: view.record.attempts),
    ),
    *CARE_FAMILIES,
)

UPTIME = Family("wa_session_uptime_seconds", GAUGE, "How long it is connected; 0 when it is not.")
IN_STATUS = Family("wa_session_status_seconds_total", COUNTER, "Time spent in each status.")


@dataclass(frozen=True, slots=True)
class Growing:
    """What grows with the clock alone: how its lines begin, and from where they count."""

    uptime: str
    connected: float
    """Since when by the wall clock; never, when it is not."""
    in_status: str
    entered: float
    """A moment of the boot clock."""
    spent: float
    """Seconds in this status before it was entered this time."""

    def uptime_line(self, now_wall: float) -> str:
        # A clock that was set back shows nothing that shrinks.
        seconds = round(now_wall - self.connected) if now_wall > self.connected else 0
        return f"{self.uptime}{seconds}\n"

    def in_status_line(self, now: float) -> str:
        since = now - self.entered if now > self.entered else 0.0
        return f"{self.in_status}{self.spent + since:.3f}\n"


def growing(label: str, view: InstanceView) -> Growing:
    connected, counted = view.connected_since_wall, view.status_time
    return Growing(
        f"{UPTIME.name}{{{label}}} ",
        math.inf if connected is None else connected,
        f'{IN_STATUS.name}{{{label},status="{counted.status.value.lower()}"}} ',
        counted.entered,
        counted.spent.get(counted.status, 0.0),
    )


def past_statuses(label: str, view: InstanceView) -> str:
    """The lines of the statuses that it is not in."""
    counted = view.status_time
    return "".join(
        f'{IN_STATUS.name}{{{label},status="{word}"}} {counted.spent.get(status, 0.0):.3f}\n'
        for status, word in STATUSES
        if status is not counted.status
    )
