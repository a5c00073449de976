"""When passes happen: woken by events, by the nearest deadline, or by the slow tick.

At most one pass runs per instance; a wake during a pass means one more pass after it.
An event carries no command, so losing one costs time, never correctness.
"""

import asyncio
import heapq
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from agent.clock import boot_now
from agent.core.model import InstanceId
from agent.errors import WaError
from agent.log import about, log
from agent.supervise.facts import Facts, Settings

TURN = 10.0
"""Longest sleep: the watchdog asks whether the loop turns."""
TICKS = ((50.0, 8.0), (10.0, 2.0), (0.0, 0.001))
"""A deadline later than the first figure falls on a multiple of the second, so that many share one
wake-up: after the longest time one at which the process host hears its workers."""


class Wakes:
    """Woken instances, in order; wake() never waits."""

    def __init__(self) -> None:
        self.woken: dict[InstanceId, None] = {}
        self.rung = asyncio.Event()

    def wake(self, instance: InstanceId) -> None:
        self.woken[instance] = None
        self.rung.set()


@dataclass(slots=True, eq=False, repr=False)
class Loop:
    """Runs passes side by side, bounded, one at a time for each instance.

    The sessions of a backend share a lane, and all that have none another one. Each lane has its
    own places, so that a slow server delays no others.
    """

    wakes: Wakes
    run_pass: Callable[[InstanceId], Awaitable[float | None]]
    """Returns when (boot clock) the instance must be looked at again at the latest."""
    settings: Settings
    facts: Mapping[InstanceId, Facts]
    parallel: int = 256
    lane_parallel: int = 64
    _running: dict[InstanceId, str] = field(init=False, default_factory=dict)
    """The lane of each pass under way."""
    _due: dict[InstanceId, float] = field(init=False, default_factory=dict)
    _heap: list[tuple[float, InstanceId]] = field(init=False, default_factory=list)
    _sleeps_until: float = field(init=False, default=0.0)
    _stopping: bool = field(init=False, default=False)
    _full_since: float | None = field(init=False, default=None)
    """Since then all places are taken, a pass waits for a place, and none has ended."""
    turned_at: float = field(init=False, default_factory=boot_now)
    passes: int = field(init=False, default=0)
    pass_seconds: float = field(init=False, default=0.0)

    def blocked(self, now: float) -> float:
        """Seconds for which no pass has ended while others wait for a place."""
        return 0.0 if self._full_since is None else now - self._full_since

    def stop(self) -> None:
        """Begin no further pass."""
        self._stopping = True
        self.wakes.rung.set()

    async def run(self) -> None:
        """Serve until `stop`; passes under way are finished or cancelled by the caller's group."""
        async with asyncio.TaskGroup() as passes:
            while not self._stopping:
                self.turned_at = now = boot_now()
                while self._heap and self._heap[0][0] <= now:
                    at, instance = heapq.heappop(self._heap)
                    if self._due.get(instance) == at:  # else a newer deadline replaced this one
                        del self._due[instance]
                        self.wakes.woken[instance] = None
                self._begin_passes(passes, now)
                await self._sleep(now)

    def _begin_passes(self, group: asyncio.TaskGroup, now: float) -> None:
        taken = Counter(self._running.values())
        for instance in list(self.wakes.woken):
            lane = facts.instance.backend if (facts := self.facts.get(instance)) else ""
            if taken[lane] >= (self.lane_parallel if lane else self.parallel):
                if not lane:
                    self._full_since = self._full_since or now
                continue
            if instance not in self._running:
                del self.wakes.woken[instance]
                self._running[instance] = lane
                taken[lane] += 1
                group.create_task(self._one_pass(instance), name=f"pass {instance}")

    async def _sleep(self, now: float) -> None:
        """Until an instance is woken or the nearest is due; at most TURN."""
        self._sleeps_until = min([now + TURN, *(at for at, _ in self._heap[:1])])
        rung, delay = self.wakes.rung, self._sleeps_until - now
        timer = asyncio.get_running_loop().call_later(delay, rung.set)
        await rung.wait()
        timer.cancel()
        rung.clear()

    async def _one_pass(self, instance: InstanceId) -> None:
        begun = boot_now()
        again: float | None = begun + self.settings.config.health.interval
        try:
            again = await self.run_pass(instance)
        except Exception as error:
            # One instance's failure must not end the others' supervision.
            words = "a pass for %s failed; the next one tries again: %s"
            bug = None if isinstance(error, WaError) else error
            log.error(words, instance, error, exc_info=bug, extra=about(instance))
        finally:
            if not self._running.pop(instance):
                self._full_since = None
            if self.wakes.woken:  # the pass that waits for this place, or was woken during this one
                self.wakes.rung.set()
        now = boot_now()
        self.passes += 1
        self.pass_seconds += now - begun
        if again is not None:
            at = max(again, now + 0.01)
            tick = next(tick for far, tick in TICKS if at - now > far)
            at = math.ceil(at / tick) * tick
            self._due[instance] = at
            heapq.heappush(self._heap, (at, instance))
            if at < self._sleeps_until:
                self.wakes.rung.set()
