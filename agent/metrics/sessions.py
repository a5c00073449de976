"""The metrics of one session, a row each; those of session_figures' table are added.

A session with the same view gives the same lines, so the exporter keeps them. The uptime and the
time in the present status, which grow with the clock, are made at each scrape.
"""

import math
from dataclasses import dataclass

from agent.core.breaker import BreakerState
from agent.core.figures.session_figures import COUNTS, FIGURES, Count, Figure
from agent.core.findings.crypto_patterns import OF_KEYS
from agent.core.health.wanted import has_given_up, is_silent, is_wanted
from agent.core.model import ConnectionStatus, Health
from agent.core.reasons import reasons_table
from agent.core.recovery.repair import RecoveryKind
from agent.core.view import CRYPTO_RESULTS, InstanceView
from agent.metrics.families import Row, by_word, flag, labelled, state_set, summary, value
from agent.metrics.text import COUNTER, GAUGE, Family, escape

STATUSES = tuple((status, status.value.lower()) for status in ConnectionStatus)
_ERRORS = (*(row[0] for row in reasons_table()), *OF_KEYS)
_MESSAGES = (
    ("in", "in", "received"),
    ("out", "out", "sent"),
    ("ack", "out", "acknowledged"),
    ("failed", "out", "failed"),
)
_NO_STEPS = (RecoveryKind.NONE, RecoveryKind.WAIT, RecoveryKind.GIVE_UP)
_STEPS = tuple(kind.value for kind in RecoveryKind if kind not in _NO_STEPS)


def _info(label: str, view: InstanceView) -> str:
    labels = f'{label},engine="{escape(view.instance.engine)}"'
    if view.instance.backend:
        labels += f',backend="{escape(view.instance.backend)}"'
    if view.engine_version:
        labels += f',engine_version="{escape(view.engine_version)}"'
    return f"wa_session_info{{{labels}}} 1\n"


def _reason(label: str, view: InstanceView) -> str:
    return f'wa_session_reason{{{label},reason="{escape(view.reason)}"}} 1\n' if view.reason else ""


def _proof_at(view: InstanceView) -> float | None:
    return None if view.proof_age is None else round(view.seen_wall - view.proof_age, 3)


def _whole(moment: float | None) -> float | None:
    return None if moment is None else round(moment, 3)


def _crypto_operations() -> Row:
    """Left out where read messages are not counted: the rate of failures would be 100 %."""
    family, piece = by_word(
        "wa_session_crypto_operations_total",
        "Decryptions of messages by result.",
        "result",
        CRYPTO_RESULTS,
        lambda view: view.crypto_operations,
    )
    return family, lambda label, view: piece(label, view) if view.counts_messages else ""


def _figure(row: Figure) -> Row:
    return value(row.metric, row.meaning, lambda view: view.figures.get(row.name))


def _count(row: Count) -> Row:
    return by_word(
        row.metric,
        row.meaning,
        row.label,
        row.words,
        lambda view: view.counts[row.name],
        other=row.other,
    )


FAMILIES: tuple[Row, ...] = (
    (Family("wa_session_info", GAUGE, "Engine, backend and their versions; always 1."), _info),
    flag("wa_session_enabled", "1 when the instance is enabled.", lambda v: v.instance.enabled),
    flag("wa_session_wanted", "1 when it is enabled and not stopped by hand.", is_wanted),
    flag("wa_session_given_up", "1 when only a person can bring it back.", has_given_up),
    flag(
        "wa_session_needs_passkey",
        "1 when its account is known to need a passkey to link.",
        lambda v: v.record.needs_passkey,
    ),
    flag("wa_session_silent", "1 when far fewer messages arrive than usual.", is_silent),
    flag("wa_session_in_incident", "1 while it is in an incident.", lambda v: v.in_incident),
    state_set(
        "wa_session_status", "1 for the connection status.", "status", STATUSES, lambda v: v.status
    ),
    (
        Family("wa_session_reason", GAUGE, "1 for the reason of the present state, if it has one."),
        _reason,
    ),
    state_set(
        "wa_session_verdict",
        "1 for the health verdict.",
        "verdict",
        ((verdict, verdict.value) for verdict in Health),
        lambda v: v.verdict.health,
    ),
    value(
        "wa_session_status_entered_timestamp_seconds",
        "When the present status began.",
        lambda v: _whole(v.status_since_wall),
    ),
    value("wa_session_proof_timestamp_seconds", "When the status was last proved.", _proof_at),
    value(
        "wa_session_connected_timestamp_seconds",
        "When the present connection began.",
        lambda v: _whole(v.connected_since_wall),
    ),
    labelled(
        "wa_session_messages_total",
        "Messages by direction and result.",
        COUNTER,
        (
            (
                f'direction="{direction}",result="{result}"',
                lambda v, word=word: v.messages.get(word, 0),  # type: ignore[misc]
            )
            for word, direction, result in _MESSAGES
        ),
    ),
    labelled(
        "wa_session_messages_per_minute",
        "Messages of the last minute.",
        GAUGE,
        (
            (
                f'direction="{word}"',
                lambda v, word=word: v.messages_per_minute.get(word, 0),  # type: ignore[misc]
            )
            for word in ("in", "out")
        ),
    ),
    summary(
        "wa_session_response_time_seconds",
        "Answer times of the answered probes.",
        lambda v: v.probe_seconds,
        lambda v: v.probes,
    ),
    by_word(
        "wa_session_errors_total",
        "Lost connections and errors by kind.",
        "kind",
        _ERRORS,
        lambda v: v.errors,
        other=True,
    ),
    value("wa_session_memory_bytes", "Memory of its processes.", lambda v: v.memory_bytes),
    value(
        "wa_session_memory_limit_bytes",
        "Memory that the session may use; 0 = no limit.",
        lambda v: v.memory_limit,
    ),
    value(
        "wa_session_cpu_seconds_total",
        "CPU time of the session's processes.",
        lambda v: v.cpu_seconds,
        COUNTER,
    ),
    value("wa_session_processes", "Processes of the session.", lambda v: v.processes),
    value(
        "wa_session_reconnect_attempts",
        "Attempts since it was last connected.",
        lambda v: v.attempts,
    ),
    _crypto_operations(),
    labelled(
        "wa_session_repairs_total",
        "Steps of repairs by result.",
        COUNTER,
        (
            (
                f'step="{step}",result="{result}"',
                lambda v, key=(step, result): v.repair_steps.get(key, 0),  # type: ignore[misc]
            )
            for step in _STEPS
            for result in ("done", "failed")
        ),
    ),
    summary(
        "wa_session_repair_seconds",
        "Duration of the steps of repairs.",
        lambda v: v.repair_seconds,
        lambda v: sum(v.repair_steps.values()),
    ),
    state_set(
        "wa_session_circuit",
        "1 for the state of the circuit breaker.",
        "state",
        ((state, state.value) for state in BreakerState),
        lambda v: v.circuit,
    ),
    value(
        "wa_session_last_snapshot_timestamp_seconds",
        "When the last snapshot was taken.",
        lambda v: v.last_snapshot_wall,
    ),
    *(_figure(row) for row in FIGURES),
    *(_count(row) for row in COUNTS),
)

UPTIME = Family("wa_session_uptime_seconds", GAUGE, "Duration of the connection; 0 without one.")
IN_STATUS = Family("wa_session_status_seconds_total", COUNTER, "Time spent in each status.")


@dataclass(frozen=True, slots=True)
class Growing:
    """Lines that grow with the clock: how they begin, and from where they count."""

    uptime: str
    connected: float
    """The start of the connection by the wall clock; infinite without one."""
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
    """The lines of all statuses but the present one."""
    counted = view.status_time
    return "".join(
        f'{IN_STATUS.name}{{{label},status="{word}"}} {counted.spent.get(status, 0.0):.3f}\n'
        for status, word in STATUSES
        if status is not counted.status
    )
