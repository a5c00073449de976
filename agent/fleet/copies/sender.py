"""Sender: brings what changes in this machine's sessions to the machines with their copies, and
keeps the record of which of these are in sync.

A machine enters `copies` of a session's record when it has all changes so far, and leaves it before
it lacks changes for `OLDEST` seconds: who may take the session over has files that new.
"""

import asyncio
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from agent.clock import boot_now
from agent.core.model import InstanceId
from agent.errors import TryLater, VaultError, WaError
from agent.fleet.copies.beside import Beside
from agent.fleet.copies.change import LARGEST, Change, Sealed, apply, seal
from agent.fleet.copies.changed import Changed
from agent.fleet.copies.standby import Standby
from agent.fleet.keeper import Keeper
from agent.fleet.key import FleetKey
from agent.fleet.peers import Peers, Taken, digest_of
from agent.fleet.records import Session
from agent.fleet.store import StoreAway
from agent.fleet.taking import BATCH, View, in_order
from agent.log import about, log

TICK = 0.5
OLDEST, LEAVES = 15.0, 9.0
"""Seconds that changes may be lacking, and after which the record says so."""
AWAY = 30.0
"""Seconds for which a machine that does not answer, or has no room, gets no copies."""
MOST_SENT = 16 << 20
"""Bytes of one request, but for a change that has more."""


class Owner(Protocol):
    """The machine whose sessions are copied."""

    name: str
    keeper: Keeper | None

    @property
    def view(self) -> View: ...

    def engines(self) -> Mapping[InstanceId, str]:
        """Sessions that this machine owns for sure and whose files are here, with their engine."""

    def copied(self, engine: str) -> bool:
        """True if its files may be copied while it runs."""


@dataclass(slots=True, eq=False)
class Row:
    """Changes of one session, which all its targets get alike."""

    changed: Changed
    epoch: int
    targets: tuple[str, ...]
    number: int
    """Of the last change."""
    name: str = field(default_factory=lambda: os.urandom(8).hex())
    sent: list[Sealed] = field(default_factory=list)
    """Those that a target has not answered yet, from the base on."""
    has: dict[str, int] = field(default_factory=dict)
    """Number of the last change that each target has."""
    whole_at: dict[str, float] = field(default_factory=dict)
    """By machine, begin of the last look of which it has all."""
    cause: str = ""
    """Why nothing can be copied now."""


class Copies:
    def __init__(self, state: Path, root: Path, key: FleetKey, owner: Owner, address: str) -> None:
        folder = state / "fleet"
        self._root, self._key, self._owner = root, key, owner
        self.standby = Standby(folder / "standby", key)
        self.peers = Peers(folder, owner.name, address, self.standby, self._owner_of)
        self._beside = Beside(root, state / "outbox.db")
        self._rows = dict[InstanceId, Row]()
        self._away = dict[str, float]()
        """By machine, boot time before which it gets no copies."""
        self._lock = asyncio.Lock()

    @property
    def causes(self) -> dict[str, str]:
        """Why sessions have no copy."""
        return {id: row.cause for id, row in self._rows.items() if row.cause}

    async def run(self) -> None:
        while True:
            async with self._lock:
                await self._tick()
            await asyncio.sleep(TICK)

    async def _tick(self) -> None:
        keeper = self._owner.keeper
        if keeper is None or keeper.halted or keeper.until <= (begun := boot_now()):
            return
        await self._forget()
        engines = {id: it for id, it in self._owner.engines().items() if self._owner.copied(it)}
        for id in self._rows.keys() - engines.keys():
            del self._rows[id]
        for id, engine in engines.items():
            self._line_up(id, engine, begun)
        await asyncio.to_thread(self._look, begun)
        by_target = dict[str, list[Sealed]]()
        for row in self._rows.values():
            for target in row.targets:
                news = [it for it in row.sent if it.number > row.has.get(target, 0)]
                by_target.setdefault(target, []).extend(news)
        await asyncio.gather(*(self._send(*each, begun) for each in by_target.items()))
        await self._record(keeper)

    def _line_up(self, id: InstanceId, engine: str, now: float) -> None:
        """Begin a row where there is none for these targets."""
        record, row = self._owner.view.sessions[id].record, self._rows.get(id)
        targets = self._targets(id, engine)
        if row is not None and (row.epoch, row.targets) == (record.epoch, targets):
            return
        held = row.whole_at if row is not None and row.epoch == record.epoch else {}
        whole_at = {name: held.get(name, now) for name in record.copies}
        changed = Changed(self._root, id, engine, self._beside)
        number = row.number if row is not None and row.epoch == record.epoch else 0
        self._rows[id] = Row(changed, record.epoch, targets, number, whole_at=whole_at)

    def _targets(self, id: str, engine: str) -> tuple[str, ...]:
        """One machine of two, two of three or more."""
        found, now = list[str](), boot_now()
        machines = self._owner.view.machines
        for name, seen in machines.items():
            it = seen.record
            away = it.lost or it.released or it.drained or self._away.get(name, 0.0) > now
            if name != self._owner.name and it.address and engine in it.engines and not away:
                found.append(name)
        return tuple(in_order(id, found)[: 1 if len(machines) < 3 else 2])

    def _look(self, begun: float) -> None:
        """In a thread: what changed in each session since the last look."""
        self._beside.look()
        for id, row in self._rows.items():
            if not row.targets:
                row.cause = "no other machine can hold its copy"
                continue
            try:
                change, row.cause = row.changed.look(), ""
            except (VaultError, OSError) as error:
                row.cause = str(error)
                continue
            if change is None:
                # All that was sent is as of this look.
                row.whole_at |= {it: begun for it, n in row.has.items() if n == row.number}
                continue
            if sum(it.size for it in change.files.values()) > LARGEST:
                row.cause, row.changed = f"it has more than {LARGEST >> 20} MiB", self._again(row)
                continue
            self._add(id, row, change)

    def _again(self, row: Row) -> Changed:
        return Changed(self._root, row.changed.id, row.changed.engine, self._beside)

    def _add(self, id: InstanceId, row: Row, change: Change) -> None:
        base = not row.sent and not row.has
        row.number += 1
        head = Sealed(id, row.epoch, row.number, base, row.name, b"")
        row.sent.append(seal(self._key, head, change))

    async def _send(self, target: str, changes: list[Sealed], begun: float) -> None:
        seen = self._owner.view.machines.get(target)
        while changes and seen is not None:
            size, batch = 0, list[Sealed]()
            while changes and (not batch or size + len(changes[0].content) <= MOST_SENT):
                size += len(changes[0].content)
                batch.append(changes.pop(0))
            try:
                answers = await self.peers.send(seen.record.address, batch)
            except WaError as error:
                late = [self._rows[InstanceId(it.id)] for it in batch]
                if any(row.whole_at.get(target, 0.0) < begun - LEAVES / 2 for row in late):
                    self._is_away(target, str(error))
                return
            for sealed, answer in zip(batch, answers, strict=False):
                self._answered(target, sealed, answer, begun)

    def _answered(self, target: str, sealed: Sealed, answer: Taken, begun: float) -> None:
        row = self._rows.get(InstanceId(sealed.id))
        if row is None or row.name != sealed.row or answer.code == "not_owner":
            return
        held = (answer.epoch, answer.number) == (row.epoch, sealed.number)
        if not answer.code or (answer.code == "older" and held and row.has.get(target)):
            row.has[target] = sealed.number
            if sealed.number == row.number:
                row.whole_at[target] = begun
            oldest = min((row.has.get(it, 0) for it in row.targets), default=row.number)
            row.sent = [it for it in row.sent if it.number > oldest]
        elif answer.code in ("older", "needs_base"):
            # Another row is there: this one begins again, above it.
            epoch_is_mine = answer.epoch == row.epoch
            number = max(row.number, answer.number if epoch_is_mine else 0)
            again = Row(self._again(row), row.epoch, row.targets, number, whole_at=row.whole_at)
            self._rows[InstanceId(sealed.id)] = again
        else:
            self._is_away(target, f"it cannot keep the copy of {sealed.id}: {answer.code}")

    def _is_away(self, target: str, cause: str) -> None:
        log.warning("machine %s gets no copies for %g s: %s", target, AWAY, cause)
        self._away[target] = boot_now() + AWAY

    async def _record(self, keeper: Keeper) -> None:
        """Machines that lack changes leave, and those that have all of them enter."""
        now, due = boot_now(), dict[str, Session]()
        for id, row in self._rows.items():
            record = self._owner.view.sessions[id].record
            if record.epoch != row.epoch:
                continue
            stay = {it for it in record.copies if row.whole_at.get(it, 0.0) > now - LEAVES}
            enter = {it for it in row.targets if row.has.get(it) == row.number > 0}
            copies = tuple(
                sorted(enter | (stay - enter if len(enter) < len(row.targets) else set()))
            )
            if copies != record.copies:
                due[id] = replace(record, copies=copies)
        try:
            for batch in _batches(due):
                await keeper.change(batch)
        except (TryLater, StoreAway) as error:
            log.debug("copies are recorded with the next look: %s", error)

    def _owner_of(self, id: str) -> str:
        seen = self._owner.view.sessions.get(id)
        return seen.record.machine if seen is not None and not seen.record.deleted else ""

    async def _forget(self) -> None:
        """Copies of sessions that are deleted, or are this machine's with their files here."""
        sessions, mine = self._owner.view.sessions, self._owner.engines()
        for id in [*self.standby.rows]:
            gone = id in sessions and sessions[id].record.deleted
            if gone or id in mine:
                async with self.peers.lock(id):
                    await asyncio.to_thread(self.standby.forget, id)

    # Moves and takeovers.

    async def push(self, id: InstanceId, target: str) -> None:
        """All files of a session whose worker has ended, and the same bytes built there."""
        seen, view = self._owner.view.machines[target], self._owner.view
        address, record = seen.record.address, view.sessions[id].record
        async with self._lock:
            self._rows.pop(id, None)
            changed = Changed(self._root, id, record.engine, self._beside)
            await asyncio.to_thread(self._beside.look)
            change = await asyncio.to_thread(changed.look)
            if change is None:
                raise TryLater(f"cannot copy {id}: its files change though its worker has ended")
            files = dict[str, bytearray]()
            apply(files, change)
            number = 0
            for _ in range(2):
                head = Sealed(id, record.epoch, number + 1, True, os.urandom(8).hex(), b"")
                (answer,) = await self.peers.send(address, [seal(self._key, head, change)])
                number = answer.number
                if answer.code != "older":
                    break
            there = await self.peers.newest(address, id, digest=True) if not answer.code else None
            if there is None or there.digest != digest_of(files):
                cause = answer.code or "its copy there is another one"
                raise TryLater(f"cannot give {id} to machine {target}: {cause}")

    async def fetch_newer(self, id: InstanceId, names: Iterable[str]) -> None:
        """From other machines with a copy, those that answer in time."""
        asked = (self._fetch(id, name) for name in names if name != self._owner.name)
        await asyncio.gather(*asked)

    async def _fetch(self, id: InstanceId, name: str) -> None:
        address = self._owner.view.machines[name].record.address
        try:
            async with asyncio.timeout(2.0):
                there = await self.peers.newest(address, id)
                if (there.epoch, there.number) <= (self.standby.newest(id) or (0, 0)):
                    return
                changes = await self.peers.whole(address, id)
            async with self.peers.lock(id):
                for sealed in changes:
                    if (sealed.epoch, sealed.number) > (self.standby.newest(id) or (0, 0)):
                        await asyncio.to_thread(self.standby.take, sealed)
        except (WaError, TimeoutError) as error:
            log.info("no newer copy from machine %s: %s", name, error, extra=about(id))

    async def build(self, id: InstanceId) -> dict[str, bytearray]:
        async with self.peers.lock(id):
            return await asyncio.to_thread(self.standby.build, id)


def _batches(due: Mapping[str, Session]) -> Iterable[dict[str, Session]]:
    every = [*due.items()]
    return (dict(every[at : at + BATCH]) for at in range(0, len(every), BATCH))
