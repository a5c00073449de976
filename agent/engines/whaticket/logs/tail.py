"""Files that grow, follow each other by rotation, or are cut short, read from where we stood.

Blocking; runs in a thread. A file is known by its inode, so a renamed one is read to its end;
the first bytes of one are remembered as a hash, so that one written anew in place is noticed.
"""

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.core.findings.crypto_patterns import CryptoPattern
from agent.engines.whaticket.logs.splitter import Splitter
from agent.engines.whaticket.logs.stream import Batch, Stream

CHUNK = 256 << 10
MOST_FILES = 200
MOST_BEHIND = 64 << 20
"""Bytes; what lies further back is passed over: it is no news any more."""
_GRACE = 15.0
"""Seconds for which a program may go on writing into the file that was renamed."""
_HEAD = 64
_ROTATED_BY_PM2 = re.compile(r"__\d{4}-\d\d-\d\d")


@dataclass(slots=True)
class Tail:
    """One open file. `position` is behind the last whole line that was read."""

    fd: int
    path: str
    stream: Stream
    position: int = 0
    head: str = ""
    head_length: int = 0
    read_at: float = 0.0

    @property
    def behind(self) -> int:
        """Where the next reading begins."""
        return self.position + len(self.stream.splitter.partial)


@dataclass(slots=True)
class Follower:
    """All files of one source."""

    kind: str
    what: str
    log_session: re.Pattern[str] | None = None
    kept: Mapping[str, Any] = field(default_factory=dict)
    """What `positions` gave in an earlier life."""
    own: tuple[CryptoPattern, ...] = ()
    trouble: str = ""
    _tails: dict[str, Tail] = field(default_factory=dict)
    _scanned: bool = False

    def poll(self, now: float) -> Batch:
        batch = Batch()
        paths = self._scan()
        for path, status in paths:
            self._meet(path, status, now)
        here = {_key(status) for _, status in paths}
        if not self._scanned:
            for key in self.kept.keys() - here:
                self._find_rotated(key, now)
        for key, tail in list(self._tails.items()):
            self._read(tail, now, batch)
            if key not in here and now - tail.read_at > _GRACE:
                self._drop(key, now, batch)
        self._scanned = True
        return batch

    def positions(self) -> dict[str, Any]:
        if not self._scanned:
            return dict(self.kept)
        return {
            key: {
                "path": tail.path,
                "position": tail.position,
                "head": tail.head,
                "head_length": tail.head_length,
            }
            for key, tail in self._tails.items()
        }

    def close(self) -> None:
        for tail in self._tails.values():
            os.close(tail.fd)
        self._tails.clear()

    def _scan(self) -> list[tuple[str, os.stat_result]]:
        self.trouble = ""
        found = []
        for path in self._paths():
            try:
                status = Path(path).stat()
            except OSError as error:
                if self.kind == "file":
                    self.trouble = _words(path, error)
                continue
            if stat.S_ISREG(status.st_mode):
                found.append((path, status))
            elif self.kind == "file":
                self.trouble = f"cannot read {path}: it is no file"
        if len(found) > MOST_FILES:
            self.trouble = f"cannot follow all of {self.what}: more than {MOST_FILES} files"
            found = sorted(found, key=lambda each: each[1].st_mtime)[-MOST_FILES:]
        return found

    def _paths(self) -> list[str]:
        if self.kind == "file":
            return [self.what]
        folder, app = (self.what, "") if self.kind == "folder" else _pm2_place(self.what)
        try:
            names = sorted(each.name for each in Path(folder).iterdir())
        except OSError as error:
            self.trouble = _words(folder, error)
            return []
        return [str(Path(folder, name)) for name in names if self._wants(name, app)]

    def _wants(self, name: str, app: str) -> bool:
        if not name.endswith(".log") or name.startswith("."):
            return False
        if self.kind == "folder":
            return True
        if _ROTATED_BY_PM2.search(name):
            return False  # a copy of what was read already
        return (
            not app
            or re.fullmatch(rf"{re.escape(app)}-(?:out|error)(?:-\d+)?\.log", name) is not None
        )

    def _meet(self, path: str, status: os.stat_result, now: float) -> None:
        key = _key(status)
        if key in self._tails:
            self._tails[key].path = path
            return
        known = self.kept.get(key) if not self._scanned else None
        is_new = self._scanned or any(each.get("path") == path for each in self.kept.values())
        self._open(path, key, known, 0 if is_new else status.st_size, now)

    def _find_rotated(self, key: str, now: float) -> None:
        """The file that we were in the midst of when we ended, under its new name."""
        try:
            with os.scandir(Path(str(self.kept[key].get("path"))).parent) as entries:
                for entry in entries:
                    if entry.is_file() and _key(entry.stat()) == key:
                        self._open(entry.path, key, self.kept[key], 0, now)
                        return
        except OSError:
            return

    def _open(
        self, path: str, key: str, known: Mapping[str, Any] | None, start: int, now: float
    ) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self.trouble = _words(path, error)
            return
        if _key(os.fstat(fd)) != key:
            os.close(fd)  # replaced since; the next look finds what is there then
            return
        # Only a folder of one log per session is named by its sessions.
        hint = Path(path).stem if self.kind == "folder" else ""
        tail = Tail(fd, path, Stream(hint, self.log_session, self.own), start, read_at=now)
        if known is not None:
            position, length = known.get("position"), known.get("head_length")
            if isinstance(position, int) and isinstance(length, int) and 0 <= length <= _HEAD:
                tail.position, tail.head_length = max(position, 0), length
                tail.head = str(known.get("head", ""))
        self._tails[key] = tail

    def _read(self, tail: Tail, now: float, batch: Batch) -> None:
        try:
            size = os.fstat(tail.fd).st_size
            if size < tail.behind or (size > tail.behind and not _same_head(tail)):
                tail.position, tail.head_length = 0, 0
                tail.stream.splitter.clear()
            if size - tail.behind > MOST_BEHIND:
                batch.passed_over += size - MOST_BEHIND - tail.behind
                tail.position = size - MOST_BEHIND
                tail.stream.splitter = Splitter(skipping=True)
            if size <= tail.behind:
                tail.stream.idle(now, batch)
                return
            at = tail.behind
            chunk = os.pread(tail.fd, CHUNK, at)
        except OSError as error:
            self.trouble = _words(tail.path, error)
            return
        tail.read_at = now
        tail.stream.feed(chunk, now, batch)
        tail.position = at + len(chunk) - len(tail.stream.splitter.partial)
        _note_head(tail)
        batch.more = batch.more or size > at + len(chunk)

    def _drop(self, key: str, now: float, batch: Batch) -> None:
        tail = self._tails.pop(key)
        tail.stream.idle(now, batch, ends=True)
        os.close(tail.fd)


def _key(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}"


def _pm2_place(what: str) -> tuple[str, str]:
    """`/home/x/.pm2/logs`, or the same with an app's name behind it."""
    if Path(what).is_dir():
        return what, ""
    return str(Path(what).parent), Path(what).name


def _head_of(tail: Tail, length: int) -> str:
    return hashlib.sha256(os.pread(tail.fd, length, 0)).hexdigest()


def _same_head(tail: Tail) -> bool:
    return not tail.head_length or _head_of(tail, tail.head_length) == tail.head


def _note_head(tail: Tail) -> None:
    length = min(_HEAD, tail.position)
    if length > tail.head_length:
        tail.head, tail.head_length = _head_of(tail, length), length


def _words(path: str, error: OSError) -> str:
    return f"cannot read {path}: {(error.strerror or 'unknown').lower()}"
