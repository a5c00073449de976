"""The agent's and its instances' health and figures, for people, probes and Prometheus. Figures are
seconds and bytes, as on /metrics; an unknown one is null."""

import time
from collections import Counter
from typing import Any

from aiohttp import web

from agent.api.http.call import Answer, Call, Field, Json
from agent.api.present import part, show_verdict
from agent.clock import boot_now
from agent.core.health import has_given_up, is_wanted
from agent.core.model import Health
from agent.core.session import Session, wall_text
from agent.core.troubles import MINUTE, Of, Severity
from agent.core.words import ID_PATTERN

CHECK = (Field("ids", list, "only these instances; default: all", most=10_000, pattern=ID_PATTERN),)


async def health(call: Call) -> Json:
    """The agent's health and its instances'."""
    views = call.supervisor.views().values()
    status, of_metrics = call.supervisor.status(), ("pass_seconds_total", "incidents")
    shown = {name: value for name, value in status.items() if name not in of_metrics}
    trouble = sorted(view.instance.id for view in views if _is_in_trouble(view))
    word = "sessions_in_trouble" if trouble else "ok"
    own = {"places": dict(call.parts.places), "not_listening": call.parts.not_listening}
    return {
        "status": word if shown["alive"] and shown["ready"] else "not_ready",
        "in_trouble": trouble,
        "agent": shown | own,
        "instances": {
            "total": len(views),
            "enabled": sum(view.instance.enabled for view in views),
            "by_status": dict(Counter(view.status.value for view in views)),
            "by_verdict": dict(Counter(view.verdict.health.value for view in views)),
        },
    }


def _is_in_trouble(view: Session) -> bool:
    """True if it should run, and only a person can bring it back."""
    bad = view.verdict.health in (Health.STUCK, Health.CORRUPTED)
    return is_wanted(view) and (bad or has_given_up(view))


async def check_now(call: Call) -> Json:
    """Check all or some now."""
    verdicts = await call.supervisor.repairs.check_now(call.body.get("ids"))
    return {
        "checked": len(verdicts),
        "healthy": sum(verdict.healthy for verdict in verdicts.values()),
        "by_verdict": dict(Counter(verdict.health.value for verdict in verdicts.values())),
        "results": {id: show_verdict(verdict) for id, verdict in sorted(verdicts.items())},
    }


async def check_instance(call: Call) -> Json:
    """Check an instance now."""
    verdicts = await call.supervisor.repairs.check_now([call.id])
    return {**show_verdict(verdicts[call.id]), "time": wall_text(time.time())}


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
    shown = {"ready": status["ready"], "restoring": status["restoring"]}
    shown["not_listening"] = call.parts.not_listening
    return (200 if shown["ready"] else 503), shown


async def metrics(call: Call) -> web.Response:
    """Metrics for Prometheus."""
    gzip = "gzip" in call.request.headers.get("Accept-Encoding", "")
    headers = {"Content-Type": call.parts.metrics.CONTENT_TYPE, "Vary": "Accept-Encoding"}
    headers |= {"Content-Encoding": "gzip"} if gzip else {}
    return web.Response(body=await call.parts.metrics.scrape(gzip=gzip), headers=headers)


_OF = {"instance": Of.SESSION, "backend": Of.BACKEND, "group": Of.GROUP}


async def list_troubles(call: Call) -> Json:
    """What is wrong now."""
    found = sorted(
        call.parts.troubles(),
        key=lambda one: (one.row.severity is not Severity.CRITICAL, one.row.name, one.who),
    )
    shown = [
        {
            **part(its, "kind=row.name row.severity sentence since=begun_wall"),
            **{word: its.who if its.row.of is of else None for word, of in _OF.items()},
            "advice": its.row.advice.format(who=its.who),
        }
        for its in found
    ]
    return {"troubles": shown}


async def performance(call: Call) -> Json:
    """Performance of each instance and of the machine; averageResponseTime: mean seconds of the
    probes in the last 5 minutes, null without an answered probe."""
    call.supervisor.sampler.watch()
    views, sees = sorted(call.supervisor.views().items()), call.caller.sees
    instances = {id: show_figures(view) for id, view in views if sees(id)}
    system = {"system": system_figures(call)} if sees(None) else {}
    return {"instances": instances, **system}


async def memory_report(call: Call) -> Json:
    """Memory of each instance."""
    views = sorted(call.supervisor.views().items())
    used = [view.run.memory_bytes for _, view in views if view.run.memory_bytes is not None]
    machine = call.parts.metrics.machine.values()
    unmeasured = not used and any(view.unit.runs for _, view in views)  # unknown, not 0
    return {
        "time": wall_text(time.time()),
        "system": system_figures(call),
        "agentMemory": machine.get("process_resident_memory_bytes"),
        "sessionsMemory": None if unmeasured else sum(used),
        "instances": {
            id: part(view.run, "usedMemory=memory_bytes processes")
            | {"memoryLimit": view.memory_limit or None}
            for id, view in views
        },
    }


def show_figures(view: Session) -> dict[str, Any]:
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
    links = sum(view.linked for view in views.values())
    failed, done = (
        sum(call.parts.windows.rise(id, name, 5 * MINUTE, boot_now()) for id in views)
        for name in ("errors", "done")
    )
    return {
        "totalMemory": machine.get("wa_host_memory_total_bytes"),
        "usedMemory": machine.get("wa_host_memory_used_bytes"),
        "cpuUsage": machine.get("wa_host_cpu_usage_ratio"),
        "activeConnections": links + len(call.parts.listeners),
        "errorRate": round(failed / (failed + done), 4) if failed or done else None,
        "diskFree": machine.get("wa_host_filesystem_avail_bytes"),
        "openFiles": machine.get("process_open_fds"),
        "openFilesLimit": machine.get("process_max_fds"),
        "watchdogRestarts": sum(
            view.counters.by_word["restarts"].get("watchdog", 0) for view in views.values()
        ),
        "meanCheckSeconds": call.supervisor.registry.statistics.mean_check_seconds,
    }
