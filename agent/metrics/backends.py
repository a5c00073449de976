"""Backends: whether their servers answer, how fast, and their sessions."""

from collections.abc import Callable, Iterable, Iterator

from agent.core.breaker import BreakerState
from agent.core.view import BackendView
from agent.metrics.text import GAUGE, Family, sample

_Samples = Iterable[tuple[dict[str, str], float]]
"""Labels besides the backend's name, and a value."""
_Row = tuple[Family, Callable[[BackendView], _Samples]]


def _figure(
    name: str, meaning: str, read: Callable[[BackendView], float | None], type: str = GAUGE
) -> _Row:
    def samples(view: BackendView) -> _Samples:
        value = read(view)
        return [] if value is None else [({}, value)]

    return Family(name, type, meaning), samples


def _reason(view: BackendView) -> _Samples:
    return [({"reason": view.reason}, 1)] if view.reason and not view.up else []


def _sessions(view: BackendView) -> _Samples:
    counts = {"held": view.held, "connected": view.connected, "seen": view.sessions}
    return [({"state": state}, count) for state, count in counts.items() if count is not None]


def _circuit(view: BackendView) -> _Samples:
    return [({"state": state.value}, int(view.breaker == state)) for state in BreakerState]


FAMILIES: tuple[_Row, ...] = (
    _figure(
        "wa_backend_up", "1 while the server of the backend answers.", lambda view: int(view.up)
    ),
    _figure(
        "wa_backend_warning",
        "1 while it is up and its logs are unreadable or name no session.",
        lambda view: int(bool(view.warning)),
    ),
    (Family("wa_backend_reason", GAUGE, "1 for the reason that it is not up."), _reason),
    (
        Family("wa_backend_info", GAUGE, "Engine and version of the backend; always 1."),
        lambda view: [({"engine": view.engine, "version": view.version}, 1)],
    ),
    (
        Family("wa_backend_sessions", GAUGE, "Sessions by state: held, connected, seen."),
        _sessions,
    ),
    _figure(
        "wa_backend_entered_timestamp_seconds",
        "When it last went up or down.",
        lambda view: view.since_wall or None,
    ),
    _figure(
        "wa_backend_checked_timestamp_seconds",
        "Time of the last check.",
        lambda view: view.checked_wall,
    ),
    _figure(
        "wa_backend_next_check_timestamp_seconds",
        "Time of the next check.",
        lambda view: view.next_check_wall,
    ),
    _figure(
        "wa_backend_check_duration_seconds",
        "Duration of the last check.",
        lambda view: None if view.checked_wall is None else view.seconds,
    ),
    (Family("wa_backend_circuit", GAUGE, "1 for the state of the circuit breaker."), _circuit),
)


def backend_samples(backends: Iterable[BackendView]) -> Iterator[tuple[Family, str]]:
    views = sorted(backends, key=lambda view: view.name)
    for family, samples in FAMILIES:
        yield (
            family,
            "".join(
                sample(family.name, value, backend=view.name, **labels)
                for view in views
                for labels, value in samples(view)
            ),
        )
