"""Answers: JSON, one envelope for all errors, the same headers; and the agent's views in them."""

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from aiohttp import web

from agent.clock import boot_now
from agent.core.incidents import Incident
from agent.core.model import Health, HealthVerdict
from agent.core.reasons import reason_of
from agent.core.recovery.repair import Ending, Repair, Stage
from agent.core.session import WAIT_SENTENCES, BackendView, Session, wall_text
from agent.store.rows import KeyRow

HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Server": "wa-agent",
}


def json_answer(content: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=json.dumps(content, separators=(",", ":"), allow_nan=False).encode() + b"\n",
        status=status,
        content_type="application/json",
    )


_ALSO = {401: {"WWW-Authenticate": 'Bearer realm="wa-agent"'}, 503: {"Retry-After": "1"}}
"""Headers of a refusal, by its status."""
_LIBRARY = {
    404: ("unknown_route", "cannot find this address; /openapi.json lists all routes"),
    405: ("method_not_allowed", "cannot use this method here"),
    413: ("too_large", "cannot read the body: it is too large"),
    417: ("invalid_request", "cannot meet what the Expect header asks for"),
}


def refusal(
    status: int, code: str, message: str, request_id: str, field: str | None = None
) -> web.Response:
    """The envelope of all errors."""
    body = {"error": code, "message": message, "field": field, "request": request_id}
    answer = json_answer(body, status)
    answer.headers.update(_ALSO.get(status, {}))
    return answer


def library_refusal(status: int, request_id: str = "") -> web.Response:
    """The same for an error of the HTTP library."""
    other = "internal" if status >= 500 else "invalid_request"
    phrase = f"cannot answer: {HTTPStatus(status).phrase.lower()}"
    code, words = _LIBRARY.get(status, (other, phrase))
    return refusal(status, code, words, request_id or secrets.token_hex(8))


# The views.


def part(of: object, *fields: str) -> dict[str, Any]:
    """Fields of a part as JSON. `shown=field` gives one another name; a `…_wall` is written as
    text, under the name without that ending."""
    shown: dict[str, Any] = {}
    for name in fields:
        name, _, field = name.partition("=")
        value = getattr(of, field or name)
        if (field or name).endswith("_wall"):
            name, value = name.removesuffix("_wall"), wall_text(value)
        shown[name] = dict(value) if isinstance(value, Mapping) else value
    return shown


def show_verdict(verdict: HealthVerdict) -> dict[str, Any]:
    return {
        "healthy": verdict.healthy,
        "verdict": verdict.health.value,
        "state": verdict.state.value,
        "reason": verdict.reason,
        "sentence": verdict.sentence,
        "shouldCleanup": verdict.should_cleanup,
    }


def show_instance(view: Session) -> dict[str, Any]:
    """Field by field: a page has a thousand of them."""
    return {
        "id": view.instance.id,
        "engine": view.instance.engine,
        "backend": view.instance.backend or None,
        "remote": view.instance.remote if view.instance.backend else None,
        "enabled": view.instance.enabled,
        "override": view.override.value,
        "should_run": view.should_run,
        "connection_status": view.status.value,
        "since": wall_text(view.record.status_since_wall),
        "reason": view.reason,
        "sentence": view.verdict.sentence,
        "attempts": view.attempts,
        "next_attempt": wall_text(view.next_attempt_wall),
        "circuit": view.circuit,
        "circuit_opens": wall_text(view.circuit_opens_wall),
        **shown_wait(view),
        "turns_before": view.turns_before,
        "proved": wall_text(view.proved_wall),
        "health": show_verdict(view.verdict),
        "paired": view.record.paired,
        "account": view.record.account,
        "needs_passkey": view.record.needs_passkey,
        "snapshot_failure": view.snapshot_failure,
        "worker": view.unit.state.value,
        "uptime_seconds": None if view.connected_since_wall is None else view.uptime,
        "memory_bytes": view.run.memory_bytes,
        "restarts": sum(view.counters.by_word["restarts"].values()),
        "reconnects": sum(view.counters.by_word["reconnects"].values()),
    }


def show_details(view: Session) -> dict[str, Any]:
    claim = view.claim.claim if view.claim else None
    started = view.wall(view.unit.since) if view.unit.runs else None
    unit = ("state", "run", "main_pid", "result", "exit_status", "status_text", "masked")
    by_word = {"reconnects": "reconnects_by_reason", "restarts": "restarts_by_reason"}
    return {
        **show_instance(view),
        "settings": dict(view.instance.settings),
        "created": wall_text(view.instance.created_wall),
        "unit": {**part(view.unit, *unit, "host_restarts=restarts"), "started": wall_text(started)},
        **part(view, "linked", "enabled_by_operator"),
        "claim": claim and asdict(claim),
        "proof_age_seconds": view.proof_age,
        "probe": view.run.probe and part(view.run.probe, "ok", "seconds", "failures", "error"),
        **part(view, "connected_since_wall"),
        **part(view.run, "cpu_seconds", "processes", "open_fds"),
        **{by_word.get(name, name): dict(its) for name, its in view.counters.by_word.items()},
        **part(view.counters, "counted_since_wall=since_wall", "messages", "errors"),
        "status_seconds": {
            status.value: round(seconds, 3)
            for status, seconds in view.status_time.totals(view.at).items()
        },
        "guess": view.verdict.guess,
        "repair": view.repair and show_repair(view.repair),
        "pairing_kept": _kept(view),
        **part(view, "crypto_operations", "crypto_errors_lately=crypto_lately"),
        "repair_steps": [
            {"step": step, "result": result, "count": count}
            for (step, result), count in sorted(view.counters.repair_steps.items())
        ],
        **part(
            view, "memory_limit_bytes=memory_limit", "messages_per_minute", "last_snapshot_wall"
        ),
        "observed": wall_text(view.at_wall),
    }


def _kept(view: Session) -> str:
    """Why its repair keeps the pairing, and what to type; "" = no repair has anything to say."""
    repair, kept = view.repair, view.kept
    if kept is None or repair is None or view.verdict.healthy:
        return ""
    return kept.sentence if repair.ending in (Ending.NOT_YET, Ending.GAVE_UP) else ""


def show_repair(repair: Repair) -> dict[str, Any]:
    waits = repair.stage is Stage.DUE and not repair.over
    names = ("goal", "trouble", "reason", "step", "tries", "round", "stage", "started_wall")
    shown = part(repair, *names, "backup", "ending", "ended_wall")
    return {**shown, "not_before": wall_text(repair.not_before_wall) if waits else None}


def show_reconnection(view: Session) -> dict[str, Any]:
    names = ("connection_status", "attempts", "next_attempt", "circuit", "circuit_opens", "reason")
    shown = show_instance(view)
    return {name: shown[name] for name in (*names, "sentence", "should_run", *shown_wait(view))}


def show_backend(view: BackendView) -> dict[str, Any]:
    said = ("name", "engine", "url", "sentence", "warning", "held", "connected", "circuit=breaker")
    its = part(view.claim, "up", "reason", "version", "answer_seconds=seconds", "sessions")
    return part(view, *said, "since_wall", "checked_wall", "next_check_wall") | its


def show_incident(incident: Incident) -> dict[str, Any]:
    ago = boot_now() - incident.since
    names = ("group", "kind", "code", "sentence", "members", "canary", "tries")
    return {**part(incident, *names), "since": wall_text(time.time() - ago)}


def show_key(row: KeyRow, used_wall: float | None) -> dict[str, Any]:
    """`used_wall`: None = not since the agent started."""
    shown = part(row, "id", "name", "scopes", "created_wall")
    return {**shown, "last_used": wall_text(used_wall)}


def shown_wait(session: Session) -> dict[str, str]:
    """How the API says why a session waits: only where it would be tried otherwise."""
    reason, verdict = session.wait.reason, session.verdict
    ended = reason_of(verdict.reason)
    idle = verdict.health in (Health.HEALTHY, Health.DISCONNECTED)
    # disabled, stopped: a start was ordered, and no pass has run since
    waits = verdict.reason in (reason, "disabled", "stopped")
    if not session.should_run or not (waits or not (idle or ended.hopeless or ended.slow)):
        reason = ""
    sentence = session.wait.sentence or WAIT_SENTENCES.get(reason, reason)
    return {"wait_reason": reason, "wait_sentence": sentence}
