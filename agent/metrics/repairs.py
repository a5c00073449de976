"""What is done for a session: circuit, repairs, keys, memory's limit; and the agent's sum of it."""

from collections.abc import Iterator

from agent.core.alerts.series import INCIDENT_REASON, labels_of_group
from agent.core.reconnect import BreakerState
from agent.core.recovery.repair import Goal, RecoveryKind
from agent.core.statistics import RepairStatistics, since
from agent.core.view import (
    CRYPTO_RESULTS,
    REGENERATION_RESULTS,
    AgentStatus,
    CheckTime,
    InstanceView,
)
from agent.metrics.pieces import Piece, by_word, one_value, state_set
from agent.metrics.text import COUNTER, GAUGE, SUMMARY, Family, number, sample

NO_STEPS = (RecoveryKind.NONE, RecoveryKind.WAIT, RecoveryKind.GIVE_UP)
STEPS = tuple(kind.value for kind in RecoveryKind if kind not in NO_STEPS)
RESULTS = ("done", "failed")

_RATE = "wa_session_messages_per_minute"
_REPAIRS = "wa_session_repairs_total"
_SECONDS = "wa_session_repair_seconds"


def _rate(label: str, view: InstanceView) -> str:
    return "".join(
        f'{_RATE}{{{label},direction="{word}"}} {view.messages_per_minute.get(word, 0)}\n'
        for word in ("in", "out")
    )


def _repairs(label: str, view: InstanceView) -> str:
    """Each step and result from the first moment on, at zero."""
    return "".join(
        f'{_REPAIRS}{{{label},step="{step}",result="{result}"}}'
        f" {view.repair_steps.get((step, result), 0)}\n"
        for step in STEPS
        for result in RESULTS
    )


def _repair_seconds(label: str, view: InstanceView) -> str:
    steps = sum(view.repair_steps.values())
    return (
        f"{_SECONDS}_sum{{{label}}} {number(view.repair_seconds)}\n"
        f"{_SECONDS}_count{{{label}}} {steps}\n"
    )


_decryptions = by_word(
    "wa_session_crypto_operations_total",
    "result",
    CRYPTO_RESULTS,
    lambda view: view.crypto_operations,
    other=False,
)


def _crypto(label: str, view: InstanceView) -> str:
    """Nothing where the messages that could be read are not counted: 100 % would fail."""
    return _decryptions(label, view) if view.counts_messages else ""


CARE_FAMILIES: tuple[tuple[Family, Piece], ...] = (
    (Family(_RATE, GAUGE, "Messages of the last minute."), _rate),
    (
        Family("wa_session_memory_limit_bytes", GAUGE, "What the session may use; 0 = no limit."),
        one_value("wa_session_memory_limit_bytes", lambda view: view.memory_limit),
    ),
    (
        Family("wa_session_crypto_operations_total", COUNTER, "Decryptions by result."),
        _crypto,
    ),
    (
        Family("wa_session_key_regenerations_total", COUNTER, "Keys made anew, by result."),
        by_word(
            "wa_session_key_regenerations_total",
            "result",
            REGENERATION_RESULTS,
            lambda view: view.key_regenerations,
            other=False,
        ),
    ),
    (Family(_REPAIRS, COUNTER, "Steps of repairs by result."), _repairs),
    (Family(_SECONDS, SUMMARY, "How long steps of repairs took."), _repair_seconds),
    (
        Family("wa_session_cleanups_total", COUNTER, "Sessions begun afresh, by who wanted it."),
        by_word(
            "wa_session_cleanups_total",
            "kind",
            tuple(goal.value for goal in Goal),
            lambda view: view.cleanups,
            other=False,
        ),
    ),
    (
        Family("wa_session_circuit", GAUGE, "1 for the circuit's present state."),
        state_set(
            "wa_session_circuit",
            "state",
            ((state, state.value) for state in BreakerState),
            lambda view: view.circuit,
        ),
    ),
    (
        Family("wa_session_last_snapshot_timestamp_seconds", GAUGE, "When it was last copied."),
        one_value(
            "wa_session_last_snapshot_timestamp_seconds", lambda view: view.last_snapshot_wall
        ),
    ),
)


def care_samples(status: AgentStatus) -> Iterator[tuple[Family, str]]:
    name = "wa_agent_incident_active"
    yield (
        Family(name, GAUGE, "1 while many alike fail together and are held."),
        "".join(
            sample(name, int(members > 0), **labels_of_group(group))
            for group, members in sorted(status.incidents.items())
        ),
    )
    yield (
        Family(INCIDENT_REASON, GAUGE, "1 for what the members of an incident fail with."),
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
        sample(f"{name}_sum", one.seconds, check=check)
        + sample(f"{name}_count", one.count, check=check)
        for check, one in {"health": health, **status.checks}.items()
    )
    return Family(name, SUMMARY, "How long checks took."), text


def _statistics(found: RepairStatistics) -> Iterator[tuple[Family, str]]:
    name = "wa_agent_repairs_total"
    outcomes = {"repaired": found.repaired, "cleaned": found.cleaned, "failed": found.failed}
    yield (
        Family(name, COUNTER, "Repairs that ended, by outcome."),
        "".join(sample(name, count, outcome=word) for word, count in outcomes.items()),
    )
    name = "wa_agent_interventions_total"
    yield (
        Family(name, COUNTER, "Repairs that a person asked for, and that ended needing one."),
        "".join(sample(name, count, kind=kind) for kind, count in found.interventions.items()),
    )
    name = "wa_agent_repair_duration_seconds"
    yield (
        Family(name, SUMMARY, "From the beginning to the end of repairs that healed."),
        sample(f"{name}_sum", found.repair_seconds)
        + sample(f"{name}_count", found.repaired + found.cleaned),
    )
