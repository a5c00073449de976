"""Sets the agent's webhook in each session, so that the server reports changes at once.

A session has one webhook. Another program's is left alone, and the agent polls that session. Its
own is set again when it is gone or has an earlier secret.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from agent.engines.evolution.api import EvolutionApi
from agent.engines.evolution.webhook.hooks import EVENTS, OLD_EVENTS
from agent.engines.raw import inside, text
from agent.engines.remote.answers import ServerDown
from agent.errors import EngineError

log = logging.getLogger(__name__)

_AT_ONCE = 4


class Hooked(StrEnum):
    OFF = "off"
    """The settings say no webhook."""
    UNKNOWN = "unknown"
    OURS = "ours"
    TAKEN = "taken"
    """Another program's: the agent finds changes by polling."""
    FAILED = "failed"


@dataclass(slots=True)
class Subscription:
    """Keeps the webhooks of all sessions as they should be, a few at a time, in the background."""

    api: EvolutionApi
    base: str
    """How our addresses begin; "" = no webhooks."""
    url: str
    again: float
    """Seconds to a new look."""
    ready: Callable[[], Awaitable[bool]]
    """The server is up, and which dialect it speaks is known."""
    crashed: Callable[[BaseException], None]
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))
    _states: dict[str, tuple[Hooked, float]] = field(default_factory=dict)
    _looking: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _again: set[str] = field(default_factory=set)
    """Wanted `now` while a look was under way, which may have asked before the session was made."""

    def word(self, name: str) -> Hooked:
        if not self.base:
            return Hooked.OFF
        return self._states.get(name, (Hooked.UNKNOWN, 0.0))[0]

    def want(self, name: str, *, now: bool = False) -> None:
        """Look at this session's webhook and set it if need be; `now`: whatever was seen before."""
        if not self.base:
            return
        if name in self._looking:
            if now:
                self._again.add(name)
            return
        state, at = self._states.get(name, (Hooked.UNKNOWN, 0.0))
        settled = state in (Hooked.OURS, Hooked.TAKEN)
        if not now and settled and time.monotonic() - at < self.again:
            return
        task = asyncio.create_task(self._see_to(name), name=f"webhook {name}")
        self._looking[name] = task
        task.add_done_callback(lambda done: self._ended(name, done))

    def forget(self, name: str) -> None:
        self._states.pop(name, None)
        self._again.discard(name)
        if (task := self._looking.get(name)) is not None:
            task.cancel()

    async def close(self) -> None:
        self._again.clear()
        if tasks := list(self._looking.values()):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _see_to(self, name: str) -> None:
        async with self._turns:
            before, state = self.word(name), Hooked.FAILED
            try:
                if await self.ready():
                    state = await self._look(name)
            except ServerDown:
                pass  # the server's check tells it; the next deep probe looks again
            except EngineError as error:
                if before is not state:
                    log.warning("%s", error)
            if state is Hooked.TAKEN and before is not state:
                log.warning("%s has a webhook of another program: the agent polls it instead", name)
            self._states[name] = (state, time.monotonic())

    async def _look(self, name: str) -> Hooked:
        events = OLD_EVENTS if self.api.old else EVENTS
        try:
            raw = await self.api.find("webhook", name)
        except EngineError as error:
            if error.code == "remote_missing":
                return Hooked.UNKNOWN  # it is set once the session is created
            raise
        url, enabled, listed = _read(raw)
        if enabled and url and not url.startswith(self.base):
            return Hooked.TAKEN
        if not enabled or url != self.url or not set(events) <= listed:
            await self.api.set("webhook", name, self._body(events))
        return Hooked.OURS

    def _body(self, events: tuple[str, ...]) -> dict[str, Any]:
        if self.api.old:
            flat = {"webhook_by_events": False, "webhook_base64": False}
            return {"enabled": True, "url": self.url, "events": list(events), **flat}
        nested = {"headers": {}, "byEvents": False, "base64": False}
        return {"webhook": {"enabled": True, "url": self.url, "events": list(events), **nested}}

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        self._looking.pop(name, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.crashed(error)
        if name in self._again:
            self._again.discard(name)
            self.want(name, now=True)


def _read(raw: Any) -> tuple[str, bool, set[str]]:
    nested = inside(raw, "webhook")
    raw = nested if isinstance(nested, Mapping) else raw
    events = inside(raw, "events")
    names = events if isinstance(events, list) else []
    listed = {name for name in names if isinstance(name, str)}
    return text(inside(raw, "url"), 4096), inside(raw, "enabled") is True, listed
