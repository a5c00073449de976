"""Backends: whether their servers answer, how fast, and their sessions."""

from collections.abc import Iterable, Iterator

from agent.core.alerts.series import BACKEND_REASON
from agent.core.breaker import BreakerState
from agent.core.view import BackendView
from agent.metrics.text import COUNTER, GAUGE, Family, sample

_UP = Family("wa_backend_up", GAUGE, "1 while the server of the backend answers.")
_WARNING = Family(
    "wa_backend_warning", GAUGE, "1 while it is up and its logs are unreadable or name no session."
)
_REASON = Family(BACKEND_REASON, GAUGE, "1 for the reason that it is not up.")
_INFO = Family("wa_backend_info", GAUGE, "Engine and version of the backend; always 1.")
_SESSIONS = Family("wa_backend_sessions", GAUGE, "Sessions by state: held, connected, seen.")
_ENTERED = Family("wa_backend_entered_timestamp_seconds", GAUGE, "When it last went up or down.")
_CHECKED = Family("wa_backend_checked_timestamp_seconds", GAUGE, "Time of the last check.")
_NEXT = Family("wa_backend_next_check_timestamp_seconds", GAUGE, "Time of the next check.")
_HOOKS = Family("wa_backend_hooks_total", COUNTER, "Events that its server posted to the agent.")
_SECONDS = Family("wa_backend_check_duration_seconds", GAUGE, "Duration of the last check.")
_CIRCUIT = Family("wa_backend_circuit", GAUGE, "1 for the state of the circuit breaker.")


def backend_samples(backends: Iterable[BackendView]) -> Iterator[tuple[Family, str]]:
    every = sorted(backends, key=lambda one: one.name)
    yield _UP, _lines(_UP, ((one, {}, int(one.up)) for one in every))
    yield _WARNING, _lines(_WARNING, ((one, {}, int(bool(one.warning))) for one in every))
    down = [one for one in every if one.reason and not one.up]
    yield _REASON, _lines(_REASON, ((one, {"reason": one.reason}, 1) for one in down))
    yield _INFO, _lines(_INFO, ((one, _what(one), 1) for one in every))
    yield _SESSIONS, _lines(_SESSIONS, (row for one in every for row in _counted(one)))
    yield _ENTERED, _lines(_ENTERED, ((one, {}, one.since_wall) for one in every if one.since_wall))
    asked = [one for one in every if one.checked_wall is not None]
    yield _CHECKED, _lines(_CHECKED, ((one, {}, one.checked_wall or 0.0) for one in asked))
    planned = [one for one in every if one.next_check_wall is not None]
    yield _NEXT, _lines(_NEXT, ((one, {}, one.next_check_wall or 0.0) for one in planned))
    yield _HOOKS, _lines(_HOOKS, ((one, {}, one.hooks) for one in every))
    yield _SECONDS, _lines(_SECONDS, ((one, {}, one.seconds) for one in asked))
    yield (
        _CIRCUIT,
        _lines(
            _CIRCUIT,
            (
                (one, {"state": state.value}, int(one.breaker == state))
                for one in every
                for state in BreakerState
            ),
        ),
    )


_Row = tuple[BackendView, dict[str, str], float]


def _lines(family: Family, rows: Iterable[_Row]) -> str:
    return "".join(
        sample(family.name, value, backend=one.name, **labels) for one, labels, value in rows
    )


def _what(one: BackendView) -> dict[str, str]:
    return {"engine": one.engine, "version": one.version}


def _counted(one: BackendView) -> Iterator[_Row]:
    yield one, {"state": "held"}, one.held
    yield one, {"state": "connected"}, one.connected
    if one.sessions is not None:
        yield one, {"state": "seen"}, one.sessions
