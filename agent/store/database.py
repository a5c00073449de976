"""The store's face: instances, sessions, history and keys, each call one awaited step. A write that
returned is on the disk. Only the agent opens this database."""

import asyncio
import contextlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from sqlite_utils import Database

from agent import errors, files, log
from agent.core.model import Category, Instance, InstanceId, JournalEntry, SessionRecord
from agent.store import connect, rows
from agent.store.writer import T, Writer

# From a path to a database that can be trusted. A damaged or lost one is kept, and the last
# verified copy takes its place, without its instances: they come from their session folders.


MIGRATION = "migration"
UNUSABLE = ("disk_full", "busy", MIGRATION, "no_file")
"""Codes of failures that another database in its place would not cure."""
Migration = tuple[str, ...]
"""Name of a migration, and its statements."""

MIGRATIONS: Sequence[Migration] = (
    (
        "first tables",
        "create table migrations (number integer primary key, name text not null,"
        " at_wall real not null) strict",
        "create table instances (id text primary key, engine text not null,"
        " enabled integer not null check (enabled in (0, 1)), settings text not null,"
        " created_wall real not null) strict",
        "create table sessions (instance text primary key references instances (id)"
        " on delete cascade, record text not null) strict",
        "create table journal (cursor integer primary key autoincrement, wall real not null,"
        " kind text not null, category text not null, instance text, sentence text not null,"
        " detail text not null) strict",
        "create index journal_by_instance on journal (instance, cursor)",
        "create table keys (id text primary key, hash text not null unique, scopes text not null,"
        " name text not null, created_wall real not null) strict",
        "create table facts (name text primary key, value text not null) strict",
    ),
)


def schema_version(db: Database) -> int:
    return int(db.execute("pragma user_version").fetchone()[0])


def migrate(db: Database, migrations: Sequence[Migration]) -> int:
    """Bring the schema up to the newest version; return how many steps were made."""
    version = schema_version(db)
    for number, (name, *statements) in enumerate(migrations[version:], start=version + 1):
        with db.atomic():
            for statement in statements:
                db.execute(statement)
            files.failpoint("mid_migration")
            db.execute("insert into migrations values (?, ?, unixepoch())", [number, name])
            db.execute(f"pragma user_version = {number}")
    return max(0, len(migrations) - version)


def _schema_of(db: Database) -> dict[str, str]:
    """The SQL of each table and index, by name; layout apart. SQLite's own are left out."""
    rows = db.execute("select name, sql from sqlite_master where name not like 'sqlite_%'")
    return {name: " ".join((sql or "").split()) for name, sql in rows.fetchall()}


def _schema_after(migrations: Sequence[Migration]) -> dict[str, str]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        migrate(db := Database(conn, execute_plugins=False), migrations)
        return _schema_of(db)


_NO_VALUES = (ValueError, TypeError, OverflowError, RecursionError)
"""Errors of the sqlite3 and json modules for bytes of which they cannot make a value."""
_FAULTS = (sqlite3.Error, errors.StoreError, *_NO_VALUES)
"""Damage where they show twice: SQLite calls a file malformed also where one read of it failed."""
COMPANIONS = ("-wal", "-shm", "-journal")
_CURSORS_LEFT_OUT = 1_000_000
"""Cursors that a rebuilt history skips, more than a day has: none of the lost ones comes again."""


def open_checked(path: Path, sentences: list[str]) -> Database:
    """A connection to a whole database of the newest schema. `sentences` gets what had to be
    repaired."""
    damage = ""
    try:
        if path.exists():
            for _look in range(2):
                try:
                    check_whole(path)
                    return _use(path, sentences)
                except _FAULTS as error:
                    code = "damaged" if isinstance(error, _NO_VALUES) else connect.code_of(error)
                    if code in UNUSABLE or not os.access(path, os.R_OK | os.W_OK):
                        raise
                    damage = str(error)
        sentences += _rebuild(path, damage)
        return _use(path, sentences)
    except (sqlite3.Error, OSError) as error:
        raise connect.explain_opening(path, error) from error


def _use(path: Path, sentences: list[str]) -> Database:
    db = connect.connect(path)
    try:
        version = schema_version(db)
        if steps := migrate(db, MIGRATIONS):
            # Into the file's header: the package reads the version there and refuses a downgrade.
            db.execute("pragma wal_checkpoint(truncate)")
            sentences.append(f"the schema was brought from version {version} to {version + steps}")
        return db
    except sqlite3.Error as error:
        db.close()
        # A step that fails fails again: an error of this program, not of the file.
        why = str(connect.explain("migrate", path, error))
        raise errors.StoreError(why, code=MIGRATION) from error


def check_whole(path: Path) -> None:
    """Raise the fault of this file, if there is one. Writes nothing."""
    with contextlib.closing(connect.connect_to_read(path)) as db:
        # The header is one number of the file's first page; each step also left a row.
        version, newest = schema_version(db), len(MIGRATIONS)
        steps = db.execute("select max(number) from migrations").fetchone()[0] or 0
        if steps == version > newest:
            words = f"its schema has version {version}, this program knows {newest}"
            raise errors.SchemaTooNew(f"cannot open {path}: {words}; run the newer version")
        if steps != version or _schema_of(db) != _schema_after(MIGRATIONS[:version]):
            raise errors.StoreError("its schema is not as this program wrote it", code="damaged")
        # Not the quick one, which does not compare indexes with their tables: 0.12 s for 45 MB.
        if (found := connect.check(db)) != "ok":
            raise errors.StoreError(found[:300], code="damaged")
        rows.list_keys(db)
        for id, *rest in db.execute(rows.SELECT).fetchall():
            whole = isinstance(json.loads(rest[-1] or "null"), dict)
            if not whole or rows.decode_instance([id, *rest]) is None:
                raise errors.StoreError(f"the row of instance {id!r:.80} is bad", code="damaged")


def _rebuild(path: Path, damage: str) -> list[str]:
    """Build a new database, set the damaged one aside and put the new one in its place; sentences
    on what is in it. Nothing is set aside where none can be built: the trouble lies elsewhere.

    A copy may hold instances that were deleted since, and what it says of the others is old."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    copy, fresh, sentences = _beside(path, ".copy"), _beside(path, ".new"), []
    for suffix in ("", *COMPANIONS):  # an unfinished one; all of it can be made again
        _beside(fresh, suffix).unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    with contextlib.suppress(errors.SchemaTooNew, *_FAULTS):
        try:
            check_whole(copy)
        except _FAULTS:
            check_whole(copy)
        shutil.copyfile(copy, fresh)
        at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(copy.stat().st_mtime))
        lost = "what came later is lost; revoke again what was revoked since"
        sentences.append(f"API keys and history were taken from {copy.name} of {at}: {lost}")
    if copy.exists() and not sentences:  # the next copy must not replace it
        sentences.append(f"{copy.name} cannot be used either; it is kept as {_set_aside(copy)}")
    with contextlib.closing(connect.connect(fresh)) as db:
        migrate(db, MIGRATIONS)
        with db.atomic():
            db.execute("delete from instances")
            sql = "update sqlite_sequence set seq = seq + ? where name = 'journal'"
            db.execute(sql, [_CURSORS_LEFT_OUT])
        # All of it into the main file: the rename takes that alone.
        db.execute("pragma journal_mode = delete")
    kept = _set_aside(path)
    if damage:
        sentences.insert(0, f"the database was damaged ({damage}); it is kept as {kept}")
    files.failpoint("mid_rebuild")
    files.put_in_place(fresh, path)
    return sentences


def _set_aside(path: Path) -> str:
    """Rename a database with its companions; the main file first. A crash between leaves companions
    without a main file, which the next rebuild moves: SQLite would replay them into a new one."""
    kept = _beside(path, time.strftime(".damaged-%Y%m%dT%H%M%SZ", time.gmtime()))
    if taken := [*path.parent.glob(f"{kept.name}*")]:
        kept = _beside(kept, f".{len(taken)}")
    for suffix in ("", *COMPANIONS):
        with contextlib.suppress(FileNotFoundError):
            _beside(path, suffix).rename(_beside(kept, suffix))
            files.failpoint("mid_set_aside")
    files.sync(path.parent)
    return kept.name


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


TRIM_EVERY = 100
"""Entries between two looks at the history's bounds."""


@dataclass(eq=False)
class Store:
    path: Path
    rebuilt_from: tuple[str, ...]
    """Sentences on what `open` had to repair; they are in the journal too."""
    _writer: Writer
    lost: str = ""
    """Sentence on what the database before this one had and this one has not; "" = nothing."""
    on_append: Callable[[JournalEntry], None] = lambda _entry: None
    """Called in the loop for each entry that is on the disk, in the order of the cursors."""

    @classmethod
    async def open(cls, path: Path) -> "Store":
        """Rebuilds a damaged or lost file. SchemaTooNew writes nothing."""
        sentences: list[str] = []
        writer = await Writer.open(path, lambda: open_checked(path, sentences))
        store = cls(path, tuple(sentences), writer)
        for sentence in sentences:
            log.warning("%s", sentence)
        await store.note(*(JournalEntry("store_repaired", it, Category.SYSTEM) for it in sentences))
        return store

    async def close(self) -> None:
        """Finish all requests, then close the file."""
        await self._writer.close()

    @property
    def wrong(self) -> str:
        """Return a sentence on what a person must know of the file; "" = nothing."""
        return str(self._writer.fault or self.lost or self._writer.left)

    async def answers(self) -> None:
        """Return when the database has answered a question that costs nothing."""
        await self._writer.read(lambda db: db.execute("select 1").fetchone())

    async def instances(self) -> list[tuple[Instance, SessionRecord]]:
        return await self._writer.read(rows.select_instances)

    async def add(
        self, instance: Instance, record: SessionRecord, entry: JournalEntry
    ) -> list[JournalEntry]:
        # Encoded here, in the caller's thread, so that a wrong value fails its caller only.
        settings, text = json.dumps(dict(instance.settings)), rows.encode_record(record)
        return await self._change(
            lambda db: rows.insert_instance(db, instance, settings, text), [entry]
        )

    async def save(
        self, instance: Instance, record: SessionRecord, *entries: JournalEntry
    ) -> list[JournalEntry]:
        settings, text = json.dumps(dict(instance.settings)), rows.encode_record(record)

        def write(db: Database) -> None:
            rows.update_instance(db, instance, settings)
            rows.update_record(db, instance.id, text)

        return await self._change(write, entries)

    async def remove(self, id: InstanceId, entry: JournalEntry) -> list[JournalEntry]:
        """Remove an instance and its record; its history stays."""
        return await self._change(lambda db: rows.delete_instance(db, id), [entry])

    async def append(self, *entries: JournalEntry) -> list[JournalEntry]:
        return await self._change(lambda db: None, entries) if entries else []

    async def note(self, *entries: JournalEntry) -> None:
        """As `append`, of what is done already or only told of: a disk that does not take the
        entries is logged, and ends nothing."""
        try:
            await self.append(*entries)
        except errors.StoreError as error:
            kinds = ", ".join(sorted({entry.kind for entry in entries}))
            log.error("the journal lacks %s: %s", kinds, error)

    async def history(
        self, instance: InstanceId | None = None, **wanted: Unpack[rows.Wanted]
    ) -> list[JournalEntry]:
        """Return entries, newest first; with `after` oldest first, so that a follower goes on."""
        return await self._writer.read(lambda db: rows.select_entries(db, instance, **wanted))

    async def add_key(self, key: rows.KeyRow) -> None:
        await self._writer.write(lambda db: rows.insert_key(db, key))

    async def keys(self) -> list[rows.KeyRow]:
        return await self._writer.read(rows.list_keys)

    async def remove_key(self, id: str) -> bool:
        sql = "delete from keys where id = ?"
        return await self._writer.write(lambda db: db.execute(sql, [id]).rowcount > 0)

    async def get_fact(self, name: str) -> str | None:
        return (await self.get_facts(name)).get(name)

    async def put_facts(self, changed: Mapping[str, str]) -> None:
        """Small texts by name that outlive the agent, all in one commit. No decision about a
        session depends on them."""
        sql = "replace into facts (name, value) values (?, ?)"
        await self._writer.write(lambda db: db.conn.executemany(sql, [*changed.items()]))

    async def get_facts(self, prefix: str) -> dict[str, str]:
        """Return all facts whose names begin with `prefix`."""
        sql, start = "select name, value from facts where substr(name, 1, ?) = ?", prefix
        return await self._writer.read(lambda db: dict(db.execute(sql, [len(start), start])))

    async def forget_facts(self, names: Collection[str]) -> None:
        sql, wanted = "delete from facts where name = ?", [(name,) for name in names]
        await self._writer.write(lambda db: db.conn.executemany(sql, wanted))

    async def check(self) -> str:
        """SQLite's full check, "ok" or its words, beside the writer. The next start sets a
        damaged file aside and rebuilds it."""
        return await asyncio.to_thread(self._beside, "check", connect.check)

    async def copy_to(self, target: Path) -> None:
        """Write a verified copy that stands alone; it replaces an older one of that name."""
        await asyncio.to_thread(self._beside, "copy", lambda db: connect.copy_verified(db, target))

    def _beside(self, verb: str, work: Callable[[Database], T]) -> T:
        """Do `work` with a second connection, in the caller's thread."""
        if self._writer.fault is not None:  # another file may have its name
            raise self._writer.fault
        try:
            with contextlib.closing(connect.connect_to_read(self.path)) as db:
                return work(db)
        except sqlite3.Error as error:
            raise connect.explain(verb, self.path, error) from error

    async def _change(
        self, work: Callable[[Database], None], entries: Collection[JournalEntry]
    ) -> list[JournalEntry]:
        """Commit one change with its journal entries: both are there, or neither."""
        now = time.time()
        encoded = [rows.encode_entry(entry, now) for entry in entries]

        def change(db: Database) -> list[JournalEntry]:
            work(db)
            stored = rows.insert_entries(db, entries, encoded)
            if stored and stored[-1].cursor % TRIM_EVERY < len(stored):
                try:
                    with db.atomic():
                        rows.trim(db, now)
                except sqlite3.Error as error:
                    log.warning("cannot trim the history of %s: %s", self.path, error)
            return stored

        return await self._writer.write(change, self._tell)

    def _tell(self, stored: list[JournalEntry]) -> None:
        for entry in stored:
            self.on_append(entry)
