"""Looks at a session between the agent's probes, where these are too far apart: at one that closed,
until it is known whether its server brings it back; at one whose code cannot be scanned any more,
for a new one; at one that opened, for its proof."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from agent.engines.evolution.claims import Live
from agent.engines.evolution.observer import Observer
from agent.errors import EngineError


@dataclass(slots=True)
class BetweenProbes:
    decided: Callable[[], None]
    """Called when no more looks are needed: the claim may be another one."""
    _task: asyncio.Task[None] | None = None
    _proving: asyncio.Task[None] | None = None

    def begin(self, observer: Observer) -> None:
        if self._task is None and _next_look(observer) is not None:
            self._task = asyncio.create_task(
                self._look(observer), name=f"look at {observer.remote} between probes"
            )

    def end(self) -> None:
        """What it sees belongs to a view that counts no more, or its session is released."""
        for task in (self._task, self._proving):
            if task is not None:
                task.cancel()
        self._task = self._proving = None

    def prove(self, proving: Coroutine[Any, Any, None]) -> None:
        if self._proving is None or self._proving.done():
            self._proving = asyncio.create_task(proving, name="prove an opening")
        else:
            proving.close()

    async def _look(self, observer: Observer) -> None:
        try:
            while (wait := _next_look(observer)) is not None:
                await asyncio.sleep(wait)
                await observer.state()
                if observer.view.live is Live.CONNECTING:
                    await observer.missing_code()
            self.decided()
        except EngineError:
            pass  # the next probe begins it again
        finally:
            if self._task is asyncio.current_task():
                self._task = None


def _next_look(observer: Observer) -> float | None:
    """Seconds until then; None: the agent's probes are enough."""
    view = observer.view
    if view.may_come_back:
        return observer.server.pace.looks_apart / 3
    shown = view.qr()
    return None if shown is None else shown.expires_in
