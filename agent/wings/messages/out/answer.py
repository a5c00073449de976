"""The answer to who sends a message: at once when it is kept, or when WhatsApp has it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from agent.api.handlers.messages import answer_sent
from agent.api.http.envelope import json_answer
from agent.errors import Refused, TryLater, WaError
from agent.wings.messages.out.message import OutMessage, show_message
from agent.wings.messages.out.states import UNKNOWN_OUTCOME, State


@dataclass(frozen=True, slots=True)
class End:
    """How a message ended, for who waits for it: the engine's answer, or an error. Neither: it has
    not ended, and nobody can wait any longer."""

    answer: Mapping[str, Any] | None = None
    error: WaError | None = None


class Waiters:
    """The requests that wait for the end of a message, by its id."""

    def __init__(self) -> None:
        self._futures: dict[str, set[asyncio.Future[End]]] = {}

    def add(self, id: str) -> "asyncio.Future[End]":
        future: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(id, set()).add(future)
        return future

    def remove(self, id: str, future: "asyncio.Future[End]") -> None:
        futures = self._futures.get(id, set())
        futures.discard(future)
        if not futures:
            self._futures.pop(id, None)

    def tell(self, id: str, end: End) -> None:
        for future in self._futures.get(id, ()):
            if not future.done():
                future.set_result(end)

    def tell_all(self, end: End) -> None:
        for id in self._futures:
            self.tell(id, end)


@dataclass(frozen=True, slots=True)
class Taken:
    """A message that is kept, for the answer to its sender."""

    row: OutMessage
    again: bool
    """An earlier request with its Idempotency-Key made it."""
    waits: str
    """Why its session sends nothing now."""
    end: "asyncio.Future[End] | None" = None
    """None: nobody waits, or it has ended."""


async def answer_to(taken: Taken, seconds: float) -> web.StreamResponse:
    if taken.end is not None:
        await asyncio.wait({taken.end}, timeout=seconds)
    end = taken.end.result() if taken.end is not None and taken.end.done() else End()
    if end.error is not None:
        raise end.error
    row = taken.row
    if row.state.left and not seconds:  # as its first answer named it
        return _show(taken, {}, 200)
    if end.answer is not None or row.state.left:
        return answer_sent(row.answer if end.answer is None else end.answer, again=taken.again)
    if row.state is not State.ACCEPTED:
        raise _earlier_end(row)
    look = {"state": f"/api/instance/{row.instance}/outbox/{row.id}"}
    return _show(taken, {"look": look}, 202)


def _show(taken: Taken, more: Mapping[str, Any], status: int) -> web.Response:
    answer = json_answer({**show_message(taken.row, taken.waits), **more}, status)
    if taken.again:
        answer.headers["Idempotent-Replayed"] = "true"
    return answer


def _earlier_end(row: OutMessage) -> WaError:
    if row.state in (State.CANCELLED, State.EXPIRED):
        return Refused(
            f"cannot send it: the message of this Idempotency-Key is {row.state.value}"
            f" ({row.sentence}), and none was sent; another message needs another key",
            field="Idempotency-Key",
            code=row.state.value,
        )
    return TryLater(
        "cannot tell whether the first request with this Idempotency-Key sent the message"
        f" ({row.sentence}); check it before you send it with another key",
        code=UNKNOWN_OUTCOME,
    )
