"""Notice that this process itself was delayed: frozen, starved of time, or swapped out."""

import asyncio
import math
from collections.abc import Callable

HAIR = 0.0005


class Pulse:
    """Looks at the clock each second; the first callback when the loop goes on."""

    def __init__(self, held_up: Callable[[float], None], limit: float) -> None:
        """`held_up` gets the seconds by which the loop came late, when more than `limit`."""
        self._held_up = held_up
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._timer = self._wind()

    def close(self) -> None:
        self._timer.cancel()

    def _wind(self) -> asyncio.TimerHandle:
        # A moment before whole seconds, at which deadlines look: it is heard before they judge.
        seconds = math.floor(self._loop.time() + HAIR) + 1.0
        return self._loop.call_at(seconds - HAIR, self._beat)

    def _beat(self) -> None:
        late = self._loop.time() - self._timer.when()
        self._timer = self._wind()
        if late > self._limit:
            self._held_up(late)
