"""The measurements that are the same for all systems: starts, stops, memory, idle time, kills."""

import asyncio
import os
import signal
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.core.model import InstanceId
from scripts.benches.processes import children, cpu, new_child, pss, uss
from scripts.benches.site import Site, Supervisor, all_connected, connected

SETTLE = 2.0
"""Seconds after a kill until things are quiet again."""

Figures = defaultdict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Times:
    """How often and how long."""

    starts: int = 3
    kills: int = 9
    adoptions: int = 3
    scrapes: int = 15
    idle: float = 180.0
    """Two rounds of the agent's probes: wherever it begins, it has as many of each session."""
    settle: float = 20.0
    """Until what happens once after a start (first checks, first look at memory) is over."""


QUICK = Times(starts=1, kills=3, adoptions=1, scrapes=5, idle=10.0, settle=3.0)


async def starts_and_stops(system: Supervisor, site: Site, times: Times, figures: Figures) -> None:
    """Begins and ends them all; the first round warms the caches, the last one stays up."""
    for turn in range(times.starts + 1):
        begun = time.perf_counter()
        await system.begin()
        await all_connected(system, site.ids)
        took = time.perf_counter() - begun
        if turn:
            figures["start"].append(took)
        if turn == times.starts:
            return
        await asyncio.sleep(SETTLE)
        begun = time.perf_counter()
        await system.end()
        if turn:
            figures["stop"].append(time.perf_counter() - begun)


async def at_rest(
    system: Supervisor, workers: Mapping[InstanceId, int], times: Times, figures: Figures
) -> None:
    """Memory and processor time while nothing happens."""
    await asyncio.sleep(times.settle)
    own, pids = list(system.own_pids()), list(workers.values())
    own_before, workers_before, begun = cpu(own), cpu(pids), time.monotonic()
    await asyncio.sleep(times.idle)
    minutes = (time.monotonic() - begun) / 60
    figures["idle"].append((cpu(own) - own_before) / minutes)
    figures["idle workers"].append((cpu(pids) - workers_before) / minutes)
    figures["uss"].append(sum(uss(pid) for pid in own))
    each = [pss(pid) for pid in pids]
    figures["worker pss"] += each
    figures["everything"].append(sum(each) + sum(pss(pid) for pid in own))


async def kills(
    system: Supervisor,
    workers: Mapping[InstanceId, int],
    chosen: Sequence[InstanceId],
    figures: Figures,
    *,
    suffix: str = "",
    again: Callable[[InstanceId, int], Awaitable[None]] | None = None,
) -> None:
    """kill -9, each time another worker: when is there a new one, when is it CONNECTED? `again`
    waits for that by another word than the worker's."""
    for id in chosen:
        parents = system.own_pids()
        before = children(parents) | {workers[id]}
        begun = time.perf_counter()
        os.kill(workers[id], signal.SIGKILL)
        await new_child(parents, before)
        figures["new pid" + suffix].append((time.perf_counter() - begun) * 1000)
        if again is None:
            await connected(system.link_path(id), id, not_pid=workers[id], every=0.002)
        else:
            await again(id, workers[id])
        figures["connected again" + suffix].append((time.perf_counter() - begun) * 1000)
        await asyncio.sleep(SETTLE / 4)
