"""The agent's views as JSON."""

import time
from dataclasses import asdict
from typing import Any

from agent.clock import boot_now
from agent.core.event_json import wall_text
from agent.core.figures.session_figures import COUNTS, FIGURES
from agent.core.findings.first_messages import read_stored, shown
from agent.core.health.agent_alive import is_alive
from agent.core.incidents import Incident
from agent.core.model import HealthVerdict
from agent.core.recovery.repair import Ending, Repair, Stage
from agent.core.view import AgentStatus, BackendView, InstanceView
from agent.core.waiting import wait_fields
from agent.store.rows import KeyRow
from agent.vault.trash import Retired


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
        "backend": view.instance.backend or None,
        "remote": view.instance.remote if view.instance.backend else None,
        "enabled": view.instance.enabled,
        "override": view.desired.override.value,
        "should_run": view.desired.should_run,
        "connection_status": view.status.value,
        "since": wall_text(view.status_since_wall),
        "reason": view.reason,
        "sentence": view.sentence,
        "attempts": view.attempts,
        "next_attempt": wall_text(view.next_attempt_wall),
        "circuit": view.circuit,
        "circuit_opens": wall_text(view.circuit_opens_wall),
        **wait_fields(view.wait_reason, view.wait_sentence),
        "turns_before": view.turns_before,
        "proved": _proved(view),
        "health": show_verdict(view.verdict),
        "paired": view.record.paired,
        "account": view.record.account,
        "needs_passkey": view.record.needs_passkey,
        "snapshot_failure": view.snapshot_failure,
        "worker": view.unit.state.value,
        "uptime_seconds": None if connected is None else max(0, round(now_wall - connected)),
        "memory_bytes": view.memory_bytes,
        "restarts": sum(view.counts["restarts"].values()),
        "reconnects": sum(view.counts["reconnects"].values()),
    }


def _proved(view: InstanceView) -> str | None:
    """The time at which the state was last proved."""
    return None if view.proof_age is None else wall_text(view.seen_wall - view.proof_age)


def _created(view: InstanceView) -> str | None:
    return wall_text(view.instance.created_wall)


def show_details(view: InstanceView) -> dict[str, Any]:
    claim = view.claim.claim if view.claim else None
    return {
        **show_instance(view),
        "settings": dict(view.instance.settings),
        "created": _created(view),
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
        **{row.name: view.figures.get(row.name) for row in FIGURES},
        **{row.shown or row.name: dict(view.counts[row.name]) for row in COUNTS},
        "counted_since": wall_text(view.counted_since_wall),
        "messages": dict(view.messages),
        "errors": dict(view.errors),
        "status_seconds": {
            status.value: round(seconds, 3)
            for status, seconds in view.status_time.totals(boot_now()).items()
        },
        "guess": view.verdict.guess,
        "repair": None if view.repair is None else show_repair(view.repair),
        "pairing_kept": _kept(view),
        "crypto_operations": dict(view.crypto_operations),
        "crypto_errors_lately": view.crypto_lately,
        "repair_steps": [
            {"step": step, "result": result, "count": count}
            for (step, result), count in sorted(view.repair_steps.items())
        ],
        "memory_limit_bytes": view.memory_limit,
        "messages_per_minute": dict(view.messages_per_minute),
        "last_snapshot": wall_text(view.last_snapshot_wall),
        "first_messages": shown(read_stored(view.record.first_messages)),
        "observed": wall_text(view.seen_wall),
    }


def _kept(view: InstanceView) -> str:
    """Why its repair keeps the pairing, and what to type; "" = no repair has anything to say."""
    repair = view.repair
    if view.kept is None or repair is None or view.verdict.healthy:
        return ""
    return view.kept.sentence if repair.ending in (Ending.NOT_YET, Ending.GAVE_UP) else ""


def show_repair(repair: Repair) -> dict[str, Any]:
    waits = repair.stage is Stage.DUE and not repair.over
    return {
        "goal": repair.goal.value,
        "trouble": repair.trouble.value,
        "reason": repair.reason,
        "step": repair.step.value,
        "tries": repair.tries,
        "round": repair.round,
        "stage": repair.stage.value,
        "not_before": wall_text(repair.not_before_wall) if waits else None,
        "started": wall_text(repair.started_wall),
        "backup": repair.backup,
        "ending": repair.ending.value,
        "ended": wall_text(repair.ended_wall),
    }


def show_reconnection(view: InstanceView) -> dict[str, Any]:
    return {
        "connection_status": view.status.value,
        "should_run": view.desired.should_run,
        "attempts": view.attempts,
        "next_attempt": wall_text(view.next_attempt_wall),
        "circuit": view.circuit,
        "circuit_opens": wall_text(view.circuit_opens_wall),
        **wait_fields(view.wait_reason, view.wait_sentence),
        "reason": view.reason,
        "sentence": view.sentence,
    }


def show_backend(view: BackendView) -> dict[str, Any]:
    return {
        "name": view.name,
        "engine": view.engine,
        "url": view.url,
        "up": view.up,
        "reason": view.reason,
        "sentence": view.sentence,
        "warning": view.warning,
        "version": view.version,
        "since": wall_text(view.since_wall),
        "checked": wall_text(view.checked_wall),
        "answer_seconds": view.seconds,
        "sessions": view.sessions,
        "held": view.held,
        "connected": view.connected,
        "circuit": view.breaker,
        "next_check": wall_text(view.next_check_wall),
    }


def show_incident(incident: Incident) -> dict[str, Any]:
    ago = boot_now() - incident.since
    return {
        "group": incident.group,
        "kind": incident.kind,
        "code": incident.code,
        "sentence": incident.sentence,
        "since": wall_text(time.time() - ago),
        "members": list(incident.members),
        "canary": incident.canary,
        "tries": incident.tries,
    }


def show_agent(status: AgentStatus) -> dict[str, Any]:
    done, total = status.restoring
    return {
        "version": status.version,
        "host": status.host,
        "started": wall_text(status.started_wall),
        "ready": status.ready,
        "alive": is_alive(status, time.time()),
        "restoring": {"done": done, "total": total},
        "last_pass_age_seconds": status.last_pass_age,
        "passes": status.passes_total,
        "passes_late": status.passes_late,
        "loop_lag_seconds": status.loop_lag,
        "jobs_pending": status.jobs_pending,
        "dbus_connected": status.dbus_connected,
        "link_refusals": dict(status.link_refusals),
        "db_errors": dict(status.db_errors),
        "settings_read": wall_text(status.config_read_wall or None),
        "settings_refused": status.config_refused,
    }


def show_trashed(retired: Retired) -> dict[str, Any]:
    return {
        "name": retired.name,
        "id": retired.name.partition(".")[0],
        "retired": wall_text(retired.at_wall),
    }


def show_key(row: KeyRow, used_wall: float | None) -> dict[str, Any]:
    """`used_wall`: None = not since the agent started."""
    return {
        "id": row.id,
        "name": row.name,
        "scopes": list(row.scopes),
        "created": wall_text(row.created_wall),
        "last_used": wall_text(used_wall),
    }
