"""Files that go with a session beside those of its engine: its identity file, messages.db, its rows
of the agent's outbox.db, and the media files of messages that wait to be sent."""

import json
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from agent.core.model import InstanceId
from agent.errors import StoreError, VaultError
from agent.files import open_plain
from agent.fleet.copies.change import IDENTITY, MEDIA, MESSAGES, ROWS
from agent.messages.database import open_to_read

SHARE = 20
"""A copy of messages.db is followed by a pause of this number of times its duration."""
TICK = 0.05
LONGEST_PAUSE = 4.0
"""Seconds, well within what a copy may lack."""
_CHANGED = """
select instance, count(*), max(changed_wall), total(tries), max(begun_wall),
group_concat(case when state in ('accepted', 'sending') then file end, '/')
from messages group by instance
"""
Stamp = tuple[Any, ...]


class Beside:
    """For all sessions of this machine. Calls use the disk: each in a thread, one at a time."""

    def __init__(self, root: Path, outbox: Path) -> None:
        """`outbox`: outbox.db; the files of its messages lie in the folder of that name beside."""
        self._root, self._outbox = root, outbox
        self._seen: Stamp = ()
        self._rows = dict[str, tuple[Stamp, tuple[str, ...]]]()
        """By session: what differs when a row of it changed, and its media files."""
        self._copied = dict[str, Stamp]()
        """Stamp of messages.db as of the last look; that of its last copy until a pause ends."""
        self._paused = dict[str, tuple[float, Stamp]]()

    def look(self) -> None:
        """At the outbox, once for all sessions."""
        if (stamp := _stamps(self._outbox)) == self._seen:
            return
        with suppress(sqlite3.Error, OSError), closing(self._open()) as db:
            self._rows = {
                id: (tuple(row), tuple(filter(None, (files or "").split("/"))))
                for id, *row, files in db.execute(_CHANGED)
            }
            self._seen = stamp

    def stamps(self, id: InstanceId) -> Mapping[str, Stamp]:
        """By path of the copy what differs when that changed."""
        stamps = {IDENTITY: _stamps(self._root / id / IDENTITY)}
        if id in self._rows:
            stamps[ROWS], files = self._rows[id]
            stamps |= {MEDIA + name: () for name in files}
        if stamp := _stamps(self._root / id / MESSAGES):
            until, before = self._paused.get(id, (0.0, stamp))
            stamps[MESSAGES] = before if time.monotonic() < until else stamp
            self._copied[id] = stamps[MESSAGES]
        return stamps

    def hurry(self, id: InstanceId) -> None:
        """The next look copies messages.db, however new its last copy is."""
        self._paused.pop(id, None)

    def read(self, id: InstanceId, path: str) -> bytes:
        """VaultError where it cannot be read now."""
        try:
            if path == MESSAGES:
                return self._messages(id)
            if path == ROWS:
                with closing(self._open()) as db:
                    asked = "select * from messages where instance = ? order by number"
                    found = db.execute(asked, [id])
                    return json.dumps([[it[0] for it in found.description], *found]).encode()
            lies = self._root / id if path == IDENTITY else self._outbox.parent
            with open_plain(lies / path) as file:
                return file.read()
        except (OSError, sqlite3.Error, StoreError) as error:
            code = "absent" if isinstance(error, FileNotFoundError) else None
            raise VaultError(f"cannot copy {path} of {id}: {error}", code=code) from error

    def _messages(self, id: InstanceId) -> bytes:
        path, begun = self._root / id / MESSAGES, time.monotonic()
        with closing(open_to_read(path)) as source, closing(sqlite3.connect(":memory:")) as copy:
            source.backup(copy)
            content = copy.serialize()
        pause = min(LONGEST_PAUSE, SHARE * (time.monotonic() - begun))
        self._paused[id] = time.monotonic() + pause, self._copied[id]
        return content

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self._outbox.absolute().as_uri()}?mode=ro", uri=True)


def _stamps(path: Path) -> Stamp:
    """Return the stamp of a file and of SQLite's journal of it; () = there is none."""
    found = list[object]()
    for each in (path, path.with_name(path.name + "-wal")):
        with suppress(OSError):
            status = each.lstat()
            found += status.st_ino, status.st_size, status.st_mtime_ns
            # A second write in the same tick of the kernel's clock would not show.
            found += [time.monotonic()] * (abs(time.time() - status.st_mtime) < TICK)
    return tuple(found)
