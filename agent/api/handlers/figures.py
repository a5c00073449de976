"""Figures as JSON: of each instance, of its memory, of the machine. Seconds and bytes, as on
/metrics; an unknown figure is null."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from agent.api.http.call import Call, Json, Totals
from agent.api.http.fields import STRING, STRINGS, Field
from agent.core.figures import LATEST, REACHES
from agent.core.model import ID_PATTERN, parse_instance_id
from agent.core.session import Session
from agent.core.view import wall_text

TRENDS = (
    Field("instance", STRINGS, "only these instances; default: all", most=100, pattern=ID_PATTERN),
    Field(
        "range",
        STRING,
        "how far back: latest = the last hour, or the last day, week or month",
        choices=tuple(REACHES),
    ),
)


async def performance(call: Call) -> Json:
    """Performance of each instance and of the machine; averageResponseTime: mean seconds of the
    probes in the last 5 minutes, null without an answered probe."""
    call.supervisor.sampler.watch()
    now_wall = time.time()
    seen = sorted(
        (id, view) for id, view in call.supervisor.views().items() if call.caller.sees(id)
    )
    instances = {id: show_figures(view, now_wall) for id, view in seen}
    system = {"system": system_figures(call)} if call.caller.sees(None) else {}
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
            id: {
                "usedMemory": view.run.memory_bytes,
                "memoryLimit": view.memory_limit or None,
                "processes": view.run.processes,
            }
            for id, view in views
        },
    }


async def trends(call: Call) -> Json:
    """Memory and messages over time, oldest point first."""
    recorded = call.supervisor.trends[call.query.get("range", LATEST)]
    named = [parse_instance_id(word) for word in call.query.get("instance", ())]
    seen = sorted(id for id in named or call.supervisor.views() if call.caller.sees(id))
    lines = {id: line for id in seen if (line := recorded.of(id)) is not None}
    return {
        "step": recorded.step,
        "until": wall_text(recorded.noted_wall),
        "instances": {
            id: {
                "memory": line.memory(),
                "messagesPerMinute": [round(n * 60 / recorded.step, 2) for n in line.messages()],
            }
            for id, line in lines.items()
        },
    }


def show_figures(view: Session, now_wall: float) -> dict[str, Any]:
    connected, recent = view.connected_since_wall, view.response_seconds
    counted = view.counters.messages
    return {
        "connectionUptime": 0 if connected is None else max(0, round(now_wall - connected)),
        "messagesProcessed": counted["in"] + counted["out"] if view.counts_messages else None,
        "messagesPerMinute": (
            sum(view.messages_per_minute.values()) if view.counts_messages else None
        ),
        "averageResponseTime": None if recent is None else round(recent, 6),
        "errorCount": sum(view.counters.errors.values()),
        "reconnectCount": sum(view.counters.by_word["reconnects"].values()),
    }


def system_figures(call: Call) -> dict[str, Any]:
    views = call.supervisor.views().values()
    machine: Mapping[str, float] = call.parts.metrics.machine.values()
    links = sum(view.linked for view in views)
    return {
        "totalMemory": machine.get("wa_host_memory_total_bytes"),
        "usedMemory": machine.get("wa_host_memory_used_bytes"),
        "cpuUsage": machine.get("wa_host_cpu_usage_ratio"),
        "activeConnections": links + len(call.parts.listeners),
        "errorRate": call.parts.errors.rate(_totals(views)),
        "diskFree": machine.get("wa_host_filesystem_avail_bytes"),
        "openFiles": machine.get("process_open_fds"),
        "openFilesLimit": machine.get("process_max_fds"),
        "watchdogRestarts": sum(
            view.counters.by_word["restarts"].get("watchdog", 0) for view in views
        ),
        "meanCheckSeconds": call.supervisor.status().repairs.mean_check_seconds,
    }


def _totals(views: Iterable[Session]) -> Totals:
    done = failed = 0
    for view in views:
        done += view.counters.probes + sum(view.counters.messages.values())
        failed += sum(view.counters.errors.values())
    return float(done), float(failed)
