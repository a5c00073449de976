"""Health: the agent's and its instances' checks and figures, for people, probes and Prometheus;
repairs by hand, setting an instance up, incidents, and the statistics of repairs. Figures are
seconds and bytes, as on /metrics; an unknown one is null."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from agent import clock, errors
from agent.api import present
from agent.api.handlers.instances import PLACE, placed, still_placed
from agent.api.http.auth import Right, require
from agent.api.http.call import CONFIRM_PASSKEY, Answer, Call, Field, Json, look_at
from agent.core import model, session, troubles
from agent.core.health import has_given_up, is_wanted
from agent.core.recovery.repair import Goal
from agent.core.words import ID_PATTERN, ConnectionStatus, parse_instance_id
from agent.engines.catalog import engine_names
from agent.supervise.orders import GOES_ON, in_time

CHECK = (Field("ids", list, "only these instances; default: all", most=10_000, pattern=ID_PATTERN),)


async def health(call: Call) -> Json:
    """The agent's health and its instances'."""
    views = call.supervisor.views().values()
    status, of_metrics = call.supervisor.status(), ("pass_seconds_total", "incidents")
    shown = {name: value for name, value in status.items() if name not in of_metrics}
    bad = (model.Health.STUCK, model.Health.CORRUPTED)
    unwell = (it for it in views if it.verdict.health in bad or has_given_up(it))
    # They should run, and only a person can bring them back.
    trouble = sorted(it.instance.id for it in unwell if is_wanted(it))
    word = "sessions_in_trouble" if trouble else "ok"
    own = {"places": dict(call.parts.places), "not_listening": call.parts.not_listening}
    return {
        "status": word if shown["alive"] and shown["ready"] else "not_ready",
        "in_trouble": trouble,
        "agent": {**shown, **own, "fleet": call.supervisor.gate.fleet.leased},
        "instances": {
            "total": len(views),
            "enabled": sum(view.instance.enabled for view in views),
            "by_status": dict(Counter(view.status.value for view in views)),
            "by_verdict": dict(Counter(view.verdict.health.value for view in views)),
        },
    }


async def check_now(call: Call) -> Json:
    """Check all or some now."""
    verdicts = await call.supervisor.repairs.check_now(call.body.get("ids"))
    return {
        "checked": len(verdicts),
        "healthy": sum(verdict.healthy for verdict in verdicts.values()),
        "by_verdict": dict(Counter(verdict.health.value for verdict in verdicts.values())),
        "results": {id: present.show_verdict(verdict) for id, verdict in sorted(verdicts.items())},
    }


async def check_instance(call: Call) -> Json:
    """Check an instance now."""
    verdicts = await call.supervisor.repairs.check_now([call.id])
    return {**present.show_verdict(verdicts[call.id]), "time": session.wall_text(time.time())}


async def check_database(call: Call) -> Json:
    """Check the whole database.

    Seconds for a large one, beside other requests.
    """
    result = await call.supervisor.store.check()
    return {"good": result == "ok", "found": result}


async def alive(call: Call) -> Answer:
    """Alive: the loop turns."""
    status = call.supervisor.status()
    shown = {name: status[name] for name in ("alive", "last_pass_age_seconds")}
    return (200 if shown["alive"] else 503), shown


async def ready(call: Call) -> Answer:
    """Ready: all sessions are restored."""
    status = call.supervisor.status()
    shown = {name: status[name] for name in ("ready", "restoring")}
    return (200 if shown["ready"] else 503), {**shown, "not_listening": call.parts.not_listening}


async def metrics(call: Call) -> web.Response:
    """Metrics for Prometheus."""
    gzip = "gzip" in call.request.headers.get("Accept-Encoding", "")
    headers = {"Content-Type": call.parts.metrics.CONTENT_TYPE, "Vary": "Accept-Encoding"}
    if gzip:
        headers["Content-Encoding"] = "gzip"
    return web.Response(body=await call.parts.metrics.scrape(gzip=gzip), headers=headers)


_OF = {"instance": troubles.Of.SESSION, "backend": troubles.Of.BACKEND, "group": troubles.Of.GROUP}


async def list_troubles(call: Call) -> Json:
    """List the troubles of this moment, critical ones first."""
    found = sorted(
        call.parts.troubles(),
        key=lambda one: (one.row.severity is not troubles.Severity.CRITICAL, one.row.name, one.who),
    )
    shown = [
        {
            **present.part(trouble, "kind=row.name row.severity sentence since=begun_wall"),
            **{word: trouble.who if trouble.row.of is of else None for word, of in _OF.items()},
            "advice": trouble.row.advice.format(who=trouble.who),
        }
        for trouble in found
    ]
    return {"troubles": shown}


async def performance(call: Call) -> Json:
    """Performance of each instance and of the machine; averageResponseTime: mean seconds of the
    probes in the last 5 minutes, null without an answered probe."""
    call.supervisor.sampler.watch()
    views, sees = sorted(call.supervisor.views().items()), call.caller.sees
    instances = {id: show_figures(view) for id, view in views if sees(id)}
    return {"instances": instances, **({"system": system_figures(call)} if sees(None) else {})}


async def memory_report(call: Call) -> Json:
    """Memory of each instance."""
    views = sorted(call.supervisor.views().items())
    used = [view.run.memory_bytes for _, view in views if view.run.memory_bytes is not None]
    unmeasured = not used and any(view.unit.runs for _, view in views)  # unknown, not 0
    return {
        "time": session.wall_text(time.time()),
        "system": system_figures(call),
        "agentMemory": call.parts.metrics.machine.values().get("process_resident_memory_bytes"),
        "sessionsMemory": None if unmeasured else sum(used),
        "instances": {
            id: present.part(view.run, "usedMemory=memory_bytes processes")
            | {"memoryLimit": view.memory_limit or None}
            for id, view in views
        },
    }


def show_figures(view: session.Session) -> dict[str, Any]:
    recent, known, counted = view.response_seconds, view.counts_messages, view.counters.messages
    return {
        "connectionUptime": view.uptime,
        "messagesProcessed": counted["in"] + counted["out"] if known else None,
        "messagesPerMinute": sum(view.messages_per_minute.values()) if known else None,
        "averageResponseTime": None if recent is None else round(recent, 6),
        "errorCount": sum(view.counters.errors.values()),
        "reconnectCount": sum(view.counters.by_word["reconnects"].values()),
    }


def system_figures(call: Call) -> dict[str, Any]:
    views = call.supervisor.views()
    machine = call.parts.metrics.machine.values()
    restarts = (view.counters.by_word["restarts"] for view in views.values())
    rise, past, now = call.parts.windows.rise, 5 * troubles.MINUTE, clock.boot_now()
    failed, done = (sum(rise(id, name, past, now) for id in views) for name in ("errors", "done"))
    return {
        "totalMemory": machine.get("wa_host_memory_total_bytes"),
        "usedMemory": machine.get("wa_host_memory_used_bytes"),
        "cpuUsage": machine.get("wa_host_cpu_usage_ratio"),
        "activeConnections": sum(it.linked for it in views.values()) + len(call.parts.listeners),
        "errorRate": round(failed / (failed + done), 4) if failed or done else None,
        "diskFree": machine.get("wa_host_filesystem_avail_bytes"),
        "openFiles": machine.get("process_open_fds"),
        "openFilesLimit": machine.get("process_max_fds"),
        "watchdogRestarts": sum(counts.get("watchdog", 0) for counts in restarts),
        "meanCheckSeconds": call.supervisor.registry.statistics.mean_check_seconds,
    }


# Repairs

UP = {"query": (Field("wait", int, "seconds to wait for CONNECTED or QR_REQUIRED", most=300),)}
DOWN = {"query": (Field("wait", int, "seconds to wait until it is closed", most=300),)}


async def disconnect(call: Call) -> Json:
    """Stop an instance and keep its pairing.

    The session is closed and keeps its pairing; it stays closed until a start.
    """
    await call.supervisor.orders.stop(call.id)
    return await _as_it_is(call, up=False)


async def start_session(call: Call) -> Json:
    """Start an instance."""
    await call.supervisor.orders.start(call.id)
    return await _as_it_is(call, up=True)


async def _as_it_is(call: Call, *, up: bool) -> Json:
    """Answer with the present status once it is the wanted one, or the time is over: no error."""
    deadline = time.monotonic() + call.query.get("wait", 0)
    if "wait" in call.query:
        # After this check a stop or start that was under way is over and seen.
        await in_time(call.supervisor.repairs.check_now([call.id]), deadline)
    while True:
        view = call.view
        arrived = view.status in (ConnectionStatus.CONNECTED, ConnectionStatus.QR_REQUIRED)
        if not up:
            at_rest = view.unit.state in (model.UnitState.INACTIVE, model.UnitState.FAILED)
            arrived = at_rest and view.status is not ConnectionStatus.CONNECTED
        if arrived or time.monotonic() >= deadline:
            return {"status": view.status.value, **present.show_instance(view)}
        await asyncio.sleep(0.2)


DEFAULT_ENGINE = "web"

_ENGINE = "engine of a new instance; default: the named or only backend's, else " + DEFAULT_ENGINE
CONFIRM = (Field("confirm", bool, "true = confirm that a pairing may end"), CONFIRM_PASSKEY)
SETUP = (
    Field("name", str, "name for people", required=True, least=1, most=128),
    Field("instanceName", str, "the instance's id", required=True, most=48, pattern=ID_PATTERN),
    Field("engine", str, _ENGINE, choices=tuple(engine_names())),
    *PLACE,
    *CONFIRM,
)


async def recover(call: Call) -> Answer:
    """Repair an instance and keep its pairing."""
    return await _repair(call, Goal.RECOVER)


async def cleanup(call: Call) -> Answer:
    """Retire an instance's session and show a new code; an Evolution server deletes its chats."""
    return await _repair(call, Goal.CLEANUP, **call.confirmed)


async def ensure_healthy(call: Call) -> Answer:
    """Check, recover, clean up, until it is connected or shows a code."""
    return await _repair(call, Goal.WORKING_QR, **call.confirmed)


async def _repair(call: Call, goal: Goal, **word: Any) -> Answer:
    answer = await call.supervisor.repairs.until(goal, call.id, wait=call.wait, **word)
    return (202, {**answer, "look": look_at(call.id)}) if answer["ending"] == GOES_ON else answer


async def force_reconnection(call: Call) -> Json:
    """Connect an instance now, without waiting for its next attempt."""
    await call.supervisor.repairs.force_reconnection(call.id)
    return present.show_instance(call.view)


async def reset_circuit_breaker(call: Call) -> Json:
    """Close the circuit of an instance, or of the backend of that name."""
    supervisor, name = call.supervisor, call.request.match_info["id"]
    if name in {view.name for view in supervisor.backends.views()} - {*supervisor.views()}:
        require(call.caller, Right.OPERATE, None)  # a key of an instance has no right to a backend
        return present.show_backend(await supervisor.backends.reset(name))
    await supervisor.repairs.reset_circuit_breaker(call.id)
    return present.show_reconnection(call.view)


async def reconnection_status(call: Call) -> Json:
    """Attempts, times of the next ones, and circuits."""
    views = sorted(call.supervisor.views().items())
    shown = {id: present.show_reconnection(v) for id, v in views if call.caller.sees(id)}
    return {"instances": shown}


async def set_up(call: Call) -> Answer:
    """Create or repair an instance; a code to scan or CONNECTED.

    The code is a secret: it stands in the answer and nowhere else.
    """
    body, id = call.body, parse_instance_id(call.body["instanceName"])
    existing = call.supervisor.views().get(id)
    engine, settings = _place(call, body, existing.instance if existing else None)
    wanted = model.Instance(id, engine, True, {"name": body["name"], **settings}, time.time())
    made = await call.supervisor.repairs.set_up(wanted, wait=call.wait, **call.confirmed)
    status = "CONNECTED" if made.qr is None else "QR_REQUIRED"
    if made.goes_on:
        status = call.supervisor.view(id).status.value
    answer = {
        "instanceName": id,
        "created": made.created,
        "status": status,
        "qr": None if made.qr is None else made.qr.text,
        "expires_in": None if made.qr is None else round(made.qr.expires_in, 3),
        **made.result,
    }
    return (202, {**answer, "look": look_at(id)}) if made.goes_on else answer


def _place(
    call: Call, body: Mapping[str, Any], existing: model.Instance | None
) -> tuple[str, Mapping[str, Any]]:
    """Return engine and settings of the instance; an existing one keeps its backend and session."""
    place = {name: body[name] for name in ("backend", "remote") if name in body}
    engine, backend = body.get("engine"), place.get("backend")
    if existing is not None:
        if place and not existing.backend:
            why = f"cannot set up {existing.id} on a backend: its session is on this machine"
            raise errors.Refused(why, field=min(place), code="place_is_fixed")
        return engine or existing.engine, still_placed(existing, place)
    engines = {view.name: view.engine for view in call.supervisor.backends.views()}
    names, code = ", ".join(sorted(engines)), ""
    if not (engine or backend) and engines:  # the only one
        place["backend"] = backend = names
        code = "which_backend" if len(engines) > 1 else ""
        cause = f"missing, name a backend ({names}) or an engine"
    elif not engine and backend and backend not in engines:
        code = "unknown_backend"
        cause = f"agent.toml declares no [[backend]] {backend!r:.60}; declared: {names or 'none'}"
    if code:
        why = f"cannot use the field 'backend': {cause}"
        raise errors.InvalidRequest(why, field="backend", code=code)
    return engine or engines.get(backend or "", DEFAULT_ENGINE), placed(place)


async def incidents(call: Call) -> Json:
    """Failures that many instances have in common."""
    return {"incidents": [*map(present.show_incident, call.supervisor.incidents.active.values())]}


async def release_incident(call: Call) -> Json:
    """Let the members of an incident try again."""
    group = call.request.match_info["group"]
    call.supervisor.incidents.release_at_once(group)
    return {"released": group}


async def statistics(call: Call) -> Json:
    """Counts and times of checks and repairs."""
    totals = call.supervisor.registry.statistics
    steps: dict[str, dict[str, int]] = {}
    for view in call.supervisor.views().values():
        for (step, result), count in view.counters.repair_steps.items():
            steps.setdefault(step, {"done": 0, "failed": 0})[result] += count
    counts = "since_wall checked repaired cleaned failed success_rate"
    mean = "mean_check_seconds mean_seconds_to_repair=mean_time_to_repair"
    by_hand = {"asked": totals.asked, "needed": totals.needed_person}
    return {**present.part(totals, f"{counts} {mean}"), "interventions": by_hand, "steps": steps}
