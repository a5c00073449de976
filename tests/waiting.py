"""Tests wait by these: how often they ask, which process lives, a log that grows meanwhile."""

import threading
import time
from pathlib import Path
from typing import Any

_EVERY = 0.05


def pause(waited: float, asking: float = 0.0) -> float:
    """Seconds until it asks again: longer the longer it waits, and the longer the asking itself
    took. Asking costs the machine time that the thing waited for needs."""
    return max(min(max(waited / 20, 0.02), 0.1), min(3 * asking, 1.0))


def alive(pid: int) -> bool:
    """Also a zombie whose other threads have not ended yet: they hold its files open."""
    process = Path(f"/proc/{pid}")
    try:
        zombie = (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return not zombie or len(list((process / "task").iterdir())) > 1
    except OSError:
        return False


async def connected(agent: Any, eventually: Any, *ids: str, **settings: object) -> None:
    """Made by the agent, and each of them connected."""
    for id in ids:
        await agent.create(id, **settings)
    for id in ids:
        await eventually(lambda id=id: agent.status(id), "CONNECTED")


class Pauses(threading.Thread):
    """Notes for how long the machine, or this process, stood still: a bound on measured time is the
    product's, and these seconds are not."""

    def __init__(self) -> None:
        super().__init__(name="pauses")
        self.longest = self.total = 0.0
        self._over = threading.Event()

    def run(self) -> None:
        before = time.clock_gettime(time.CLOCK_BOOTTIME)
        while not self._over.wait(_EVERY):
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            still, before = now - before - _EVERY, now
            self.longest = max(self.longest, still)
            self.total += max(still, 0.0)

    def end(self) -> None:
        self._over.set()
        self.join()


class GrowingLog(type(Path())):  # type: ignore[misc]
    """A log that its program still writes: a reader may meet the half of a character."""

    def read_text(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        text: str = super().read_text(encoding, errors)
        return text
