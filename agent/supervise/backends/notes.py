"""What the log and the journal say of a backend: its outages, warnings and its circuit."""

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from agent.core.breaker import BreakerPolicy, BreakerState
from agent.core.model import Category, InstanceId, JournalEntry
from agent.supervise.backends.circuit import Circuit, Noted
from agent.supervise.backends.facts import BackendFacts

log = logging.getLogger(__name__)

CIRCUITS = ("circuit_open", "circuit_closed")
"""Kinds of journal entries about a backend's circuit."""
_COUNTS = re.compile(r"[0-9]+")

Note = Callable[[JournalEntry], Noted]


class Say(Protocol):
    def __call__(
        self, backend: BackendFacts, kind: str, sentence: str, *, bad: bool = False, **more: str
    ) -> Noted: ...


def say_by(note: Note) -> Say:

    def say(
        backend: BackendFacts, kind: str, sentence: str, *, bad: bool = False, **more: str
    ) -> Noted:
        sentence = f"backend {backend.name}: {sentence}"
        log.log(logging.WARNING if bad else logging.INFO, "%s", sentence)
        detail = {"backend": backend.name, **more}
        return note(JournalEntry(kind, sentence, Category.HEALTH, None, time.time(), detail))

    return say


def note_cause(backend: BackendFacts, say: Say) -> None:
    """Note why it is away, once for each cause: also where it was away before the agent began."""
    cause = backend.reason
    if cause == backend.cause or (backend.server is None and not backend.unread):
        return
    backend.cause = cause
    if cause:
        waiting = f"; {len(backend.away)} sessions wait for it" if backend.away else ""
        say(backend, "backend_down", f"it is down: {backend.sentence}{waiting}", bad=True)


def note_warning(backend: BackendFacts, say: Say) -> None:
    """Note a warning when it begins and when its kind changes, not for each further error."""
    before, warning = backend.warned, backend.warning
    backend.warned = warning
    if _COUNTS.sub("#", warning) == _COUNTS.sub("#", before):
        return
    if warning:
        say(backend, "backend_warning", warning, bad=True)
    elif backend.up:
        say(backend, "backend_warning_over", f"its last warning is over: {before}")


def noted_circuit(
    backend: Callable[[], BackendFacts],
    policy: Callable[[], BreakerPolicy],
    by_check: Callable[[], bool],
    say: Say,
    changed: Callable[[BackendFacts], None],
) -> Circuit:
    """A circuit that is noted when it opens and closes, before `changed` is called."""

    def note(state: BreakerState) -> None:
        its = backend()
        if state is BreakerState.OPEN:
            sentence = f"{its.circuit.sentence}: its sessions wait"
            by = "checks" if its.circuit.by_checks else "calls"
            its.circuit.noted = say(its, "circuit_open", sentence, bad=True, by=by)
        elif state is BreakerState.CLOSED:
            its.circuit.noted = say(its, "circuit_closed", "its circuit is closed again")
        changed(its)

    return Circuit(policy, by_check, note)


def take_over_circuits(
    backends: Mapping[str, BackendFacts], history: Iterable[JournalEntry]
) -> None:
    """Open the circuits that were open when the last agent ended; `history`: newest first."""
    newest: dict[object, JournalEntry] = {}
    for entry in history:
        newest.setdefault(entry.detail.get("backend"), entry)
    for name, entry in newest.items():
        backend = backends.get(InstanceId(str(name)))
        if backend is not None and entry.kind == "circuit_open":
            by_checks = entry.detail.get("by") == "checks"
            backend.circuit.take_over(time.time() - entry.wall, by_checks=by_checks)
