"""A line per instance and interval in the performance log, where one is kept."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from agent.core.model import Category, InstanceId
from agent.core.view import InstanceView
from agent.log import bound
from agent.logfiles import PERFORMANCE

# A table, kept apart from the agent's own log lines.
logging.getLogger(PERFORMANCE).propagate = False


async def log_performance(
    views: Callable[[], Mapping[InstanceId, InstanceView]], interval: Callable[[], float]
) -> None:
    while True:
        await asyncio.sleep(interval())
        if not logging.getLogger(PERFORMANCE).handlers:
            continue
        for number, (id, view) in enumerate(sorted(views().items())):
            bound(Category.SYSTEM, id, PERFORMANCE).info("%s", performance_line(view, time.time()))
            if number % 100 == 99:
                await asyncio.sleep(0)  # thousands of lines must not block the loop


def performance_line(view: InstanceView, now_wall: float) -> str:
    since = view.connected_since_wall
    uptime = 0 if since is None else max(0, round(now_wall - since))
    mean = "-" if view.response_seconds is None else f"{view.response_seconds:.4f}"
    figures = {
        "status": view.status.value,
        "verdict": view.verdict.health.value,
        "uptime_seconds": uptime,
        "messages": view.messages.get("in", 0) + view.messages.get("out", 0),
        "messages_per_minute": sum(view.messages_per_minute.values()),
        "response_seconds": mean,
        "errors": sum(view.errors.values()),
        "reconnects": sum(view.counts["reconnects"].values()),
        "memory_bytes": "-" if view.memory_bytes is None else view.memory_bytes,
        "cpu_seconds": "-" if view.cpu_seconds is None else f"{view.cpu_seconds:.2f}",
    }
    return " ".join(f"{name}={value}" for name, value in figures.items())
