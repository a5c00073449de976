"""Strangers' requests wait for their turn: a turn of the loop answers one of them, and comes to the
clients with rights before the next, however many strangers ask at a time."""

import asyncio
from collections import deque


class Turns:
    """The addresses take turns: a stranger waits for others of its own address only."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By address; the one whose turn is next comes first."""

    async def wait(self, address: str) -> None:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._give, loop)
        turn = loop.create_future()
        self._waiting.setdefault(address, deque()).append(turn)
        await turn

    def _give(self, loop: asyncio.AbstractEventLoop) -> None:
        address = next(iter(self._waiting))
        waiting = self._waiting.pop(address)
        turn = waiting.popleft()
        if waiting:
            self._waiting[address] = waiting
        if self._waiting:
            loop.call_soon(self._give, loop)
        if not turn.done():
            turn.set_result(None)
