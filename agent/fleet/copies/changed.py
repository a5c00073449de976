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
from array import array
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from agent.clock import boot_now
from agent.core.model import InstanceId
from agent.errors import StoreError, VaultError
from agent.files import open_plain
from agent.fleet.copies.change import LARGEST, LONGEST_PATH, MOST_FILES, Change, File, blocks_of
from agent.messages.database import open_to_read
from agent.vault.folder import SESSION, open_instance, unless_absent
from agent.vault.tree import read_file, walk

IDENTITY, MESSAGES, ROWS, MEDIA = "instance.json", "messages/messages.db", "outbox.json", "outbox/"
MOVED = "moved"
"""Paths of a copy, beside the session's files, which lie below `session/`; the last, an empty file,
is in the copy of a session that its machine has ended to give it away."""
SHARE, LONGEST_PAUSE = 20, 4.0
"""A copy of messages.db is followed by a pause of this number of times its duration, and of this
number of seconds at most, well within what a copy may lack."""
TICK = 0.05
_CHANGED = """select instance, count(*), max(changed_wall), total(tries), max(begun_wall),
group_concat(case when state in ('accepted', 'sending') then file end, '/')
from messages group by instance"""
Stamp = tuple[Any, ...]
"""Marks of a file by which a change shows; () = there is no file."""
EVERY = 30.0
"""Seconds after which files are looked at though no folder says that they changed."""


class Seen(msgspec.Struct, frozen=True, array_like=True):
    stamp: Stamp
    size: int
    hashes: tuple[bytes, ...] = ()
    """Hash of each block, if the file has several."""


_NONE = Seen((None,), -1)


class Files(msgspec.Struct, frozen=True):
    """A session's files as of one look: a Baileys session has 800, and a machine 200 sessions."""

    folders: dict[str, Stamp] = {}
    marks: bytes = b""
    """A hash of path and stamp of each file."""
    paths: bytes = zlib.compress(b"")
    size: int = 0


class Beside:
    """Files beside the engines' ones, of all sessions. Calls use the disk: each in a thread, one
    at a time."""

    def __init__(self, root: Path, outbox: Path) -> None:
        """`outbox`: outbox.db; the files of its messages lie in the folder of that name beside."""
        self._root, self._outbox = root, outbox
        self._seen: Stamp = ()
        self._rows = dict[str, tuple[Stamp, tuple[str, ...]]]()
        """Session → a stamp that differs when a row of it changed, and its media files."""
        self._copied = dict[str, Stamp]()
        """Session → stamp of messages.db at the last look; of its last copy until a pause ends."""
        self._paused = dict[str, tuple[float, Stamp]]()

    def look(self) -> None:
        """Look at the outbox, once for all sessions."""
        if (stamp := _stamps(str(self._outbox))) == self._seen:
            return
        with suppress(sqlite3.Error, OSError), closing(self._open()) as db:
            self._rows = {
                id: (tuple(row), tuple(filter(None, (files or "").split("/"))))
                for id, *row, files in db.execute(_CHANGED)
            }
            self._seen = stamp

    def stamps(self, id: InstanceId) -> Mapping[str, Stamp]:
        """Return for each path of the copy a stamp that differs when the file changed."""
        stamps = {IDENTITY: _stamps(f"{self._root}/{id}/{IDENTITY}")}
        if id in self._rows:
            stamps[ROWS], files = self._rows[id]
            stamps |= {MEDIA + name: () for name in files}
        if stamp := _stamps(f"{self._root}/{id}/{MESSAGES}"):
            until, before = self._paused.get(id, (0.0, stamp))
            stamps[MESSAGES] = self._copied[id] = before if time.monotonic() < until else stamp
        return stamps

    def hurry(self, id: InstanceId) -> None:
        """Let the next look copy messages.db, however new its last copy is."""
        self._paused.pop(id, None)

    def read(self, id: InstanceId, path: str) -> bytes:
        """Return a file's content; VaultError if it cannot be read now."""
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
    """Boot time of the begin of the last look that saw all."""
    _files: Files = Files()
    _beside: dict[str, Seen] = {}
    _all_at: float = 0.0
    """Boot time of the next look at all files."""

    def look(self) -> Change | None:
        """None: nothing changed, or the files change while they are read: the next look has them.
        VaultError where they cannot be read."""
        begun, stamps, below = boot_now(), self.beside.stamps(self.id), self.root / self.id
        files, beside, found = self._files, dict[str, Seen](), dict[str, File]()
        same = begun < self._all_at and _folder_stamps(below, files.folders) == files.folders
        if same and stamps == {path: it.stamp for path, it in self._beside.items()}:
            self.as_of = begun
            return None
        size = files.size * same
        for path, stamp in stamps.items():
            had = self._beside.get(path, _NONE)
            with unless_absent():  # it was sent meanwhile, say
                if had.stamp != stamp:
                    had = _take(found, path, had, stamp, self.beside.read(self.id, path))
                beside[path] = had
                _limit(size := size + had.size)
        gone = self._beside.keys() - beside.keys()
        if not same:
            files = self._walk(found, size)
            if _folder_stamps(below, files.folders) != files.folders:
                return None
            # A file that is renamed into a folder within the same tick of the clock leaves no other
            # stamp.
            newest = max(stamp[-1] for stamp in files.folders.values() if stamp) / 1e9
            self._all_at = begun + EVERY * (newest < time.time() - TICK)
        if files.paths != self._files.paths:
            gone |= _unpacked(self._files.paths) - _unpacked(files.paths)
        self._files, self._beside, self.as_of = files, beside, begun
        return Change(found, tuple(sorted(gone))) if found or gone else None

    def _walk(self, found: dict[str, File], beside: int) -> Files:
        """Read files that may differ whole. `beside`: bytes of other files."""
        known, size, paths, marks = {*array("q", self._files.marks)}, 0, list[str](), array("q")
        with open_instance(self.root, self.id, SESSION) as session:
            folders: dict[str, Stamp] = {SESSION: _stamp(os.fstat(session.fd))}
            for entry in walk(session, self.engine):
                path, it = f"{SESSION}/{entry.path}", entry.status
                if entry.is_folder:
                    folders[path] = _stamp(it)
                    continue
                paths.append(path)
                marks.append(hash((path, it.st_ino, it.st_size, it.st_mtime_ns)))
                size += it.st_size
                _limit(beside + size, len(paths), len(path))
                if marks[-1] not in known:
                    with unless_absent():
                        _take(found, path, _NONE, (), b"".join(read_file(session, entry.path)))
        packed = zlib.compress("\0".join(paths).encode(errors="surrogateescape"), 1)
        return Files(folders, marks.tobytes(), packed, size)


def _take(found: dict[str, File], path: str, had: Seen, stamp: Stamp, content: bytes) -> Seen:
    """Return what is now seen of a file; `found` gets the blocks of it that differ."""
    blocks = blocks_of(content)
    now = tuple(blake2b(it, digest_size=16).digest() for it in blocks)
    was = dict(enumerate(had.hashes))
    new = {n: it for n, it in enumerate(blocks) if was.get(n) != now[n]}
    if new or len(content) != had.size:
        found[path] = File(len(content), new)
    return Seen(stamp, len(content), now * (len(blocks) > 1))


def _limit(size: int, files: int = 0, longest: int = 0) -> None:
    if size > LARGEST or files > MOST_FILES or longest > LONGEST_PATH:
        most = f"{MOST_FILES} files or {LARGEST >> 20} MiB, or a long path"
        raise VaultError(f"cannot copy more than {most}", code="too_large")


def _unpacked(paths: bytes) -> set[str]:
    return {*zlib.decompress(paths).decode(errors="surrogateescape").split("\0")} - {""}


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _folder_stamps(below: Path, folders: Iterable[str]) -> dict[str, Stamp]:
    return {path: _stamp_at(f"{below}/{path}") for path in folders}


def _stamp_at(path: str) -> Stamp:
    with suppress(OSError):
        return _stamp(os.lstat(path))
    return ()


def _stamps(path: str) -> Stamp:
    """Return the stamps of a file and of SQLite's journal beside it."""
    found = list[object]()
    for each in (path, f"{path}-wal"):
        if stamp := _stamp_at(each):
            found += stamp
            # A second write in the same tick of the kernel's clock would not show.
            found += [time.monotonic()] * (abs(time.time() - stamp[-1] / 1e9) < TICK)
    return tuple(found)
