"""What waits of one session, in memory: a lane for each chat, and whose turn it is. Chats that are
due take turns, so that one with many messages delays no other."""

import heapq
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from agent.wings.messages.out.message import OutMessage


@dataclass(slots=True, eq=False)
class Waiting:
    """One message, without what it says."""

    number: int
    id: str
    chat: str
    born: float
    accepted_wall: float
    expires_wall: float
    due: float
    """Not before this wall time."""
    tries: int
    size: int
    file: str
    may_be_out: bool
    """A try of it may have sent it."""
    begun_wall: float = 0.0
    """When that try began."""
    looks: int = 0
    """How often it was looked for since, and not found."""
    impatient: bool = False
    """Its client waits for the answer to the first try: a refusal of it ends the message."""
    held: str = ""
    """Why this one waits beside its session's own reasons."""
    gone: bool = False
    """It has ended."""


def waiting_of(row: OutMessage, *, impatient: bool = False) -> Waiting:
    return Waiting(
        row.number,
        row.id,
        row.chat,
        row.born,
        row.accepted_wall,
        row.expires_wall,
        row.not_before_wall,
        row.tries,
        row.size,
        row.file,
        bool(row.begun_wall),
        row.begun_wall,
        impatient=impatient,
    )


class SessionQueue:
    """Only the first of each chat may be taken."""

    def __init__(self) -> None:
        self.count = 0
        self.under_way: dict[int, Waiting] = {}
        self._lanes: dict[str, deque[Waiting]] = {}
        self._later: list[tuple[float, int, Waiting]] = []
        """A heap by what they are due; an entry whose message has moved on since is skipped."""
        self._ready: list[tuple[int, int, float, Waiting]] = []
        """A heap of those that were due, by their turn."""
        self._turn = 0
        self._turns: dict[str, int] = {}
        """The next turn of each chat that was sent to and has more."""

    def __iter__(self) -> Iterator[Waiting]:
        return (waiting for lane in self._lanes.values() for waiting in lane if not waiting.gone)

    def oldest(self) -> Waiting | None:
        heads = (lane[0] for lane in self._lanes.values())
        return min(heads, key=lambda waiting: waiting.number, default=None)

    def add(self, waiting: Waiting) -> None:
        lane = self._lanes.setdefault(waiting.chat, deque())
        lane.append(waiting)
        self.count += 1
        if len(lane) == 1:
            self._offer(waiting)

    def take(self, now: float) -> Waiting | None:
        """The next one that is due."""
        while self._later and self._later[0][0] <= now:
            due, number, waiting = heapq.heappop(self._later)
            turn = max(self._turn, self._turns.get(waiting.chat, 0))
            heapq.heappush(self._ready, (turn, number, due, waiting))
        while self._ready:
            turn, _, due, waiting = heapq.heappop(self._ready)
            if due == waiting.due and self._is_free(waiting):
                self._turn, self._turns[waiting.chat] = turn, turn + 1
                self.under_way[waiting.number] = waiting
                return waiting
        return None

    def take_among(self, chosen: Collection[Waiting]) -> Waiting | None:
        """One of these whose turn it is, due or not."""
        for waiting in chosen:
            if self._is_free(waiting):
                self.under_way[waiting.number] = waiting
                return waiting
        return None

    def reserve(self, waiting: Waiting) -> bool:
        """Take this one, first of its chat or not."""
        if waiting.gone or waiting.number in self.under_way:
            return False
        self.under_way[waiting.number] = waiting
        return True

    def next_due(self) -> float | None:
        for _, _, due, waiting in self._ready:
            if due == waiting.due and self._is_free(waiting):
                return due
        self._ready.clear()
        while self._later:
            due, _, waiting = self._later[0]
            if due == waiting.due and self._is_free(waiting):
                return due
            heapq.heappop(self._later)
        return None

    def put_back(self, waiting: Waiting, due: float) -> None:
        """Its try is over, and another one comes."""
        del self.under_way[waiting.number]
        waiting.due = due
        if self._is_free(waiting):
            self._offer(waiting)

    def remove(self, waiting: Waiting) -> None:
        """It has ended; the next one of its chat may go."""
        self.under_way.pop(waiting.number, None)
        if waiting.gone:
            return
        waiting.gone = True
        self.count -= 1
        lane = self._lanes[waiting.chat]
        if lane[0] is not waiting:
            return  # it is skipped when its turn comes
        while lane and lane[0].gone:
            lane.popleft()
        if lane:
            self._offer(lane[0])
        else:
            del self._lanes[waiting.chat]
            self._turns.pop(waiting.chat, None)

    def move(self, step: float) -> None:
        """The clock was set: everything is due as long from now as before."""
        for lane in self._lanes.values():
            for waiting in lane:
                waiting.accepted_wall += step
                waiting.expires_wall += step
                waiting.due += step
                if waiting.begun_wall:
                    waiting.begun_wall += min(step, 0.0)
        self._later = [(due + step, number, waiting) for due, number, waiting in self._later]
        self._ready = [(turn, number, due + step, it) for turn, number, due, it in self._ready]

    def _is_free(self, waiting: Waiting) -> bool:
        if waiting.gone or waiting.number in self.under_way:
            return False
        lane = self._lanes.get(waiting.chat)
        return lane is not None and lane[0] is waiting

    def _offer(self, waiting: Waiting) -> None:
        heapq.heappush(self._later, (waiting.due, waiting.number, waiting))
