"""When messages that wait end by themselves: their time is over."""

import heapq
from collections.abc import Awaitable, Callable

from agent.core.model import InstanceId
from agent.wings.messages.out.session.queue import Waiting
from agent.wings.messages.out.states import State

End = Callable[[InstanceId, Waiting, State, str], Awaitable[bool]]
"""Ends one that is not being sent; False: it is."""


class Expiries:
    def __init__(self) -> None:
        self._heap: list[tuple[float, int, InstanceId, Waiting]] = []

    def add(self, id: InstanceId, waiting: Waiting) -> None:
        heapq.heappush(self._heap, (waiting.expires_wall, waiting.number, id, waiting))

    def move(self, step: float) -> None:
        """The clock was set: each is over as long from now as before."""
        self._heap = [(due + step, number, id, it) for due, number, id, it in self._heap]

    async def end_due(self, now_wall: float, end: End) -> None:
        later = []
        while self._heap and self._heap[0][0] <= now_wall:
            _, _, id, waiting = heapq.heappop(self._heap)
            if waiting.gone:
                continue
            state, sentence = State.EXPIRED, "it could not be sent in time"
            if waiting.may_be_out:
                state = State.FAILED
                sentence = "its time is over; an earlier try may have sent it"
            if not await end(id, waiting, state, sentence):
                later.append((id, waiting))
        for each in later:
            self.add(*each)
