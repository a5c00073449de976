"""Arriving: the copy of a session becomes its folder on this machine, and the folder of a session
that went on elsewhere goes into the trash.

A kill at any point leaves the copy as it is, and the session unsettled: it is brought in again, and
starts nowhere before that.
"""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from sqlite_utils import Database

from agent.core.model import Instance, InstanceId, JournalEntry, SessionRecord
from agent.errors import VaultError
from agent.fleet.copies.change import IDENTITY, MEDIA, ROWS
from agent.messages.outbox import COLUMNS, LOST
from agent.messages.outcomes import State
from agent.messages.sending import Sending
from agent.supervise import assemble
from agent.supervise.facts import Facts, entry
from agent.vault import folders, restore, tree
from agent.vault.folder import SESSION, unless_absent
from agent.vault.identity import parse_identity

KNOWN = 48 * 3600.0
"""Seconds for which each outbox knows a message that it sent, and more (72 h)."""
_IN_FOLDER = (SESSION, restore.KEPT)
Files = Mapping[str, bytes | bytearray]
PassOn = Callable[[Files], Awaitable[None]]


class Arriving:
    def __init__(self, base: assemble.Supervisor, sending: Sending) -> None:
        self._registry, self._keeping, self._root = base.registry, base.keeping, base.root
        self._store, self._seats, self._wake = base.store, base.seats, base.wake
        self._sending = sending

    async def bring_in(self, id: InstanceId, files: Files, why: str) -> None:
        """In place of what is here. VaultError where the copy is of no use or there is no room."""
        if IDENTITY not in files:
            raise VaultError(f"cannot use the copy of {id}: it has no {IDENTITY}", code="damaged")
        identity = parse_identity(bytes(files[IDENTITY]), self._root / id)
        made, record = identity.instance, replace(identity.record, status_since_wall=time.time())
        await asyncio.to_thread(_stage, self._root, id, files)
        if (old := self._registry.facts.get(id)) is not None:
            await self.retire(old, "replaced", f"a newer copy replaces it: {why}")
        async with self._registry.making(id, f"bring in {id}"):
            if (self._root / id).exists():  # no session of this agent's: damaged, or cut off here
                await asyncio.to_thread(folders.retire, self._root, id, "replaced", follows=False)
            leased = replace(identity, leased=True)
            put = partial(restore.put_in_place, self._root, "import", leased, replace=False)
            await asyncio.to_thread(partial(put, lineage=identity.lineage, why="replaced"))
            await self._admit(made, record, files, why)

    async def _admit(self, made: Instance, record: SessionRecord, files: Files, why: str) -> None:
        said = JournalEntry("arrived", why, instance=made.id, wall=time.time())
        await self._store.add(made, record, said)
        await self._write_messages(made.id, files, instead=True)
        facts = self._registry.add(made, record)
        facts.enabled_by_operator = self._seats.enabled_by_operator(facts)
        await self._send(made.id)
        self._wake(made.id)

    async def leave(self, facts: Facts, kind: str, why: str, pass_on: PassOn) -> None:
        """Its folder goes into the trash. `pass_on`: brings to the machine that has the session now
        what was only accepted here."""
        await pass_on(await self.unsent(facts.id))
        await self.retire(facts, kind, why)
        await pass_on(await self.unsent(facts.id))  # what came meanwhile
        outbox = await self._sending.ready()
        await self._sending.let_go(outbox, facts.id, "is on another machine now")

    async def retire(self, facts: Facts, kind: str, why: str) -> None:
        facts.action.interrupt_start()
        async with facts.busy, self._keeping.ending(facts):
            if facts.gone:
                return
            await self._seats.stop(facts)
            with unless_absent():
                work = partial(folders.retire, self._root, facts.id, kind, follows=False)
                await asyncio.to_thread(work)
            await self._store.remove(facts.id, entry(facts, kind, why))
            self._registry.drop(facts)

    async def unsent(self, id: InstanceId) -> Files:
        """Messages that were only accepted here, as a copy has them; {} = there is none."""
        outbox = await self._sending.ready()

        def read(db: Database) -> Files:
            rows = _unsent(db, id, outbox.now())
            kept = {its["file"]: b"" for its in rows if its["file"]}
            for name in kept:
                with suppress(FileNotFoundError):
                    kept[name] = (self._sending.files.folder / name).read_bytes()
            table = [[*rows[0]], *([*its.values()] for its in rows)] if rows else []
            media = {MEDIA + name: content for name, content in kept.items()}
            return {ROWS: json.dumps(table).encode(), **media} if rows else {}

        return await outbox.writer.read(read)

    async def take_over(self, id: InstanceId, files: Files) -> None:
        """Send what a machine that had the session before has accepted."""
        await self._write_messages(id, files)
        await self._send(id)

    async def _write_messages(self, id: InstanceId, files: Files, *, instead: bool = False) -> None:
        """What may have been sent is unknown; one that is here already stays as it is. `instead`:
        of what is here only what was just accepted stays."""
        rows, outbox = _rows(files.get(ROWS, b"[[]]")), await self._sending.ready()
        for row in rows:
            if row["state"] == State.SENDING:
                row |= {"state": State.UNKNOWN, "reason": "unknown", "sentence": LOST}
                row |= {"content": "", "file": "", "size": 0}
            if media := files.get(MEDIA + row["file"]) if row["file"] else None:
                text = base64.b64encode(media).decode()
                await asyncio.to_thread(self._sending.files.write, row["file"], text)

        def write(db: Database) -> None:
            own = _unsent(db, id, outbox.now()) if instead else []
            db.execute("delete from messages where instance = ? and ?", [id, instead])
            for row in (*rows, *own):
                marks = ", ".join("?" * len(row))
                into = f"insert or ignore into messages ({', '.join(row)}) values ({marks})"
                db.execute(into, [*row.values()])

        if instead and (sender := self._sending.senders.get(id)) is not None:
            for waiting in [*sender.waiting.values()]:
                sender.drop(waiting)
        await outbox.writer.write(write)

    async def _send(self, id: InstanceId) -> None:
        outbox, sender = await self._sending.ready(), self._sending.senders.get(id)
        for each in await outbox.waiting():
            if each.instance == id and not (sender and each.number in sender.waiting):
                self._sending.add(outbox, each, impatient=False)


def _unsent(db: Database, id: InstanceId, now: float) -> list[dict[str, Any]]:
    """Not those of long ago: another machine may have sent one and forgotten it since."""
    names = f"{COLUMNS.partition(', ')[2]}, content"
    mine = "instance = ? and state = 'accepted' and begun_wall = 0 and accepted_wall > ?"
    rows = f"select {names} from messages where {mine} order by number"
    found = db.execute(rows, [id, now - KNOWN])
    return [dict(zip(names.split(", "), row, strict=True)) for row in found]


def _rows(raw: bytes | bytearray) -> list[dict[str, Any]]:
    """Names of the columns, then each row; the numbers are another machine's."""
    try:
        names, *rows = json.loads(raw)
        found = [dict(zip(names, row, strict=True)) for row in rows]
        columns = [*COLUMNS.split(", ")[1:], "content"]
        return [{its: row[its] for its in columns} for row in found]
    except (ValueError, TypeError, KeyError) as error:
        raise VaultError(f"cannot read the messages of a copy: {error}", code="damaged") from error


def _stage(root: Path, id: InstanceId, files: Files) -> None:
    """Its session and its messages, apart and on the disk."""
    lie = {it: content for it, content in files.items() if it.partition("/")[0] in _IN_FOLDER}
    inner = {str(above) for it in lie for above in PurePosixPath(it).parents} - {".", SESSION}
    folders.leave_room(root, f"bring in {id}", sum(map(len, lie.values())), len(lie))
    with (
        folders.open_own(root, folders.STAGING) as (top, staging),
        restore.staged(root, id, "import"),
        staging.inner(f"{id}.import") as made,
    ):
        for path in sorted(inner):
            made.make(path, top.modes)
        written = [
            tree.add_file(made, path, [bytes(content)], top.modes, tree.no_tick)
            for path, content in lie.items()
        ]
        tree.read_back(made, tree.Listing(tuple(written), (SESSION, *inner)))
