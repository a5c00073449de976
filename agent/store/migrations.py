"""The schema, step by step. A step is never changed once it was released; a new one is added. Each
step and its record are one transaction: after a crash it is there or it is not."""

import contextlib
import sqlite3
from collections.abc import Sequence

from sqlite_utils import Database

from agent.failpoint import failpoint

APPLICATION_ID = 0x57414754
"""Marks a SQLite file as the agent's ("WAGT")."""

Migration = tuple[str, ...]
"""Its name, and its statements."""

MIGRATIONS: Sequence[Migration] = (
    (
        "first tables",
        f"pragma application_id = {APPLICATION_ID}",
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
    version: int = db.execute("pragma user_version").fetchone()[0]
    return version


def migrate(db: Database, migrations: Sequence[Migration]) -> int:
    """Bring the schema up to the newest version; return how many steps were made."""
    version = schema_version(db)
    for number, (name, *statements) in enumerate(migrations[version:], start=version + 1):
        with db.atomic():
            for statement in statements:
                db.execute(statement)
            failpoint("mid_migration")
            db.execute("insert into migrations values (?, ?, unixepoch())", [number, name])
            db.execute(f"pragma user_version = {number}")
    return max(0, len(migrations) - version)


def schema_of(db: Database) -> dict[str, str]:
    """The SQL of each table and index, by name; layout apart. SQLite's own are left out."""
    rows = db.execute("select name, sql from sqlite_master where name not like 'sqlite_%'")
    return {name: " ".join((sql or "").split()) for name, sql in rows.fetchall()}


def schema_after(migrations: Sequence[Migration]) -> dict[str, str]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        migrate(db := Database(conn), migrations)
        return schema_of(db)
