"""Figures as JSON: of each instance, of its memory, of the machine. Seconds and bytes, as on
/metrics; an unknown figure is null."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from agent.api.http.call import Call, Json, Totals
from agent.core.session import Session, wall_text


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
        "meanCheckSeconds": call.supervisor.ladder.statistics.mean_check_seconds,
    }


def _totals(views: Iterable[Session]) -> Totals:
    done = failed = 0
    for view in views:
        done += view.counters.probes + sum(view.counters.messages.values())
        failed += sum(view.counters.errors.values())
    return float(done), float(failed)
