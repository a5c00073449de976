"""Limits for connections by their stage: before a whole head, in a request, idle, or unread.

127.0.0.1 is shared by all programs on this machine. Connections that send nothing or do not read
their answer close the oldest of their own stage, and take no room from requests. Requests over the
limit are refused, but for those that monitoring depends on and those of clients with rights.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.api.http.connection import Connection


class Stage(StrEnum):
    HEAD = "head"
    """No whole head has come yet."""
    ASKED = "asked"
    """A whole head has come; a stranger's waits for its turn."""
    REQUEST = "request"
    """Admitted: it has a place until its answer is sent."""
    IDLE = "idle"
    """Kept alive after an answer."""
    UNREAD = "unread"
    """Its client leaves an answer unread, and the buffer for it is full."""


@dataclass(slots=True)
class ConnectionLimits:
    """The connections of each stage, counted by address and in total."""

    per_address: int = 64
    """Requests at a time, and as many idle connections."""
    heads_per_address: int = 256
    heads: int = 512
    requests: int = 512
    idle: int = 512
    asked_per_address: int = 512
    """Strangers' requests that wait for their turn."""
    asked: int = 2048
    unread_per_address: int = 16
    unread: int = 64
    kept_free: int = 32
    """More requests that scrapes and probes may take."""
    kept_for_rights: int = 1024
    """And more again for clients with rights, whose requests may all come from one address: no
    stranger takes these, and each session may have a reader that waits."""
    gave_way: int = 0
    refused: int = 0
    _standing: dict[Stage, dict["Connection", str]] = field(
        default_factory=lambda: {stage: {} for stage in Stage}
    )
    """The oldest first; each with its address."""
    _counted: Counter[tuple[Stage, str]] = field(default_factory=Counter)

    def stand(self, connection: "Connection", address: str, stage: Stage) -> None:
        self.leave(connection)
        self._standing[stage][connection] = address
        self._counted[stage, address] += 1
        if stage is Stage.HEAD:
            self._make_room(stage, address, self.heads_per_address, self.heads)
        elif stage is Stage.IDLE:
            self._make_room(stage, address, self.per_address, self.idle)
        elif stage is Stage.UNREAD:
            self._make_room(stage, address, self.unread_per_address, self.unread)

    def leave(self, connection: "Connection") -> None:
        for stage, standing in self._standing.items():
            address = standing.pop(connection, None)
            if address is not None:
                self._counted[stage, address] -= 1
                if not self._counted[stage, address]:
                    del self._counted[stage, address]

    def line_up(self, connection: "Connection", address: str, *, needed: bool) -> bool:
        """Let a stranger's request wait for its turn; False: too many wait already."""
        more = self.kept_free if needed else 0
        at_one, together = self.asked_per_address + more, self.asked + more
        return self._take(connection, address, Stage.ASKED, at_one, together)

    def admit(
        self, connection: "Connection", address: str, *, needed: bool, righted: bool = False
    ) -> bool:
        """Give its request a place; False: those that were admitted before it leave none."""
        more = self.kept_free if needed else 0
        at_one, together = self.per_address + more, self.requests + more
        if righted:
            at_one = together = self.requests + self.kept_free + self.kept_for_rights
        return self._take(connection, address, Stage.REQUEST, at_one, together)

    def _take(
        self, connection: "Connection", address: str, stage: Stage, at_one: int, together: int
    ) -> bool:
        self.leave(connection)
        free = self._counted[stage, address] < at_one and len(self._standing[stage]) < together
        if free:
            self.stand(connection, address, stage)
        else:
            self.refused += 1
        return free

    def count(self, stage: Stage) -> int:
        return len(self._standing[stage])

    def _make_room(self, stage: Stage, address: str, at_one: int, together: int) -> None:
        if self._counted[stage, address] > at_one:
            self._close_oldest(stage, lambda whose: whose == address)
        if len(self._standing[stage]) > together:
            self._close_oldest(stage, lambda _whose: True)

    def _close_oldest(self, stage: Stage, of: Callable[[str], bool]) -> None:
        oldest = next(
            (connection for connection, address in self._standing[stage].items() if of(address)),
            None,
        )
        if oldest is not None:
            self.leave(oldest)
            self.gave_way += 1
            oldest.give_way()
