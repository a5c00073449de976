"""Turns the agent's pictures into the JSON that the interface shows."""

import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from agent.api.face import Trashed
from agent.core.model import HealthVerdict, JournalEntry
from agent.core.view import AgentStatus, InstanceView
from agent.store.keys import KeyRow


def wall_text(wall: float | None) -> str | None:
    """RFC 3339 in UTC with milliseconds; None and 0 (never) give None."""
    if not wall:
        return None
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def show_verdict(verdict: HealthVerdict) -> dict[str, Any]:
    return {
        "healthy": verdict.healthy,
        "verdict": verdict.health.value,
        "state": verdict.state.value,
        "reason": verdict.reason,
        "sentence": verdict.sentence,
        "shouldCleanup": verdict.should_cleanup,
    }


def show_instance(view: InstanceView, now_wall: float | None = None) -> dict[str, Any]:
    now_wall = time.time() if now_wall is None else now_wall
    connected = view.connected_since_wall
    return {
        "id": view.instance.id,
        "engine": view.instance.engine,
        "enabled": view.instance.enabled,
        "override": view.desired.override.value,
        "should_run": view.desired.should_run,
        "connection_status": view.status.value,
        "since": wall_text(view.status_since_wall),
        "reason": view.reason,
        "sentence": view.sentence,
        "attempts": view.record.attempts,
        "next_attempt": wall_text(view.next_attempt_wall),
        "health": show_verdict(view.verdict),
        "paired": view.record.paired,
        "account": view.record.account,
        "worker": view.unit.state.value,
        "uptime_seconds": None if connected is None else max(0, round(now_wall - connected)),
        "memory_bytes": view.memory_bytes,
        "restarts": sum(view.restarts.values()),
        "reconnects": sum(view.reconnects.values()),
    }


def show_details(view: InstanceView) -> dict[str, Any]:
    claim = view.claim.claim if view.claim else None
    return {
        **show_instance(view),
        "settings": dict(view.instance.settings),
        "created": wall_text(view.instance.created_wall),
        "unit": {
            "state": view.unit.state.value,
            "run": view.unit.run,
            "main_pid": view.unit.main_pid,
            "result": view.unit.result,
            "exit_status": view.unit.exit_status,
            "status_text": view.unit.status_text,
            "host_restarts": view.unit.restarts,
            "masked": view.unit.masked,
            "started": wall_text(view.started_wall),
        },
        "linked": view.linked,
        "enabled_by_operator": view.enabled_by_operator,
        "claim": None if claim is None else {**asdict(claim), "status": claim.status.value},
        "proof_age_seconds": view.proof_age,
        "probe": None
        if view.probe is None
        else {
            "ok": view.probe.ok,
            "seconds": view.probe.seconds,
            "failures": view.probe.failures,
            "error": view.probe.error,
        },
        "connected_since": wall_text(view.connected_since_wall),
        "cpu_seconds": view.cpu_seconds,
        "processes": view.processes,
        "restarts_by_reason": dict(view.restarts),
        "reconnects_by_reason": dict(view.reconnects),
        "messages": dict(view.messages),
        "errors": dict(view.errors),
        "status_seconds": dict(view.status_seconds),
        "observed": wall_text(view.seen_wall),
    }


def show_event(entry: JournalEntry) -> dict[str, Any]:
    return {
        "cursor": entry.cursor,
        "time": wall_text(entry.wall),
        "category": entry.category.value,
        "kind": entry.kind,
        "instance": entry.instance,
        "sentence": entry.sentence,
        "detail": dict(entry.detail),
    }


def show_agent(status: AgentStatus) -> dict[str, Any]:
    done, total = status.restoring
    return {
        "version": status.version,
        "host": status.host,
        "started": wall_text(status.started_wall),
        "ready": status.ready,
        "alive": is_alive(status),
        "restoring": {"done": done, "total": total},
        "last_pass_age_seconds": status.last_pass_age,
        "passes": status.passes_total,
        "passes_late": status.passes_late,
        "loop_lag_seconds": status.loop_lag,
        "jobs_pending": status.jobs_pending,
        "dbus_connected": status.dbus_connected,
        "link_refusals": dict(status.link_refusals),
        "db_errors": dict(status.db_errors),
    }


def is_alive(status: AgentStatus) -> bool:
    """The loop turns: a pass was completed not long ago. Before the first one there is grace."""
    if status.last_pass_age is None:
        return time.time() - status.started_wall <= status.alive_limit
    return status.last_pass_age <= status.alive_limit


def show_trashed(retired: Trashed) -> dict[str, Any]:
    return {
        "name": retired.name,
        "id": retired.name.partition(".")[0],
        "retired": wall_text(retired.at_wall),
    }


def show_key(row: KeyRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "scopes": list(row.scopes),
        "created": wall_text(row.created_wall),
    }
