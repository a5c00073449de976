"""The schema, step by step. A step is never changed once it was released; a new one is added. Each
step and its record are one transaction: after a crash it is there or it is not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlite_utils import Database

from agent.failpoint import failpoint

APPLICATION_ID = 0x57414754
"""Marks a SQLite file as the agent's ("WAGT")."""


@dataclass(frozen=True, slots=True)
class Migration:
    name: str
    change: Callable[[Database], None]


def first_tables(db: Database) -> None:
    db.execute(f"pragma application_id = {APPLICATION_ID}")
    db.execute(
        "create table migrations (number integer primary key, name text not null,"
        " at_wall real not null) strict"
    )
    db.execute(
        "create table instances (id text primary key, engine text not null,"
        " enabled integer not null check (enabled in (0, 1)), settings text not null,"
        " created_wall real not null) strict"
    )
    db.execute(
        "create table sessions (instance text primary key references instances (id)"
        " on delete cascade, record text not null) strict"
    )
    db.execute(
        "create table journal (cursor integer primary key autoincrement, wall real not null,"
        " kind text not null, category text not null, instance text, sentence text not null,"
        " detail text not null) strict"
    )
    db.execute("create index journal_by_instance on journal (instance, cursor)")
    db.execute(
        "create table keys (id text primary key, hash text not null unique, scopes text not null,"
        " name text not null, created_wall real not null) strict"
    )
    db.execute("create table facts (name text primary key, value text not null) strict")


MIGRATIONS: Sequence[Migration] = (Migration("first tables", first_tables),)

FIRST_TABLES = frozenset({"migrations", "instances", "sessions", "journal", "keys", "facts"})


def schema_of(db: Database) -> dict[str, str]:
    """The SQL of each table and index, by name; layout apart. SQLite's own are left out."""
    rows = db.execute("select name, sql from sqlite_master where name not like 'sqlite_%'")
    return {name: " ".join((sql or "").split()) for name, sql in rows.fetchall()}


def schema_version(db: Database) -> int:
    version: int = db.execute("pragma user_version").fetchone()[0]
    return version


def migrate(db: Database, migrations: Sequence[Migration], now_wall: float) -> list[str]:
    """Bring the schema up to the newest version; return the names of the steps made."""
    made = []
    for number, step in enumerate(migrations, start=1):
        if number <= schema_version(db):
            continue
        db.execute("begin immediate")
        with_rollback(db, step, number, now_wall)
        made.append(step.name)
    return made


def with_rollback(db: Database, step: Migration, number: int, now_wall: float) -> None:
    try:
        step.change(db)
        failpoint("mid_migration")
        db.execute(
            "insert into migrations (number, name, at_wall) values (?, ?, ?)",
            [number, step.name, now_wall],
        )
        db.execute(f"pragma user_version = {number}")
        db.commit()
    except BaseException:
        db.rollback()
        raise
