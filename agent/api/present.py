"""Makes answers: JSON, one envelope for all errors, the same headers, and the agent's views."""

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from http import HTTPStatus
from operator import attrgetter
from typing import Any

from aiohttp import web

from agent.clock import boot_now
from agent.core import admission, model, reasons
from agent.core.recovery.repair import Ending, Repair, Stage
from agent.core.session import WAIT_SENTENCES, BackendView, Session, wall_text
from agent.store.rows import KeyRow

HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Server": "wa-agent",
}


_JSON = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=dict)
"""`default`: a Mapping that is no dict."""


def json_answer(content: Any, status: int = 200) -> web.Response:
    body = _JSON.encode(content).encode() + b"\n"
    return web.Response(body=body, status=status, content_type="application/json")


_ALSO = {401: {"WWW-Authenticate": 'Bearer realm="wa-agent"'}, 503: {"Retry-After": "1"}}
"""Headers of a refusal, by its status."""
_LIBRARY = {
    404: ("unknown_route", "cannot find this address; /openapi.json lists all routes"),
    405: ("method_not_allowed", "cannot use this method here; the Allow header names the others"),
    413: ("too_large", "cannot read the body: it is too large"),
    417: ("invalid_request", "cannot meet what the Expect header asks for; leave it out"),
    431: ("invalid_request", "cannot read the request: its address or a header is too long"),
    400: (
        "invalid_request",
        "cannot read the request: it is no valid HTTP with at most 64 headers, or no WebSocket",
    ),
}


def refusal(
    status: int, code: str, message: str, request_id: str, field: str | None = None
) -> web.Response:
    """Return an error in the envelope of all errors."""
    body = {"error": code, "message": message, "field": field, "request": request_id}
    answer = json_answer(body, status)
    answer.headers.update(_ALSO.get(status, {}))
    return answer


def library_refusal(status: int, request_id: str = "") -> web.Response:
    """Return an error of the HTTP library in the same envelope."""
    phrase = f"cannot answer: {HTTPStatus(status).phrase.lower()}"
    code, words = _LIBRARY.get(status, ("internal" if status >= 500 else "invalid_request", phrase))
    return refusal(status, code, words, request_id or secrets.token_hex(8))


# The views.


Get = Callable[[Any], Any]


@cache
def _read(fields: str) -> tuple[tuple[str, Get, bool], ...]:
    rows: list[tuple[str, Get, bool]] = []
    for word in fields.split():
        name, _, place = word.rpartition("=")
        plain, get = place.removesuffix("_wall"), attrgetter(place)
        rows.append((name or plain.rpartition(".")[2], get, plain != place))
    return tuple(rows)


def part(of: object, fields: str) -> dict[str, Any]:
    """Fields as JSON, each by the last word of its place. `shown=its.place` gives one another name;
    a `…_wall` is written as text, under the name without that ending."""
    return {name: wall_text(get(of)) if wall else get(of) for name, get, wall in _read(fields)}


_VERDICT = "healthy verdict=health state reason sentence shouldCleanup=should_cleanup"
_INSTANCE = """
    instance.id instance.engine instance.enabled override should_run connection_status=status
    since=record.status_since_wall reason verdict.sentence attempts next_attempt_wall circuit
    circuit_opens_wall turns_before proved_wall record.paired record.account record.needs_passkey
    snapshot_failure worker=unit.state run.memory_bytes
"""
_UNIT = "state run main_pid result exit_status status_text masked host_restarts=restarts"
_DETAILS = """
    instance.settings instance.created_wall linked enabled_by_operator proof_age_seconds=proof_age
    connected_since_wall run.cpu_seconds run.processes run.open_fds verdict.guess
    counted_since=counters.since_wall counters.messages counters.errors messages_per_minute
    crypto_operations crypto_errors_lately=crypto_lately memory_limit_bytes=memory_limit
    last_snapshot_wall observed=at_wall
"""


def show_verdict(verdict: model.HealthVerdict) -> dict[str, Any]:
    return part(verdict, _VERDICT)


def show_instance(view: Session) -> dict[str, Any]:
    instance, counts = view.instance, view.counters.by_word
    return {
        **part(view, _INSTANCE),
        "backend": instance.backend or None,
        "remote": instance.remote if instance.backend else None,
        **shown_wait(view),
        "health": show_verdict(view.verdict),
        "uptime_seconds": None if view.connected_since_wall is None else view.uptime,
        "restarts": sum(counts["restarts"].values()),
        "reconnects": sum(counts["reconnects"].values()),
    }


def show_details(view: Session) -> dict[str, Any]:
    claim, ends = (view.claim.claim, view.claim.deadline) if view.claim else (None, None)
    started = view.wall(view.unit.since) if view.unit.runs else None
    by_word = {"reconnects": "reconnects_by_reason", "restarts": "restarts_by_reason"}
    times = view.status_time.totals(view.at).items()
    return {
        **show_instance(view),
        **part(view, _DETAILS),
        "unit": {**part(view.unit, _UNIT), "started": wall_text(started)},
        "claim": claim and asdict(claim),
        "phase_ends": wall_text(ends and view.wall(ends)),
        "probe": view.run.probe and part(view.run.probe, "ok seconds failures error"),
        **{by_word.get(name, name): counts for name, counts in view.counters.by_word.items()},
        "status_seconds": {status: round(seconds, 3) for status, seconds in times},
        "repair": view.repair and show_repair(view.repair),
        "pairing_kept": _kept(view),
        "repair_steps": [
            {"step": step, "result": result, "count": count}
            for (step, result), count in sorted(view.counters.repair_steps.items())
        ],
    }


def _kept(view: Session) -> str:
    """Return why the repair keeps the pairing, and what to type; "" = no repair says anything."""
    repair, kept = view.repair, view.kept
    if kept is None or repair is None or view.verdict.healthy:
        return ""
    return kept.sentence if repair.ending in (Ending.NOT_YET, Ending.GAVE_UP) else ""


def show_repair(repair: Repair) -> dict[str, Any]:
    waits = repair.stage is Stage.DUE and not repair.over
    fields = "goal trouble reason step tries round stage started_wall backup ending ended_wall"
    not_before = wall_text(repair.not_before_wall) if waits else None
    return {**part(repair, fields), "not_before": not_before}


def show_reconnection(view: Session) -> dict[str, Any]:
    tries = "connection_status=status attempts next_attempt_wall circuit circuit_opens_wall"
    return part(view, f"{tries} reason verdict.sentence should_run") | shown_wait(view)


def show_backend(view: BackendView) -> dict[str, Any]:
    said = "name engine url sentence warning held connected circuit=breaker since_wall checked_wall"
    check = "claim.up claim.reason claim.version answer_seconds=claim.seconds claim.sessions"
    return part(view, f"{said} {check} next_check_wall")


def show_incident(incident: admission.Incident) -> dict[str, Any]:
    shown = part(incident, "group kind code sentence members canary tries")
    return {**shown, "since": wall_text(time.time() - (boot_now() - incident.since))}


def show_key(row: KeyRow, used_wall: float | None) -> dict[str, Any]:
    """Return a key as JSON. `used_wall`: None = not used since the agent's start."""
    return {**part(row, "id name scopes created_wall"), "last_used": wall_text(used_wall)}


def shown_wait(session: Session) -> dict[str, str]:
    """Return why a session waits, as JSON: only if it would be tried otherwise."""
    reason, verdict = session.wait.reason, session.verdict
    ended = reasons.reason_of(verdict.reason)
    idle = verdict.health in (model.Health.HEALTHY, model.Health.DISCONNECTED)
    # disabled, stopped: a start was ordered, and no pass has run since
    waits = verdict.reason in (reason, "disabled", "stopped")
    if not session.should_run or not (waits or not (idle or ended.hopeless or ended.slow)):
        reason = ""
    sentence = session.wait.sentence or WAIT_SENTENCES.get(reason, reason)
    return {"wait_reason": reason, "wait_sentence": sentence}
