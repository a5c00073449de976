"""Finds the changes of a session's folder since the last look. Every store renames into its folder,
so one `stat` of each folder shows that nothing changed.

Beside the files of its engine go a session's identity file, messages.db, its rows of the agent's
outbox.db, and the media files of messages that wait to be sent.
"""

import json
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from agent.clock import boot_now
from agent.core.model import InstanceId
from agent.errors import StoreError, VaultError
from agent.files import open_plain
from agent.fleet.copies.change import BLOCK, LARGEST, LONGEST_PATH, MOST_FILES, Change, File
from agent.messages.database import open_to_read
from agent.vault.folder import SESSION, Folder, open_instance, unless_absent
from agent.vault.tree import read_file, walk

IDENTITY, MESSAGES, ROWS, MEDIA = "instance.json", "messages/messages.db", "outbox.json", "outbox/"
"""Paths of a copy, beside the session's files, which lie below `session/`."""
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
FULL = 30
"""Looks after which files are looked at though no folder says that they changed."""
Folders = tuple[int, ...]
"""Stamp of a folder; () = it is gone."""


class Seen(msgspec.Struct, frozen=True, array_like=True):
    stamp: Stamp
    size: int
    hashes: tuple[bytes, ...] = ()
    """Hash of each block, where it has several."""


_SEEN, _NONE = msgspec.msgpack.Decoder(dict[str, Seen]), Seen((None,), -1)


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


class Changed(msgspec.Struct, eq=False):
    """Finds changes of one session. The first change of a new one has all files."""

    root: Path
    id: InstanceId
    engine: str
    beside: Beside
    as_of: float = 0.0
    """Begin of the last look that saw all, by the boot clock."""
    _seen: bytes = zlib.compress(msgspec.msgpack.encode({}))
    """By path, packed: a Baileys session has 800 files, and a machine 200 sessions."""
    _folders: dict[str, Folders] = {}
    _others: Mapping[str, Stamp] = {}
    _skipped: int = FULL

    def look(self) -> Change | None:
        """None: nothing changed, or the files change while they are read: the next look has them.
        VaultError where they cannot be read."""
        begun, others = boot_now(), self.beside.stamps(self.id)
        with open_instance(self.root, self.id) as top:
            same = others == self._others and _folder_stamps(top, self._folders) == self._folders
            if self._skipped < FULL and same:
                self._skipped, self.as_of = self._skipped + 1, begun
                return None
            seen = _SEEN.decode(zlib.decompress(self._seen))
            folders, files, found = self._read(top, others, seen)
            if _folder_stamps(top, folders) != folders:
                return None
        gone = tuple(sorted(seen.keys() - files.keys()))
        # What is renamed into it within the same tick of the kernel's clock leaves no other stamp.
        newest = max(stamp[-1] for stamp in folders.values() if stamp) / 1e9
        self._folders, self._skipped = folders, 0 if newest < time.time() - TICK else FULL
        self._seen = zlib.compress(msgspec.msgpack.encode(files), 1)
        self._others, self.as_of = others, begun
        return Change(found, gone) if found or gone else None

    def _read(
        self, top: Folder, others: Mapping[str, Stamp], seen: Mapping[str, Seen]
    ) -> tuple[dict[str, Folders], dict[str, Seen], dict[str, File]]:
        """Stamps of the folders, and the files; of those that may differ the blocks that do."""
        folders, files, found = dict[str, Folders](), dict[str, Seen](), dict[str, File]()
        left = LARGEST

        def take(path: str, stamp: Stamp, read: Callable[[], bytes]) -> None:
            nonlocal left
            had = seen.get(path, _NONE)
            if had.stamp == stamp:
                files[path] = had
                left -= had.size
                return
            content = read()
            left -= len(content)
            if left < 0 or len(files) >= MOST_FILES or len(path) > LONGEST_PATH:
                most = f"{MOST_FILES} files or {LARGEST >> 20} MiB, or a long path"
                raise VaultError(f"cannot copy {self.id}: more than {most}", code="too_large")
            blocks = [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]
            now = tuple(blake2b(it, digest_size=16).digest() for it in blocks)
            new = {n: it for n, it in enumerate(blocks) if had.hashes[n : n + 1] != now[n : n + 1]}
            files[path] = Seen(stamp, len(content), now * (len(blocks) > 1))
            if new or len(content) != had.size:
                found[path] = File(len(content), new)

        for path, stamp in others.items():
            with unless_absent():  # it was sent meanwhile, say
                take(path, stamp, partial(self.beside.read, self.id, path))
        with top.inner(SESSION) as session:
            folders[SESSION] = _stamp(os.fstat(session.fd))
            for entry in walk(session, self.engine):
                path, stamp = f"{SESSION}/{entry.path}", _stamp(entry.status)
                if entry.is_folder:
                    folders[path] = stamp
                else:
                    take(path, stamp, partial(b"".join, read_file(session, entry.path)))
        return folders, files, found


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _folder_stamps(top: Folder, folders: Mapping[str, Folders]) -> dict[str, Folders]:
    found = dict[str, Folders]()
    for path in folders:
        try:
            found[path] = _stamp(os.stat(path or ".", dir_fd=top.fd, follow_symlinks=False))
        except FileNotFoundError:
            found[path] = ()
    return found


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
