"""The store's face: instances, sessions, history and keys, each call one awaited step. A write that
returned is on the disk. Only the agent opens this database."""

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Unpack

from sqlite_utils import Database

from agent.core.model import Category, Instance, InstanceId, JournalEntry, SessionRecord
from agent.errors import StoreError
from agent.log import bound
from agent.store import instances, journal, keys
from agent.store.connect import connect_to_read, copy_verified, integrity
from agent.store.errors import explain
from agent.store.journal import Bounds, trim
from agent.store.keys import KeyRow
from agent.store.migrations import MIGRATIONS, Migration
from agent.store.opening import FolderSessions, open_checked
from agent.store.writer import DatabaseStats, T, Writer

TRIM_EVERY = 100
"""Entries between two looks at the history's bounds."""

_log = bound(name=__name__)


@dataclass(eq=False)
class Store:
    path: Path
    rebuilt_from: tuple[str, ...]
    """Sentences on what `open` had to repair; they are in the journal too."""
    _writer: Writer
    _now_wall: Callable[[], float]
    _bounds: Bounds
    on_append: Callable[[JournalEntry], None] = lambda _entry: None
    """Called in the loop for each entry that is on the disk, in the order of the cursors."""

    @property
    def stats(self) -> DatabaseStats:
        return self._writer.stats

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        folder_sessions: FolderSessions = lambda: (),
        now_wall: Callable[[], float] = time.time,
        bounds: Bounds | None = None,
        migrations: Sequence[Migration] = MIGRATIONS,
    ) -> "Store":
        """Rebuilds a damaged or lost file from `folder_sessions`. SchemaTooNew writes nothing."""
        sentences: list[str] = []
        connect = partial(
            open_checked, path, folder_sessions, sentences, migrations, now_wall=now_wall()
        )
        writer = await Writer.open(path, connect)
        store = cls(path, tuple(sentences), writer, now_wall, bounds or Bounds())
        for sentence in sentences:
            _log.warning("%s", sentence)
        await store.note(*(JournalEntry("store_repaired", it, Category.SYSTEM) for it in sentences))
        return store

    async def close(self) -> None:
        """Finish all requests, then close the file."""
        await self._writer.close()

    async def answers(self) -> None:
        """Return when the database has answered a question that costs nothing."""
        await self._writer.read(lambda db: db.execute("select 1").fetchone())

    async def instances(self) -> list[tuple[Instance, SessionRecord]]:
        return await self._writer.read(instances.select_instances)

    async def add(
        self, instance: Instance, record: SessionRecord, entry: JournalEntry
    ) -> list[JournalEntry]:
        # Encoded here, in the caller's thread, so that a wrong value fails its caller only.
        settings, text = json.dumps(dict(instance.settings)), instances.encode_record(record)
        return await self._change(
            lambda db: instances.insert_instance(db, instance, settings, text), [entry]
        )

    async def save_instance(
        self, instance: Instance, *entries: JournalEntry, record: SessionRecord | None = None
    ) -> list[JournalEntry]:
        """`record`: written with it or not at all; None = it stays."""
        settings = json.dumps(dict(instance.settings))
        text = None if record is None else instances.encode_record(record)

        def write(db: Database) -> None:
            instances.update_instance(db, instance, settings)
            if text is not None:
                instances.update_record(db, instance.id, text)

        return await self._change(write, entries)

    async def save_record(
        self, id: InstanceId, record: SessionRecord, *entries: JournalEntry
    ) -> list[JournalEntry]:
        text = instances.encode_record(record)
        return await self._change(lambda db: instances.update_record(db, id, text), entries)

    async def remove(self, id: InstanceId, entry: JournalEntry) -> list[JournalEntry]:
        """Remove an instance and its record; its history stays."""
        return await self._change(lambda db: instances.delete_instance(db, id), [entry])

    async def append(self, *entries: JournalEntry) -> list[JournalEntry]:
        return await self._change(lambda db: None, entries) if entries else []

    async def note(self, *entries: JournalEntry) -> None:
        """As `append`, of what is done already or only told of: a disk that does not take the
        entries is logged, and ends nothing."""
        try:
            await self.append(*entries)
        except StoreError as error:
            kinds = ", ".join(sorted({entry.kind for entry in entries}))
            _log.error("the journal lacks %s: %s", kinds, error)

    async def history(
        self,
        instance: InstanceId | None = None,
        **wanted: Unpack[journal.Wanted],
    ) -> list[JournalEntry]:
        """Newest first; oldest first when `after` is given, so that a follower can page on."""
        return await self._writer.read(lambda db: journal.select_entries(db, instance, **wanted))

    async def add_key(self, key: KeyRow) -> None:
        await self._writer.write(lambda db: keys.insert_key(db, key))

    async def keys(self) -> list[KeyRow]:
        return await self._writer.read(keys.list_keys)

    async def remove_key(self, id: str) -> bool:
        sql = "delete from keys where id = ?"
        return await self._writer.write(lambda db: db.execute(sql, [id]).rowcount > 0)

    async def put_fact(self, name: str, value: str) -> None:
        await self.put_facts({name: value})

    async def get_fact(self, name: str) -> str | None:
        return (await self.get_facts(name)).get(name)

    async def put_facts(self, changed: Mapping[str, str]) -> None:
        """Small texts by name that outlive the agent, all in one commit. No decision about a
        session depends on them."""
        sql = "replace into facts (name, value) values (?, ?)"
        await self._writer.write(lambda db: db.conn.executemany(sql, [*changed.items()]))

    async def get_facts(self, prefix: str) -> dict[str, str]:
        """All facts whose name begins so."""
        sql, wanted = "select name, value from facts where substr(name, 1, ?) = ?", prefix
        return await self._writer.read(
            lambda db: dict(db.execute(sql, [len(wanted), wanted]).fetchall())
        )

    async def forget_facts(self, names: Collection[str]) -> None:
        rows = [(name,) for name in names]
        sql = "delete from facts where name = ?"
        await self._writer.write(lambda db: db.conn.executemany(sql, rows))

    async def check(self) -> str:
        """SQLite's full check, "ok" or its words, beside the writer. The next start sets a
        damaged file aside and rebuilds it."""
        return await asyncio.to_thread(self._beside, "check", integrity)

    async def copy_to(self, target: Path) -> None:
        """A verified copy that stands alone; it replaces an older one of that name."""
        await asyncio.to_thread(self._beside, "copy", lambda db: copy_verified(db, target))

    def _beside(self, verb: str, work: Callable[[Database], T]) -> T:
        """With a second connection, in the caller's thread."""
        try:
            with contextlib.closing(connect_to_read(self.path)) as db:
                return work(db)
        except sqlite3.Error as error:
            raise explain(verb, self.path, error) from error

    async def _change(
        self, work: Callable[[Database], None], entries: Collection[JournalEntry]
    ) -> list[JournalEntry]:
        """One change and its journal entries: both are there, or neither."""
        now = self._now_wall()
        rows = [journal.encode(entry, now) for entry in entries]

        def change(db: Database) -> list[JournalEntry]:
            work(db)
            stored = journal.insert_entries(db, entries, rows)
            if stored and stored[-1].cursor % TRIM_EVERY < len(stored):
                self._trim(db, now)
            return stored

        return await self._writer.write(change, self._tell)

    def _trim(self, db: Database, now: float) -> None:
        try:
            with db.atomic():
                trim(db, self._bounds, now)
        except sqlite3.Error as error:
            _log.warning("cannot trim the history of %s: %s", self.path, error)

    def _tell(self, stored: list[JournalEntry]) -> None:
        for entry in stored:
            self.on_append(entry)
