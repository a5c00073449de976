"""What WhatsApp's side of the sandbox holds, also over a kill of the worker: what waits for the
account until the session has taken it, and what its contacts got. It lies beside the session's own
folder: no copy of a session has messages in it."""

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from agent.engines.sandbox.rules import saving

Record = Mapping[str, Any]
Entry = tuple[int, Record]

NAME = "whatsapp.db"
MOST_HEARD = 20_000
"""Messages that the contacts remember."""
ANSWER_BYTES = 256 << 10
"""Of one page; a message between worker and agent has at most four times as much."""
_TABLES = """
pragma journal_mode = wal;
pragma synchronous = off;
pragma cache_size = 16;
create table if not exists waiting (number integer primary key, due real, record text);
create table if not exists
heard (cursor integer primary key, chat text, id text, message text, unique (chat, id));
"""
_doing = partial(saving, kind=sqlite3.Error)


class Held:
    def __init__(self, folder: Path) -> None:
        with _doing("open messages"):
            self._db = sqlite3.connect(folder / NAME)
            self._db.executescript(_TABLES)

    def close(self) -> None:
        self._db.close()

    def add(self, records: Sequence[Record], due: float = 0.0) -> None:
        """It is not lost once this returns. `due`: the wall time before which it is not given."""
        rows = [(due, json.dumps(record)) for record in records]
        with _doing("hold messages"), self._db:
            self._db.executemany("insert into waiting (due, record) values (?, ?)", rows)

    def next(self, most: int) -> list[Entry]:
        """Those to be given now, oldest first; they stay."""
        ask = "select number, record from waiting where due <= ? order by due, number limit ?"
        with _doing("read messages"):
            found = self._db.execute(ask, (time.time(), most)).fetchall()
        return [(number, json.loads(record)) for number, record in found]

    def next_due(self) -> float | None:
        """Seconds until there is something to give; None: nothing waits."""
        with _doing("read messages"):
            due = self._db.execute("select min(due) from waiting").fetchone()[0]
        return None if due is None else max(0.0, due - time.time())

    def drop(self, entries: Sequence[Entry]) -> None:
        """They were taken."""
        numbers = [(number,) for number, _ in entries]
        with _doing("drop messages"), self._db:
            self._db.executemany("delete from waiting where number = ?", numbers)

    def receive(self, chat: str, id: str, message: Record) -> bool:
        """On the contact's phone when this returns; False: it was there already."""
        add = "insert or ignore into heard (chat, id, message) values (?, ?, ?)"
        text = json.dumps({"at": round(time.time(), 3), **message})
        with _doing("deliver messages"), self._db:
            done = self._db.execute(add, (chat, id, text))
            oldest = (done.lastrowid or 0) - MOST_HEARD
            self._db.execute("delete from heard where cursor <= ?", (oldest,))
        return done.rowcount == 1

    def page(self, after: int, limit: int) -> Mapping[str, Any]:
        """The messages after that cursor, and the cursor of the last one of them."""
        ask = "select * from heard where cursor > ? order by cursor limit ?"
        found: list[Mapping[str, Any]] = []
        size = 0
        with _doing("read messages"):
            rows = self._db.execute(ask, (after, limit + 1)).fetchall()
        for cursor, chat, id, message in rows[:limit]:
            size += len(message)
            if size > ANSWER_BYTES and found:
                break
            found.append({"cursor": cursor, "chat": chat, "id": id, **json.loads(message)})
        last = found[-1]["cursor"] if found else max(after, 0)
        return {"messages": found, "next": last, "more": len(found) < len(rows)}
