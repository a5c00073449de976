"""Sender: brings what changes in this machine's sessions to the machines with their copies, and
keeps the record of which of these are in sync.

A machine enters `copies` of a session's record when it has all changes so far, and leaves it before
it lacks changes for `OLDEST` seconds: who may take the session over has files that new. A machine
that got nothing for some seconds is asked if what it has is still the newest.
"""

import asyncio
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from agent.clock import boot_now
from agent.core.model import InstanceId, SessionFiles
from agent.errors import TryLater, VaultError, WaError
from agent.fleet.copies import standby
from agent.fleet.copies.change import File, FleetKey, Sealed, seal
from agent.fleet.copies.changed import MOVED, Beside, Changed
from agent.fleet.keeper import BootClock, Keeper
from agent.fleet.peers import Peers, Taken
from agent.fleet.records import COPIED_LIVE, Session
from agent.fleet.taking import BATCH, in_order
from agent.log import about, log
from agent.vault import folder, tree

if TYPE_CHECKING:
    from agent.fleet.joined import Joined

TICK = 0.75
OLDEST, LEAVES = 15.0, 8.0
"""Seconds that changes may be lacking, and after which the record says so: a copy of messages.db
is up to 4 s old, and the write takes a moment."""
BEGINS = 2.5
"""Seconds in which a machine of the record must answer to an agent that begins: it does not know
since when that machine lacks changes."""
ASKS, AGAIN = 4.0, 1.0
"""Seconds after which a machine that got nothing is asked if it still has the copy, and until one
that did not answer is asked again."""
AWAY, FORGETS = 30.0, 60.0
"""Seconds for which a machine that does not answer for long, or has no room, gets no copies, and a
session that cannot be copied is not looked at; and between two looks for copies of no use, as well
as without a word of its owner's before a copy is one: a machine that enters the record is asked all
the time."""
MOST_SENT, MOST_READ = 4 << 20, 16 << 20
"""Bytes of one request, but for a change that has more; and of the bases that are made in one tick,
or wait for one machine."""

DAMAGED = "cannot copy it: the files of its pairing are damaged, or gone"
JUMP = 1000
"""Changes of an agent before this one, or of a row that ended, that may still be on their way."""


class Place(Struct):
    """A machine that has a copy of one session, or is to have one."""

    whole_at: float
    """Boot time of the last look of which the machine has all, as far as it has answered."""
    has: int = 0
    """Number of the last change of this row that the machine has; 0 = none."""
    sent: int = 0
    """Number of the last change that is on its way there; 0 = the machine needs a base."""
    ready: bool = False
    """True if the machine has answered that it takes this session's changes."""
    asked_at: float = 0.0


class Row(Struct, eq=False):
    """Changes of one session, from a base on, which all its places get alike."""

    changed: Changed
    epoch: int
    targets: tuple[str, ...] = ()
    places: dict[str, Place] = {}
    name: str = ""
    number: int = 0
    """Number of the last change."""
    base: bool = True
    """True if the next change has all files."""
    cause: str = ""
    """Why nothing can be copied now."""
    lost: bool = False
    """True if the files of a pairing are not here, or damaged: the copies of it are the newest."""
    not_before: float = 0.0

    def begin(self) -> None:
        old = self.changed
        self.changed = Changed(old.root, old.id, old.engine, old.beside)
        self.name, self.base = os.urandom(8).hex(), True
        for place in self.places.values():
            place.has = place.sent = 0


class Line(Struct, eq=False):
    """The line to one machine: one request at a time."""

    queue: list[tuple[Sealed, Row, float]] = []
    """Changes to send, each with its row and the begin of its look."""
    sending: asyncio.Task[None] | None = None
    failing_since: float = 0.0
    not_before: float = 0.0
    away_until: float = 0.0
    cause: str = ""
    """Why the machine is away; "" once it has answered."""


class Copies:
    def __init__(self, owner: "Joined", root: Path, key: FleetKey) -> None:
        self._root, self._key, self._owner, self.mark = root, key, owner, key.mark
        self.standby = standby.Standby(owner.folder / "standby", key)
        self.peers = Peers(owner, self.standby)
        self._beside = Beside(root, owner.folder.with_name("outbox.db"))
        self.rows, self.lines = dict[InstanceId, Row](), dict[str, Line]()
        self._pushed = set[InstanceId]()
        """Sessions that are handed over now."""
        self._forgets_at = boot_now() + FORGETS
        self._hurried = asyncio.Event()
        """Set when the next look is waited for."""
        self._looking: asyncio.Future[list[tuple[Row, Sealed | None]]] | None = None

    @property
    def away(self) -> list[InstanceId]:
        """Sessions whose files are lost."""
        return [id for id, row in self.rows.items() if row.lost]

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                await self._tick(group)
                await BootClock().wait(self._hurried, TICK)
                self._hurried.clear()

    async def _tick(self, group: asyncio.TaskGroup) -> None:
        keeper = self._owner.keeper
        if keeper is None or keeper.halted or keeper.until <= (begun := boot_now()):
            return
        if begun >= self._forgets_at:
            self._forgets_at = begun + FORGETS
            await self._forget()
        engines = {id: it for id, it in self._owner.engines().items() if it in COPIED_LIVE}
        for id in self.rows.keys() - (engines.keys() - self._pushed):
            del self.rows[id]
        for id in engines.keys() - self._pushed:
            self._line_up(id, engines[id], begun)
        if self._looking is None:
            work = asyncio.to_thread(self._look, begun, [*self.rows.values()])
            self._looking = asyncio.ensure_future(work)
        await asyncio.wait({self._looking})  # if cancelled, the next tick has what it found
        looked, self._looking = self._looking, None
        for row, sealed in looked.result():
            self._queue(row, sealed, begun)
        for name, line in self.lines.items():
            if begun > line.away_until + AWAY:  # it is not asked any more
                line.cause = ""
            if line.queue and (line.sending is None or line.sending.done()):
                line.sending = group.create_task(self._send(name, line), name=f"copies to {name}")
        await self._record(keeper)

    def _line_up(self, id: InstanceId, engine: str, now: float) -> None:
        """Choose places of copies. A machine in the session's record may have all: it is asked."""
        record, row = self._owner.view.sessions[id].record, self.rows.get(id)
        since = 0.0  # what came into the record behind this machine's back must prove itself
        if row is None or row.epoch != record.epoch:
            row = self.rows[id] = Row(Changed(self._root, id, engine, self._beside), record.epoch)
            row.begin()
            since = now - LEAVES + BEGINS
        row.targets = self._targets(id, engine)
        if not row.targets:
            row.cause = "no other machine can hold its copy"
        names = {*row.targets, *record.copies}
        row.places = {name: row.places.get(name) or Place(since) for name in names}
        self.lines = {name: Line() for name in names} | self.lines
        if not row.base and any(it.ready and not it.sent for it in row.places.values()):
            row.begin()

    def _targets(self, id: str, engine: str) -> tuple[str, ...]:
        """Choose the machines for copies: one in a fleet of two, two in a larger one."""
        found, now, me = list[str](), boot_now(), self._owner.name
        machines = self._owner.view.machines
        for name, seen in machines.items():
            it, line = seen.record, self.lines.get(name)
            away = it.lost or it.released or it.drained or (line and line.away_until > now)
            if name != me and engine in it.engines and it.key == self.mark and not away:
                found.append(name)
        return tuple(in_order(id, found)[: 1 if len(machines) < 3 else 2])

    def _look(self, begun: float, rows: list[Row]) -> list[tuple[Row, Sealed | None]]:
        """Find in a thread what changed in each session since the last look, bases last."""
        self._beside.look()
        found, size = list[tuple[Row, Sealed | None]](), 0
        for row in sorted(rows, key=lambda it: it.base):
            id, engine = row.changed.id, row.changed.engine
            session = self._root / id / folder.SESSION
            ready = (self.lines[name].queue for name, it in row.places.items() if it.ready)
            waits = (sum(len(it.content) for it, _, _ in queue) for queue in ready)
            has_room = size < MOST_READ and any(it <= MOST_READ for it in waits)
            if begun < row.not_before or (row.base and not has_room):
                row.lost = (row.lost or not os.path.lexists(session)) and self._is_lost(id, engine)
                found.append((row, None))
                continue
            try:
                change, pairing = row.changed.look(), COPIED_LIVE[engine]
                # No copy is replaced by the damaged files of a pairing.
                new = change and (row.base or pairing in {*change.files, *change.gone})
                if new and self._is_lost(id, engine):
                    raise VaultError(DAMAGED)
                row.cause, row.lost = "", False
            except (VaultError, OSError) as error:
                row.lost = self._is_lost(id, engine)
                if getattr(error, "code", "") == "absent" and os.path.lexists(session):
                    continue  # a file went meanwhile: the next look has what is there
                row.cause = str(error)
                if row.cause == DAMAGED:
                    row.begin()  # the next change has all files
                elif os.path.lexists(session):  # or a logout replaces it
                    row.not_before = begun + AWAY
                    log.warning("cannot copy it: %s", error, extra=about(id))
                continue
            sealed = None
            if change is not None:
                head = Sealed(id, row.epoch, row.number + 1, row.base, row.name, b"")
                sealed = seal(self._key, head, change)
                size += len(sealed.content) * row.base
            found.append((row, sealed))
        return found

    def _is_lost(self, id: InstanceId, engine: str) -> bool:
        whole = tree.inspect(self._root / id, engine).files is SessionFiles.WHOLE
        return not whole and id in (here := self._owner.here()) and here[id].record.paired

    def _queue(self, row: Row, sealed: Sealed | None, begun: float) -> None:
        """A change for each place that has the one before it; for the others, and where nothing
        changed for some seconds, the question what they have."""
        before = row.number
        if sealed is not None and sealed.row != row.name:
            return
        if sealed is not None:
            row.number, row.base = sealed.number, False
        head = Sealed(row.changed.id, row.epoch, row.number, False, row.name, b"")
        for name, place in row.places.items():
            line = self.lines[name]
            fits = place.ready if sealed and sealed.base else place.sent == before > 0
            if begun < line.not_before:
                if sealed is not None:  # it misses this one
                    place.ready, place.sent = False, 0
            elif sealed is not None and fits:
                place.sent, place.asked_at = row.number, begun
                line.queue.append((sealed, row, row.changed.as_of))
            elif begun - place.asked_at >= (ASKS if place.ready else AGAIN):
                place.asked_at = begun
                line.queue.append((head, row, row.changed.as_of))

    async def _send(self, name: str, line: Line) -> None:
        while line.queue:
            size, batch = 0, list[tuple[Sealed, Row, float]]()
            while line.queue and (not batch or size + len(line.queue[0][0].content) <= MOST_SENT):
                size += len(line.queue[0][0].content)
                batch.append(line.queue.pop(0))
            begun = boot_now()
            try:
                answers = await self.peers.send(self.address(name), name, [it[0] for it in batch])
            except WaError as error:
                # Each may have been taken: the machine is asked.
                for _, row, _ in (*batch, *line.queue):
                    if (place := row.places.get(name)) is not None:
                        place.ready, place.sent = False, 0
                line.queue.clear()
                line.failing_since = line.failing_since or begun
                line.not_before = boot_now() + AGAIN
                if line.not_before - line.failing_since > LEAVES / 2:
                    self._is_away(name, str(error))
                return
            line.failing_since, line.cause = 0.0, ""
            for (sealed, row, as_of), answer in zip(batch, answers, strict=False):
                self._answered(name, row, sealed, as_of, answer)

    def _answered(self, name: str, row: Row, sealed: Sealed, as_of: float, answer: Taken) -> None:
        """Take in an answer, which counts for its own row alone."""
        if (place := row.places.get(name)) is None or row.name != sealed.row:
            return
        place.ready = answer.code in ("", "older", "needs_base")
        if not answer.code:
            place.has, place.whole_at = sealed.number, as_of
            place.sent = place.sent or sealed.number  # it has what it did not answer
            return
        place.has = place.sent = 0
        if place.ready:
            if answer.epoch == row.epoch and answer.number >= row.number:
                row.number = answer.number + JUMP
        elif answer.code in ("disk_full", "read_only"):
            self._is_away(name, f"it has no room: {answer.code}")
        elif answer.code != "not_owner":
            log.warning("machine %s takes no copy: %s", name, answer.code, extra=about(sealed.id))
            place.asked_at = boot_now() + AWAY

    def _is_away(self, name: str, cause: str) -> None:
        if (line := self.lines[name]).away_until < boot_now():
            log.warning("machine %s gets no copies for %g s: %s", name, AWAY, cause)
        line.away_until, line.cause = boot_now() + AWAY, cause

    async def _record(self, keeper: Keeper) -> None:
        """Write records: machines that lack changes leave, and those that have all enter."""
        oldest, due = boot_now() - LEAVES, dict[str, Session]()
        stays = keeper.leaving.union(self.away)
        for id, row in self.rows.items():
            seen = self._owner.view.sessions.get(id)
            if seen is None or seen.record.epoch != row.epoch or id in stays:
                continue
            fresh = {it for it, place in row.places.items() if place.whole_at > oldest}
            enter = {it for it in fresh & {*row.targets} if row.places[it].has == row.number > 0}
            stay = [it for it in seen.record.copies if it in fresh]
            if row.targets and enter.issuperset(row.targets):
                stay = [it for it in stay if it in enter]
            if (copies := (*stay, *sorted(enter - {*stay}))) != seen.record.copies:
                due[id] = replace(seen.record, copies=copies)
        for at in range(0, len(due), BATCH):
            try:
                if not await keeper.change(dict([*due.items()][at : at + BATCH])):
                    keeper.wake()
            except TryLater as error:
                log.debug("copies are not recorded now: %s", error)

    def address(self, name: str) -> str:
        if (seen := self._owner.view.machines.get(name)) is None or seen.record.lost:
            raise TryLater(f"cannot reach machine {name}: it is lost", code="owner_away")
        return seen.record.address

    async def _forget(self) -> None:
        """Forget copies of sessions whose files are here as their owner, and those of no use."""
        mine = self._owner.engines().keys()
        for id in [*self.standby.rows]:
            async with self.peers.lock(id):
                if id in mine or self._is_useless(id):
                    await asyncio.to_thread(self.standby.forget, id)

    def _is_useless(self, id: str) -> bool:
        """True if the session is deleted, or the record names other machines and not this one."""
        view, quiet = self._owner.view, time.time() - self.standby.asked.get(id, 0.0)
        if (seen := view.sessions.get(id)) is None:
            return False
        record = seen.record
        named = self._owner.name in (record.machine, *record.copies)
        living = {name for name, it in view.machines.items() if not it.record.lost}
        held = record.machine in living and bool(living & {*record.copies})
        return record.deleted or (held and not named and quiet > FORGETS)

    # Stops, moves and takeovers.

    async def flush(self, *ids: InstanceId) -> None:
        """Return when the targets of these sessions, or of all, have all as of now, while `run`
        runs. The caller limits the time."""
        asked = boot_now()
        while True:
            rows = [self.rows[id] for id in ids or self.rows if id in self.rows]
            each = ((row, row.places[name]) for row in rows for name in row.targets)
            if not (late := [it for it in each if not it[0].cause and it[1].whole_at < asked]):
                return
            for row, place in late:
                self._beside.hurry(row.changed.id)
                place.asked_at *= place.asked_at >= asked
            self._hurried.set()
            await asyncio.sleep(TICK / 10)

    async def push(self, id: InstanceId, target: str) -> None:
        """Send all files of a session whose worker has ended; `target` has taken them on return."""
        row, address = self.rows.pop(id, None), self.address(target)
        record = self._owner.view.sessions[id].record
        self._pushed.add(id)
        try:
            changed = Changed(self._root, id, record.engine, self._beside)
            await asyncio.to_thread(self._beside.look)
            if (change := await asyncio.to_thread(changed.look)) is None:
                raise TryLater(f"cannot copy {id}: its files change though its worker has ended")
            if await asyncio.to_thread(self._is_lost, id, record.engine):
                raise VaultError(DAMAGED)
            change.files[MOVED] = File(0, {})
            number, answer = row.number if row else 0, Taken("older")
            for _ in range(2):
                number = max(number, answer.number) + JUMP
                head = Sealed(id, record.epoch, number, True, os.urandom(8).hex(), b"")
                sealed = await asyncio.to_thread(seal, self._key, head, change)
                (answer,) = await self.peers.send(address, target, [sealed])
                if answer.code != "older":
                    break
            if answer.code:
                raise TryLater(f"cannot give {id} to {target}: it takes no copy ({answer.code})")
        finally:
            self._pushed.discard(id)

    async def fetch_newer(self, id: InstanceId, names: Iterable[str]) -> str:
        """From other machines with a copy, those that answer in time. Returns why one of the
        others did not."""
        asked = (self._fetch(id, name) for name in names if name != self._owner.name)
        return next(filter(None, await asyncio.gather(*asked)), "")

    async def _fetch(self, id: InstanceId, name: str) -> str:
        try:
            address = self.address(name)
            async with asyncio.timeout(2.0):
                there = await self.peers.get(address, name, f"/copies/{id}", tuple[int, int])
            if there > (self.standby.newest(id) or (0, 0)):
                changes = await self.peers.get(address, name, f"/copies/{id}?whole=1", list[Sealed])
                async with self.peers.lock(id):
                    await asyncio.to_thread(self.standby.replace, id, changes)
        except (WaError, TimeoutError) as error:
            seen = self._owner.view.machines.get(name)
            if getattr(error, "code", "") != "no_copy" and not (seen and seen.record.forgotten):
                return str(error) or f"machine {name}, which may have newer files, does not answer"
        return ""
