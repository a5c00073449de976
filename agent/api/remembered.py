"""Answers by Idempotency-Key: the same request sent twice happens once.

Held in memory, bounded in number and age. Only success is remembered: after an error the
next try is a new one.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.errors import Refused

Answer = Mapping[str, Any]


@dataclass(slots=True)
class _Entry:
    digest: str
    at: float
    answer: asyncio.Future[Answer]


class Remembered:
    def __init__(
        self,
        *,
        most: int = 10_000,
        seconds: float = 86_400.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._entries: OrderedDict[tuple[str, ...], _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    async def once(
        self, key: tuple[str, ...], digest: str, work: Callable[[], Awaitable[Answer]]
    ) -> tuple[Answer, bool]:
        """The answer, and whether it is an earlier one's. A second caller waits for the first."""
        self._forget_old()
        known = self._entries.get(key)
        if known is not None:
            if known.digest != digest:
                raise Refused(
                    "cannot use this Idempotency-Key again: it was sent with another request",
                    field="Idempotency-Key",
                    code="idempotency_key_reused",
                )
            return await asyncio.shield(known.answer), True
        entry = _Entry(digest, self._clock(), asyncio.get_running_loop().create_future())
        self._entries[key] = entry
        try:
            answer = await work()
        except BaseException as error:
            self._entries.pop(key, None)
            shown = (
                error
                if isinstance(error, Exception)
                else Refused("cannot tell how the first request went: it was cancelled")
            )
            entry.answer.set_exception(shown)
            entry.answer.exception()  # marks it as seen when nobody else waits
            raise
        entry.answer.set_result(answer)
        return answer, False

    def _forget_old(self) -> None:
        oldest = self._clock() - self._seconds
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            done = entry.answer.done()
            if entry.at >= oldest and (len(self._entries) < self._most or not done):
                return
            if not done:
                return
            del self._entries[key]
