"""The outbox's database: opened, examined, set aside when it is damaged."""

import contextlib
import os
import sqlite3
from pathlib import Path

from sqlite_utils import Database

from agent.errors import SchemaTooNew, StoreError
from agent.store.connect import connect, connect_to_read, explain_opening
from agent.store.errors import code_of, explain
from agent.store.rebuild import COMPANIONS, companion, free_name, move_companions
from agent.wings.messages.out.session.ledger import TABLES
from agent.wings.messages.out.times import TABLE

NAME = "outbox.db"
APPLICATION_ID = 0x57414F42
"""WAOB, in the file's header."""
SCHEMA = 1
_TABLES = """
create table messages (
    number integer primary key autoincrement,
    id text not null unique,
    instance text not null,
    born real not null,
    chat text not null,
    type text not null,
    state text not null,
    repeats text unique,
    digest text not null default '',
    message_id text not null default '',
    tries integer not null default 0,
    begun_wall real not null default 0,
    not_before_wall real not null default 0,
    reason text not null default '',
    sentence text not null default '',
    file text not null default '',
    size integer not null default 0,
    content text not null default '',
    answer text not null default '{}',
    accepted_wall real not null,
    changed_wall real not null,
    expires_wall real not null
);
create table cursors (instance text primary key, cursor integer not null);
create index messages_of_instance on messages (instance, number);
create index messages_by_whatsapp on messages (message_id, instance) where message_id <> '';
create index messages_waiting on messages (state) where state = 'accepted';
create index messages_ended on messages (changed_wall) where state <> 'accepted';
create index messages_followed on messages (instance)
    where state in ('accepted', 'sent', 'delivered');
"""
_COLUMNS = 22


def open_database(path: Path, now_wall: float) -> tuple[Database, list[str]]:
    """A connection to a whole database, and sentences on what had to be done for it."""
    sentences = []
    try:
        if path.exists() and (damage := _find_damage(path)):
            kept = _set_aside(path, now_wall)
            sentences.append(
                f"the outbox was damaged ({damage}); it is kept as {kept.name}, and the messages"
                " that waited in it are not sent"
            )
        if not path.exists():
            _clear_companions(path, now_wall)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        db = connect(path)
        try:
            _prepare(db)
        except BaseException:
            db.close()
            raise
    except OSError as error:
        raise StoreError(f"cannot open {path}: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise explain("open", path, error) from error
    return db, sentences


def empty_log(db: Database) -> None:
    """What was wiped from the file goes from its journal too, and the free pages go."""
    db.execute("pragma incremental_vacuum").fetchall()
    db.execute("pragma wal_checkpoint(truncate)").fetchall()


def _prepare(db: Database) -> None:
    # What a message said is overwritten where it stood, when the message has ended.
    db.execute("pragma secure_delete = on").fetchall()
    if not db.execute("pragma user_version").fetchone()[0]:
        db.execute("pragma auto_vacuum = incremental")
        db.execute("vacuum")
        db.conn.executescript(
            f"begin immediate; {_TABLES} pragma user_version = {SCHEMA};"
            f" pragma application_id = {APPLICATION_ID}; commit;"
        )
    db.conn.executescript(f"begin immediate; {TABLES} {TABLE} commit;")


def _find_damage(path: Path) -> str:
    """ "" when the file can be used; SchemaTooNew passes through."""
    try:
        _roll_back(path)
        with contextlib.closing(connect_to_read(path)) as db:
            return _find_fault(db, path)
    except sqlite3.Error as error:
        if code_of(error) == "damaged":
            return str(error)
        raise explain_opening(path, error) from error
    except (ValueError, OverflowError) as error:
        return str(error)


def _roll_back(path: Path) -> None:
    """A kill, or a full disk, while the file was made leaves a journal; no reader plays it back."""
    if companion(path, "-journal").exists():
        with contextlib.closing(sqlite3.connect(path, timeout=5.0)) as db:
            db.execute("pragma schema_version").fetchone()


def _find_fault(db: Database, path: Path) -> str:
    version = db.execute("pragma user_version").fetchone()[0]
    tables = db.table_names()
    if not version and not tables:
        return ""  # a kill came between its making and its tables
    if db.execute("pragma application_id").fetchone()[0] != APPLICATION_ID:
        return "it is no outbox"
    if version > SCHEMA:
        raise SchemaTooNew(
            f"cannot open {path}: its schema has version {version}, this program knows {SCHEMA};"
            " run the newer version, or move the file away: the messages that wait in it are"
            " not sent then"
        )
    if not {"messages", "cursors"} <= set(tables) or len(db["messages"].columns) != _COLUMNS:
        return "its table is not the one that this program wrote"
    lines = [str(row[0]) for row in db.execute("pragma integrity_check(5)").fetchall()]
    return "" if lines == ["ok"] else "; ".join(lines)[:300]


def _set_aside(path: Path, now_wall: float) -> Path:
    kept = free_name(path, "damaged", now_wall)
    path.rename(kept)
    move_companions(path, kept)
    return kept


def _clear_companions(path: Path, now_wall: float) -> None:
    """A kill between the renames left them: SQLite would replay them into the new file."""
    if any(companion(path, suffix).exists() for suffix in COMPANIONS):
        move_companions(path, free_name(path, "damaged", now_wall))
