"""The outbox's clock. It shows the wall's time and does not jump: when somebody sets the machine's
clock, every time that is noted moves with it, so that a message has as long as it had before."""

import time
from collections.abc import Callable

from sqlite_utils import Database

from agent.clock import boot_id, boot_now
from agent.store.writer import Writer

LEAST_STEP = 1.0
"""Seconds off that count as a clock that was set."""

TABLE = "create table if not exists clock (boot text not null, ahead real not null);"
"""One row: the boot at which times were noted last, and the wall's clock less the boot's then."""

# A try's beginning never moves ahead: what was sent since then would count as not sent.
_WAITING = """
update messages set accepted_wall = accepted_wall + :step, expires_wall = expires_wall + :step,
    not_before_wall = iif(not_before_wall > 0, not_before_wall + :step, 0),
    begun_wall = iif(begun_wall > 0, begun_wall + min(:step, 0), 0)
    where state = 'accepted'
"""
_ENDED = "update messages set changed_wall = changed_wall + :step"

_WAITING_AHEAD = """
update messages set expires_wall = expires_wall - accepted_wall + :now, accepted_wall = :now,
    not_before_wall = min(not_before_wall, :now), begun_wall = min(begun_wall, :now)
    where state = 'accepted' and accepted_wall > :now
"""
_ENDED_AHEAD = "update messages set changed_wall = :now where changed_wall > :now"


class OutboxClock:
    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        boot: Callable[[], float] = boot_now,
        boot_id: Callable[[], str] = boot_id,
    ) -> None:
        self._wall, self._boot, self._boot_id = wall, boot, boot_id
        self._ahead = self._read()

    def now(self) -> float:
        return self._boot() + self._ahead

    async def open(self, writer: Writer) -> None:
        """Bring what the file notes to the clock of now. Of the time that the machine was off only
        the wall's clock tells; where it is behind what is noted, no time has gone by."""
        boot = self._boot_id()

        def write(db: Database) -> None:
            noted = db.execute("select boot, ahead from clock").fetchone()
            if noted is None or noted[0] != boot:
                for update in (_WAITING_AHEAD, _ENDED_AHEAD):
                    db.execute(update, {"now": self.now()})
            elif abs(self._ahead - noted[1]) >= LEAST_STEP:
                _move(db, self._ahead - noted[1])
            _note(db, boot, self._ahead)

        await writer.write(write)

    async def follow(self, writer: Writer) -> float:
        """Seconds by which the clock was set since the last call; what the file notes has moved."""
        step = self._read() - self._ahead
        if abs(step) < LEAST_STEP:
            return 0.0

        def write(db: Database) -> None:
            _move(db, step)
            _note(db, self._boot_id(), self._ahead + step)

        await writer.write(write)
        self._ahead += step
        return step

    def _read(self) -> float:
        return self._wall() - self._boot()


def _move(db: Database, step: float) -> None:
    for update in (_WAITING, _ENDED):
        db.execute(update, {"step": step})


def _note(db: Database, boot: str, ahead: float) -> None:
    db.execute("delete from clock")
    db.execute("insert into clock values (?, ?)", [boot, ahead])
