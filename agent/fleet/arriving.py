"""Arriving: the copy of a session becomes its folder on this machine, and the folder of a session
that went on elsewhere goes into the trash.

A kill at any point leaves the copy as it is, and the session unsettled: it is brought in again, and
starts nowhere before that.
"""

import asyncio
import base64
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from agent.core.model import InstanceId, JournalEntry
from agent.errors import VaultError
from agent.fleet.copies.changed import IDENTITY, MEDIA, MESSAGES, MOVED, ROWS, Beside
from agent.messages import incoming, outbox
from agent.messages.outcomes import WAITING
from agent.messages.sending import Sending
from agent.supervise import assemble
from agent.supervise.facts import Facts, entry
from agent.vault import folders, restore, tree
from agent.vault.folder import SESSION, unless_absent
from agent.vault.identity import parse_identity

BRING_IN = "bring in"
KNOWN = 48 * 3600.0
"""Seconds for which each outbox knows a message that it sent, and more (72 h)."""
Files = Mapping[str, bytes | bytearray]
Rows = list[dict[str, Any]]


class Arriving:
    def __init__(self, base: assemble.Supervisor, sending: Sending) -> None:
        self._registry, self._keeping, self._root = base.registry, base.keeping, base.root
        self._store, self._seats, self._wake = base.store, base.seats, base.wake
        self._sending = sending

    async def bring_in(self, id: InstanceId, files: Files, why: str) -> None:
        """Replace the folder by a copy. VaultError if the copy is of no use or there is no room."""
        if IDENTITY not in files:
            raise VaultError(f"cannot use the copy of {id}: it has no {IDENTITY}", code="damaged")
        identity = parse_identity(bytes(files[IDENTITY]), self._root / id)
        # An order, as a stop, was of that machine's boot: it holds until this one boots.
        record = replace(identity.record, override_boot=self._registry.boot)
        made, record = identity.instance, replace(record, status_since_wall=time.time())
        await asyncio.to_thread(_stage, self._root, id, files)
        if (old := self._registry.facts.get(id)) is not None:
            await self.retire(old, "replaced", f"a newer copy replaces it: {why}")
        async with self._registry.making(id, f"{BRING_IN} {id}"):
            if (self._root / id).exists():  # no session of this agent's: damaged, or cut off here
                await asyncio.to_thread(folders.retire, self._root, id, "replaced", follows=False)
            leased = replace(identity, leased=True)
            how: Any = {"replace": False, "lineage": identity.lineage, "why": "replaced"}
            await asyncio.to_thread(restore.put_in_place, self._root, "import", leased, **how)
            if MOVED not in files:  # it may have taken more since
                await self.lacks_newest(id)
            said = JournalEntry("arrived", why, instance=id, wall=time.time())
            await self._store.add(made, record, said)
            await self._write_messages(id, _rows(files), files, instead=True)
            facts = self._registry.add(made, record)
            facts.enabled_by_operator = self._seats.enabled_by_operator(facts)
            await self._send(id)
            self._wake(id)

    async def lacks_newest(self, id: InstanceId) -> None:
        """Readers of the session get a gap: another machine may have taken messages not here."""
        if (path := self._root / id / MESSAGES).exists():
            await asyncio.to_thread(incoming.lacks_newest, path)

    async def retire(self, facts: Facts, kind: str, why: str) -> None:
        facts.action.interrupt_start()
        async with facts.busy, self._keeping.ending(facts):
            if facts.gone:
                return
            await self._seats.stop(facts)
            with unless_absent():
                await asyncio.to_thread(folders.retire, self._root, facts.id, kind, follows=False)
            await self._store.remove(facts.id, entry(facts, kind, why))
            self._registry.drop(facts)

    async def let_go(self, id: InstanceId, *, moved: bool) -> None:
        """Delete the messages of a session that another machine has."""
        await self._sending.let_go(await self._sending.ready(), id, 0.0, moved)

    def messages(self, id: InstanceId) -> Files:
        """Return the session's messages as a copy has them. It uses the disk."""
        beside = Beside(self._root, self._sending.files.folder.with_name(outbox.NAME))
        beside.look()
        paths = [it for it in beside.stamps(id) if it == ROWS or it.startswith(MEDIA)]
        return {it: beside.read(id, it) for it in paths}

    async def take_over(self, id: InstanceId, files: Files) -> None:
        """Send what a machine that had the session before has accepted. Not that of long ago: a
        machine may have sent it and forgotten it since."""
        waits, since = (it for it in _rows(files) if it["state"] in WAITING), time.time() - KNOWN
        await self._write_messages(id, [it for it in waits if it["accepted_wall"] > since], files)
        await self._send(id)

    async def _write_messages(
        self, id: InstanceId, rows: Rows, files: Files, *, instead: bool = False
    ) -> None:
        """Take messages in; one that is here already stays as it is. One that may have been sent
        is sent again where WhatsApp's id of it is the same."""
        outbox = await self._sending.ready()
        for row in rows:
            if media := files.get(MEDIA + row["file"]) if row["file"] else None:
                text = base64.b64encode(media).decode()
                await asyncio.to_thread(self._sending.files.write, row["file"], text)
        if instead and (sender := self._sending.senders.get(id)) is not None:
            for waiting in [*sender.waiting.values()]:
                sender.drop(waiting)
        await outbox.take_over(rows, id if instead else "", time.time() - KNOWN)

    async def _send(self, id: InstanceId) -> None:
        outbox, sender = await self._sending.ready(), self._sending.senders.get(id)
        for each in await outbox.waiting():
            if each.instance == id and not (sender and each.number in sender.waiting):
                self._sending.add(outbox, each, impatient=False)


def _rows(files: Files) -> Rows:
    """Return names of the columns, then each row; the numbers are another machine's."""
    try:
        names, *rows = json.loads(files.get(ROWS, b"[[]]"))
        found = [dict(zip(names, row, strict=True)) for row in rows]
        columns = [*outbox.COLUMNS.split(", ")[1:], "content"]
        return [{column: row[column] for column in columns} for row in found]
    except (ValueError, TypeError, KeyError) as error:
        raise VaultError(f"cannot read the messages of a copy: {error}", code="damaged") from error


def _stage(root: Path, id: InstanceId, files: Files) -> None:
    """Write the session and its messages into a folder apart; they are on the disk on return."""
    lie = {it: files[it] for it in files if it.partition("/")[0] in (SESSION, restore.MESSAGES)}
    inner = {str(above) for it in lie for above in PurePosixPath(it).parents} - {".", SESSION}
    folders.leave_room(root, f"{BRING_IN} {id}", sum(map(len, lie.values())), len(lie))
    with (
        folders.open_own(root, folders.STAGING) as (top, staging),
        restore.staged(root, id, "import"),
        staging.inner(f"{id}.import") as made,
    ):
        for path in sorted(inner):
            made.make(path, top.modes)
        written = [tree.add_file(made, at, [bytes(lie[at])], top.modes, tree.no_tick) for at in lie]
        tree.read_back(made, tree.Listing(tuple(written), (SESSION, *inner)))
