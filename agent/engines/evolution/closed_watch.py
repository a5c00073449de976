"""Looks often at a session that closed, until it is known whether its server brings it back."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from agent.engines.evolution.observer import Observer
from agent.errors import EngineError


@dataclass(slots=True)
class ClosedWatch:
    """The agent's own looks are too far apart to show that a session stays closed."""

    decided: Callable[[], None]
    _task: asyncio.Task[None] | None = None

    def begin(self, observer: Observer) -> None:
        if self._task is None and observer.view.may_come_back:
            self._task = asyncio.create_task(
                self._look(observer), name=f"watch the closed {observer.remote}"
            )

    def end(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _look(self, observer: Observer) -> None:
        try:
            while observer.view.may_come_back:
                await asyncio.sleep(observer.server.pace.looks_apart / 3)
                await observer.state()
            self.decided()
        except EngineError:
            pass  # the next probe begins it again
        finally:
            self._task = None
