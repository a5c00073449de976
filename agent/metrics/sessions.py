"""The metrics of sessions, a row each."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat

from agent.core.breaker import BreakerState
from agent.core.figures import COUNTS
from agent.core.findings.crypto_patterns import OF_KEYS
from agent.core.health.wanted import is_wanted
from agent.core.model import ConnectionStatus, Health
from agent.core.reasons import reason_of, reasons_table
from agent.core.recovery.repair import RecoveryKind
from agent.core.session import Session
from agent.metrics.family import Family, Row, Summary

_REGAINED = tuple(code for code, *_ in reasons_table() if not reason_of(code).hopeless)
_ERRORS = (*(row[0] for row in reasons_table()), *OF_KEYS)
_SENT = {"sent": "out", "acknowledged": "ack", "failed": "failed"}
_NO_STEPS = (RecoveryKind.NONE, RecoveryKind.WAIT, RecoveryKind.GIVE_UP)
_STEPS = [kind.value for kind in RecoveryKind if kind not in _NO_STEPS]

Rows = Iterable[Row]
Read = Callable[[Session], Rows]


def _one(read: Callable[[Session], float | Summary | None]) -> Read:
    def rows(view: Session) -> Rows:
        value = read(view)
        return () if value is None else (({}, value),)

    return rows


def _state(label: str, words: Iterable[str], read: Callable[[Session], str]) -> Read:
    """1 for the present state, 0 for each other one."""
    shown = tuple(words)
    return lambda view: [({label: word.lower()}, int(word == read(view))) for word in shown]


def _counted(label: str, words: Sequence[str], counts: Mapping[str, int]) -> Rows:
    """A row for each word, from the start on: else increase() would miss the first failure."""
    return [({label: word}, counts.get(word, 0)) for word in words]


def _and_others(label: str, words: Sequence[str], counts: Mapping[str, int]) -> Rows:
    """Words that are not in the list are counted together."""
    yield from _counted(label, words, counts)
    yield {label: "other"}, sum(counts.values()) - sum(map(counts.get, words, repeat(0)))


def _errors(view: Session) -> Rows:
    return _and_others("kind", _ERRORS, view.counters.errors)


def _reconnects(view: Session) -> Rows:
    return _and_others("reason", _REGAINED, view.counters.by_word["reconnects"])


def _restarts(view: Session) -> Rows:
    return _counted("reason", COUNTS["restarts"], view.counters.by_word["restarts"])


def _info(view: Session) -> Rows:
    backend, version = view.instance.backend, view.engine_version
    labels = {"engine": view.instance.engine, "backend": backend, "engine_version": version}
    return [({key: text for key, text in labels.items() if text}, 1)]


def _messages(view: Session) -> Rows:
    yield {"direction": "in", "result": "received"}, view.counters.messages.get("in", 0)
    for result, word in _SENT.items():
        yield {"direction": "out", "result": result}, view.counters.messages.get(word, 0)


def _repairs(view: Session) -> Rows:
    steps = view.counters.repair_steps
    for step in _STEPS:
        for result in ("done", "failed"):
            yield {"step": step, "result": result}, steps[step, result]


def _crypto(view: Session) -> Rows:
    """Left out where read messages are not counted: the rate of failures would be 100 %."""
    return [({"result": result}, count) for result, count in view.crypto_operations.items()]


def _response_time(view: Session) -> Summary:
    return Summary(view.counters.probe_seconds, view.counters.probes)


FAMILIES: Mapping[str, tuple[str, Read]] = {
    "info": ("Engine, backend and their versions; always 1.", _info),
    "wanted": ("1 when it is enabled and not stopped by hand.", _one(is_wanted)),
    "status": ("1 for its present status.", _state("status", ConnectionStatus, lambda v: v.status)),
    "verdict": ("1 for its verdict.", _state("verdict", Health, lambda v: v.verdict.health)),
    "proof_timestamp_seconds": ("When the status was last proved.", _one(lambda v: v.proved_wall)),
    "circuit": ("1 for its breaker's state.", _state("state", BreakerState, lambda v: v.circuit)),
    "messages_total": ("Messages by direction and result.", _messages),
    "response_time_seconds": ("Answer times of the answered probes.", _one(_response_time)),
    "errors_total": ("Lost connections and errors by kind.", _errors),
    "memory_bytes": ("Memory of its processes.", _one(lambda v: v.run.memory_bytes)),
    "memory_limit_bytes": ("What it may use; 0 = no limit.", _one(lambda v: v.memory_limit)),
    "cpu_seconds_total": ("CPU time of its processes.", _one(lambda v: v.run.cpu_seconds)),
    "crypto_operations_total": ("Decryptions of messages by result.", _crypto),
    "repairs_total": ("Steps of repairs by result.", _repairs),
    "reconnects_total": ("Connections regained, by the reason of the loss.", _reconnects),
    "restarts_total": ("Restarts of the worker by cause.", _restarts),
}
"""By name without `wa_session_`."""


def session_families(views: Sequence[Session], wall: float, boot: float) -> Iterator[Family]:
    def uptime(view: Session) -> float:
        # A clock that was set back shows nothing that shrinks.
        since = view.connected_since_wall
        return 0 if since is None else round(max(wall - since, 0))

    def in_status(view: Session) -> Rows:
        totals = view.status_time.totals(boot)
        return [({"status": it.lower()}, totals.get(it, 0.0)) for it in ConnectionStatus]

    growing = {
        "uptime_seconds": ("Duration of the connection; 0 without one.", _one(uptime)),
        "status_seconds_total": ("Time spent in each status.", in_status),
    }
    for name, (meaning, read) in {**FAMILIES, **growing}.items():
        yield Family(f"wa_session_{name}", meaning, _rows(views, read))


def _rows(views: Sequence[Session], read: Read) -> Rows:
    for view in views:
        for labels, value in read(view):
            yield {"session": view.instance.id, **labels}, value
