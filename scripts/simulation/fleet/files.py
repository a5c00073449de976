"""What the sessions' files hold, and their stored copies: the world knows what is newer."""

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scripts.simulation.fleet.machine import Machine

CHANGES, PAIRS = 0.25, 0.15
"""How often a running session's files change at a renewal, and how often that is a pairing."""
GIVEN_UP = 10.0
"""Seconds after which a copy that is not acknowledged is sent again, under the next number."""


@dataclass(slots=True, eq=False)
class Content:
    """Of one session's files at one moment."""

    after: "Content | None" = None
    pairing: bool = False
    acknowledged: bool = False
    """A machine was told that a copy of it is stored."""

    def holds(self, other: "Content") -> bool:
        it: Content | None = self
        while it is not None and it is not other:
            it = it.after
        return it is not None

    def last_pairing(self) -> "Content | None":
        it: Content | None = self
        while it is not None and not it.pairing:
            it = it.after
        return it


@dataclass(frozen=True, slots=True)
class Here:
    """A session's files on a machine's disk."""

    epoch: int
    """Of the session, when the machine got it."""
    number: int
    """Of the last copy that was fetched or begun to be sent."""
    content: Content


@dataclass(frozen=True, slots=True)
class Stored:
    number: int
    content: Content


def is_newest(here: Here | None, epoch: int, number: int) -> bool:
    """Whether a machine may go on with the files that it has."""
    return here is not None and here.epoch == epoch and here.number >= number


def lacks_records(number: int, known: int) -> bool:
    """The database lost the copy that it had when it named this machine as the owner."""
    return number < known


def change(machine: "Machine") -> None:
    """Sessions that run write to their files, and some of them are paired."""
    random, files = machine.world.random, machine.disk.files
    for session, worker in machine.workers.items():
        if worker.runs and session in machine.owned and random.random() < CHANGES:
            here = files[session]
            written = Content(here.content, pairing=random.random() < PAIRS)
            files[session] = replace(here, content=written)


def may_run(machine: "Machine", session: str) -> bool:
    """The newest files are here; else they are fetched."""
    last = machine.last
    if last is None:
        return False
    epoch, number = last.session_epochs[session], last.copies[session]
    if is_newest(machine.disk.files.get(session), epoch, number):
        return True
    database, run = machine.database, machine.run

    def place(stored: Stored) -> None:
        old = lacks_records(stored.number, number)
        if session in machine.owned and machine.last and machine.settled and not old:
            known = machine.last.session_epochs[session], machine.last.copies[session]
            worker = machine.workers.get(session)
            if known == (epoch, number) and not (worker and worker.runs) and not machine.disk.full:
                machine.disk.files[session] = Here(epoch, number, stored.content)
                machine.refused.discard(session)
                machine.stored.pop(session, None)

    def there() -> None:
        stored = database.tables.copies[session]
        machine.world.send("db", machine.name, lambda: machine.do(run, lambda: place(stored)))

    machine.world.send(machine.name, "db", there)
    return False


def store_all(machine: "Machine") -> None:
    """What changed since the last copy, of the sessions whose newest files are here."""
    last, files = machine.last, machine.disk.files
    if last is None or machine.disk.full:
        return
    for session in sorted(machine.owned):
        here = files.get(session)
        newest = is_newest(here, last.session_epochs[session], last.copies[session])
        if newest and here and machine.stored.get(session) is not here.content:
            store(machine, session)


def store(machine: "Machine", session: str) -> None:
    """Its number is on the disk before the copy is sent."""
    files, now = machine.disk.files, machine.world.now
    sent = machine.sending.get(session, -GIVEN_UP)
    if now < sent + GIVEN_UP or session in machine.refused:
        return
    here = files[session] = replace(files[session], number=files[session].number + 1)
    machine.sending[session] = now
    database, run, epoch = machine.database, machine.run, machine.disk.epoch

    def there() -> None:
        taken = database.store_copy(machine.id, epoch, session, here)
        heard = partial(acknowledged, machine, session, here, taken)
        machine.world.send("db", machine.name, lambda: machine.do(run, heard))

    machine.world.send(machine.name, "db", there)


def acknowledged(machine: "Machine", session: str, here: Here, taken: bool) -> None:
    last = machine.disk.files.get(session, here).number == here.number
    if not taken:  # another machine owns it, or a newer copy is stored
        machine.refused.add(session)
        machine.moving.pop(session, None)
        return
    machine.database.acknowledge(session, here.content)
    if last:
        machine.stored[session] = here.content
        machine.sending.pop(session, None)
        machine.stored_exactly(session)
