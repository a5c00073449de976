"""Slow answers, errors and memory of sessions."""

from agent.core.alerts import series as s
from agent.core.alerts.alert import Alert, AlertPolicy, Group, Severity, Unit
from agent.core.alerts.expression import Binary, Fold, OfSession, While
from agent.core.alerts.reading import Over
from agent.core.alerts.source import Expression
from agent.core.alerts.table.terms import (
    MINUTE,
    above,
    for_itself,
    is_,
    rise,
    unconnected,
)
from agent.core.findings.memory import MemoryPolicy

MIB = 1 << 20


def performance(alerts: AlertPolicy, memory: MemoryPolicy) -> tuple[Alert, ...]:
    group = Group.PERFORMANCE
    mean = Binary(rise(s.ANSWER_SECONDS, 5 * MINUTE), "/", rise(s.ANSWERS, 5 * MINUTE))
    # A session that is down while others are connected has an alert of its own.
    down = While(unconnected(), Fold("count", is_(s.CONNECTED)))
    failed = Fold("sum", Binary(rise(s.ERRORS, 5 * MINUTE), "unless", down))
    done = Binary(
        Fold("sum", rise(s.ANSWERS, 5 * MINUTE)), "+", Fold("sum", rise(s.MESSAGES, 5 * MINUTE))
    )
    # Failed operations count as tried: where all is down no others happen.
    errors = Binary(failed, "/", Binary(done, "+", failed))
    requests = Binary(rise(s.REQUESTS_FAILED, 5 * MINUTE), "/", rise(s.REQUESTS, 5 * MINUTE))
    share = Binary(s.MEMORY, "/", above(s.MEMORY_LIMIT, 0.0))
    return (
        Alert(
            "WaSessionResponseSlow",
            group,
            Severity.WARNING,
            5 * MINUTE,
            OfSession(for_itself(above(mean, alerts.response_time))),
            "{session} takes {value} to answer",
            Unit.SECONDS,
        ),
        Alert(
            "WaErrorRateHigh",
            group,
            Severity.CRITICAL,
            5 * MINUTE,
            Binary(above(errors, alerts.error_rate), "or", above(requests, alerts.error_rate)),
            "{value} of the operations or HTTP requests fail",
            Unit.SHARE,
        ),
        Alert(
            "WaSessionMemoryHigh",
            group,
            Severity.WARNING,
            5 * MINUTE,
            OfSession(above(share, memory.warn)),
            "{session} uses {value} of the memory it may have",
            Unit.SHARE,
        ),
        Alert(
            "WaSessionMemoryCritical",
            group,
            Severity.CRITICAL,
            1 * MINUTE,
            OfSession(above(share, memory.critical)),
            "{session} uses {value} of the memory it may have",
            Unit.SHARE,
        ),
        Alert(
            "WaSessionMemoryLeak",
            group,
            Severity.WARNING,
            0.0,
            OfSession(_leak()),
            "the memory of {session} grew by {value}B within the hour and goes on growing",
            Unit.BYTES,
        ),
    )


def _leak() -> Expression:
    """As the memory check judges: the lowest value grew in each quarter of an hour."""
    quarter = 15 * MINUTE
    oldest, older, newer, newest = (
        Over("min_over_time", s.MEMORY, quarter, offset) for offset in (2700.0, 1800.0, 900.0, 0.0)
    )
    growth = Binary(newest, "-", oldest)
    enough = Binary(
        Binary(growth, ">", 8.0 * MIB - 1), "and", Binary(Binary(growth, "/", oldest), ">=", 0.1)
    )
    # At rest: the last quarter adds little of what even growth would.
    goes_on = Binary(Binary(Binary(newest, "-", newer), "/", growth), ">=", 0.4 / 3)
    grows = Binary(Binary(newer, ">", older), "and", Binary(older, ">", oldest))
    return Binary(Binary(enough, "and", goes_on), "and", grows)
