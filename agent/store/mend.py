"""Rows whose checksum fails: each is set aside into a file, and an instance's comes from its
folder. The other rows stay."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from agent.core.model import Instance, InstanceId, SessionRecord
from agent.files import write_whole
from agent.store.instances import (
    encode_record,
    encode_settings,
    insert_instance,
    update_record,
)
from agent.store.rebuild import Opening, named, with_folder
from agent.store.sums import COLUMNS, is_whole

Row = Sequence[Any]


def mend_rows(db: Database, opening: Opening) -> list[str]:
    """Sentences on what was mended; none when all rows are whole."""
    bad = {table: rows for table in COLUMNS if (rows := _bad_rows(db, table))}
    if not bad and not _without_record(db):
        return []
    sentences = _set_aside_in(bad, opening) if bad else []
    db.execute("begin immediate")
    try:
        records = _records_of(db, bad)
        for table, rows in bad.items():
            for row in rows:
                db.execute(f"delete from {table} where rowid = ?", [row[-1]])
        sentences += _from_folders(db, opening, records)
        db.commit()
    except BaseException:
        db.rollback()
        raise
    return sentences


def _set_aside_in(bad: dict[str, list[Row]], opening: Opening) -> list[str]:
    kept = _keep(bad, opening)
    counts = ", ".join(f"{len(rows)} of {table}" for table, rows in bad.items())
    return [f"rows of the database were damaged ({counts}); they are kept in {kept.name}"]


def _without_record(db: Database) -> bool:
    """Each instance is added together with its record: one without has lost it."""
    sql = "select 1 from instances where id not in (select instance from sessions) limit 1"
    return db.execute(sql).fetchone() is not None


def _bad_rows(db: Database, table: str) -> list[Row]:
    names = ", ".join((*COLUMNS[table], "sum", "rowid"))
    rows = db.execute(f"select {names} from {table}").fetchall()
    return [row for row in rows if not is_whole(row[:-1])]


def _records_of(db: Database, bad: dict[str, list[Row]]) -> dict[str, str]:
    """Whole records whose instance's row is not: they go with that row, and come back with it."""
    damaged = {row[-1] for row in bad.get("sessions", [])}
    rows = db.execute("select instance, record, rowid from sessions").fetchall()
    return {row[0]: row[1] for row in rows if row[2] not in damaged}


def _from_folders(db: Database, opening: Opening, records: dict[str, str]) -> list[str]:
    have = {row[0] for row in db.execute("select id from instances").fetchall()}
    recorded = {row[0] for row in db.execute("select instance from sessions").fetchall()}
    mended = []
    for instance, folder in opening.folder_sessions():
        if instance.id not in have or instance.id not in recorded:
            mended.append(instance.id)
            _put(db, instance, folder, records, have)
    for id in have - recorded - set(mended):
        # Its folder has no record either: it begins with a plain record, once.
        update_record(db, InstanceId(id), encode_record(SessionRecord()))
    if not mended:
        return []
    return [f"their content was taken from the session folders: {named(mended)}"]


def _put(
    db: Database,
    instance: Instance,
    folder: SessionRecord,
    records: dict[str, str],
    have: set[str],
) -> None:
    record = encode_record(with_folder(records.get(instance.id), folder))
    if instance.id in have:
        update_record(db, instance.id, record)
    else:
        insert_instance(db, instance, encode_settings(instance), record)


def _keep(bad: dict[str, list[Row]], opening: Opening) -> Path:
    """Write the damaged rows into a file for an operator, mode 0600."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(opening.now_wall()))
    path = opening.path.with_name(f"{opening.path.name}.rows-{stamp}.json")
    number = 1
    while path.exists():
        number += 1
        path = path.with_name(f"{opening.path.name}.rows-{stamp}.{number}.json")
    raw = json.dumps({t: [list(row) for row in rows] for t, rows in bad.items()}, default=repr)
    write_whole(path, raw.encode())
    return path
