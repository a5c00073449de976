"""Sessions and their keys: corrupted, logged out, keys that fail."""

from agent.core.alerts import series as s
from agent.core.alerts.alert import Alert, AlertPolicy, Group, Severity, Unit
from agent.core.alerts.expression import (
    Binary,
    Fold,
    OfSession,
)
from agent.core.alerts.table.terms import (
    MINUTE,
    OF_SESSION,
    above,
    for_itself,
    is_,
    rise,
    times,
)


def application(alerts: AlertPolicy) -> tuple[Alert, ...]:
    group = Group.APPLICATION
    failed = Binary(rise(s.CRYPTO_FAILED, 5 * MINUTE), "/", rise(s.CRYPTO_OPERATIONS, 5 * MINUTE))
    return (
        Alert(
            "WaSessionCorrupted",
            group,
            Severity.CRITICAL,
            10 * MINUTE,
            OfSession(is_(s.CORRUPTED)),
            "{session} is corrupted, and no repair has cured it{because}",
            because=OF_SESSION,
        ),
        Alert(
            "WaSessionsCorruptedTogether",
            group,
            Severity.CRITICAL,
            1 * MINUTE,
            Binary(Fold("sum", s.CORRUPTED), ">=", float(alerts.corrupted_together)),
            "{value} sessions are corrupted at once: look for one cause",
        ),
        Alert(
            "WaCryptoErrorRateHigh",
            group,
            Severity.WARNING,
            5 * MINUTE,
            OfSession(above(failed, alerts.crypto_error_rate)),
            "{session} cannot decrypt {value} of its messages",
            Unit.SHARE,
        ),
        Alert(
            "WaKeyRegenerationFailed",
            group,
            Severity.CRITICAL,
            0.0,
            OfSession(above(rise(s.REGENERATIONS_FAILED, 15 * MINUTE), 0.0)),
            "{session} could not make new keys with its contacts",
        ),
        Alert(
            "WaWatchdogRestarts",
            group,
            Severity.WARNING,
            0.0,
            OfSession(
                above(times(s.WATCHDOG_RESTARTS, 30 * MINUTE), float(alerts.watchdog_restarts))
            ),
            "the worker of {session} hung {value} times in half an hour",
        ),
        Alert(
            "WaCircuitOpen",
            group,
            Severity.WARNING,
            5 * MINUTE,
            OfSession(for_itself(is_(s.CIRCUIT_OPEN))),
            "the circuit of {session} is open after failures in a row{because}",
            because=OF_SESSION,
        ),
    )
