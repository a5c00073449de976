"""What became of the messages that a session sent: a message is sent once by a worker, whoever asks
how often, and whoever asked and went away may ask again what came of it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agent.engines.tasks import Tasks
from agent.errors import EngineError, InvalidRequest

Answer = Mapping[str, Any]

_MOST = 2000
UNKNOWN = "unknown"
NOT_SENT: Answer = {"id": "", "outcome": "not_sent"}
_CLOCKS = 5.0
"""Seconds by which the machine's clock may be set back meanwhile."""


class Outcomes:
    """Of one session, by the message's `key`; a refusal is forgotten, for nothing was sent."""

    def __init__(self, crashed: Callable[[BaseException], None]) -> None:
        self._tasks = Tasks(crashed)
        self._running: dict[str, asyncio.Future[Answer]] = {}
        self._ended: dict[str, Answer] = {}
        self._since = time.time()
        """All messages since then are known here."""

    async def once(
        self, message: Mapping[str, Any], send: Callable[[], Awaitable[Answer]]
    ) -> Answer:
        """It goes on when the caller is gone: its agent may have been killed."""
        key = str(message.get("key") or "")
        if key and key in self._ended:
            return self._ended[key]
        future = self._running.get(key) if key else None
        if future is None:
            future = asyncio.get_running_loop().create_future()
            if key:
                self._running[key] = future
            self._tasks.start(self._send(key, send, future), "send a message")
        return await asyncio.shield(future)

    async def of(self, key: str, begun: float = 0.0) -> Answer | None:
        """None: this worker knows of no such message; where it would know of one that was `begun`
        then, the outcome is "not_sent"."""
        if (future := self._running.get(key)) is not None:
            try:
                return await asyncio.shield(future)
            except (EngineError, InvalidRequest):
                return NOT_SENT
        if key and key not in self._ended and begun > self._since + _CLOCKS:
            return NOT_SENT
        return self._ended.get(key)

    def forget(self, key: str) -> None:
        """It surely was not sent: it may be sent again."""
        self._ended.pop(key, None)

    async def _send(
        self, key: str, send: Callable[[], Awaitable[Answer]], future: "asyncio.Future[Answer]"
    ) -> None:
        try:
            answer = await send()
        except (EngineError, InvalidRequest) as error:
            self._running.pop(key, None)
            future.set_exception(error)
            future.exception()  # whoever asked may be gone
        except BaseException as error:
            self._running.pop(key, None)
            future.set_exception(
                EngineError(f"cannot send: {type(error).__name__}", code="internal")
            )
            future.exception()
            raise
        else:
            self._note(key, answer)
            self._running.pop(key, None)
            future.set_result(answer)

    def _note(self, key: str, answer: Answer) -> None:
        if not key:
            return
        if len(self._ended) >= _MOST:
            del self._ended[next(iter(self._ended))]
            self._since = time.time()
        self._ended[key] = answer
