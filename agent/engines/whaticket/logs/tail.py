"""Files that grow, follow each other by rotation, or are cut short, read from the last position.

Blocking; runs in a thread. A file is known by its inode, so a renamed one is read to its end;
hashes of its first bytes and of those before the position show that it was written over, or is a
copy.
"""

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agent.core.findings.crypto_patterns import CryptoPattern
from agent.engines.whaticket.logs import rotated
from agent.engines.whaticket.logs.find import find_logs, unreadable
from agent.engines.whaticket.logs.rotated import Mark, hash_of, key_of, read_mark
from agent.engines.whaticket.logs.stream import Batch, Splitter, Stream
from agent.engines.whaticket.logs.times import LogClock

CHUNK = 256 << 10
MOST_BEHIND = 64 << 20
"""Bytes; what lies further back is passed over: it is no news any more."""
_GRACE = 15.0
"""Seconds for which a program may go on writing into the file that was renamed."""


@dataclass(slots=True)
class Tail:
    """One open file. `position` is behind the last whole line that was read."""

    fd: int
    path: str
    stream: Stream
    position: int = 0
    head: str = ""
    head_length: int = 0
    last: bytes = b""
    """What stands just before `position`, a little of it."""
    earlier: Mark | None = None
    """Where an earlier life stood, until it was compared with the file."""
    read_at: float = 0.0

    @property
    def behind(self) -> int:
        """Where the next reading begins."""
        return self.position + len(self.stream.splitter.partial)

    @property
    def mark(self) -> Mark:
        if self.earlier is not None:
            return self.earlier
        return Mark(self.position, self.head, self.head_length, hash_of(self.last), len(self.last))


@dataclass(slots=True)
class LogTail:
    """All files of one source."""

    kind: str
    what: str
    log_session: re.Pattern[str] | None = None
    earlier: Mapping[str, Any] = field(default_factory=dict)
    """What `positions` gave in an earlier life."""
    own: tuple[CryptoPattern, ...] = ()
    history: int = 0
    """Bytes that are read of a file which no earlier life has met; the agent wants none."""
    most_behind: int = MOST_BEHIND
    hint: str = ""
    """The session whose log it is, where its name says so."""
    clock_of: Callable[[Path], LogClock] | None = None
    """Makes the clock that reads when a file's lines were written."""
    trouble: str = ""
    _tails: dict[str, Tail] = field(default_factory=dict)
    _scanned: bool = False

    def poll(self, now: float) -> Batch:
        batch = Batch()
        logs = find_logs(self.kind, self.what)
        paths, self.trouble = logs.files, logs.trouble
        here = {key_of(status) for _, status in paths}
        if not self._scanned:
            self._catch_up(here, now, batch)
        for path, status in paths:
            self._meet(path, status, now)
        for key, tail in list(self._tails.items()):
            self._read(tail, now, batch)
            if key not in here and now - tail.read_at > _GRACE:
                self._drop(key, now, batch)
        self._scanned = True
        return batch

    def finish(self, now: float) -> Batch:
        """Report a record that still waits for more lines as it is."""
        batch = Batch()
        for tail in self._tails.values():
            tail.stream.idle(now, batch, ends=True)
        return batch

    def positions(self) -> dict[str, Any]:
        if not self._scanned:
            return dict(self.earlier)
        return {key: {"path": tail.path, **asdict(tail.mark)} for key, tail in self._tails.items()}

    def close(self) -> None:
        for tail in self._tails.values():
            os.close(tail.fd)
        self._tails.clear()

    def _meet(self, path: str, status: os.stat_result, now: float) -> None:
        key = key_of(status)
        if key in self._tails:
            self._tails[key].path = path
            return
        raw_mark = self.earlier.get(key) if not self._scanned else None
        is_new = self._scanned or any(raw.get("path") == path for raw in self.earlier.values())
        start = 0 if is_new else max(status.st_size - self.history, 0)
        if (tail := self._open(path, key, start, now)) is None:
            return
        if raw_mark is not None and (mark := read_mark(raw_mark)) is not None:
            tail.position, tail.earlier = mark.position, mark
            tail.head, tail.head_length = mark.head, mark.head_length
        elif start and self.history:
            tail.stream.splitter = Splitter(skipping=True)

    def _catch_up(self, here: Collection[str], now: float, batch: Batch) -> None:
        """What was rotated away since an earlier life read it."""
        met = frozenset(self.earlier)
        for key, raw in self.earlier.items():
            path, mark = Path(str(raw.get("path"))), read_mark(raw)
            if mark is None:
                continue
            if key not in here and (tail := self._find_renamed(path, key, mark, now)) is not None:
                self._read_to_end(tail, now, batch)
                for between in rotated.rotated_since(path, key, met):
                    self._read_old(between, 0, now, batch)
            elif not _goes_on(path, key, mark):
                for old, start in rotated.missed(path, mark, met):
                    self._read_old(old, start, now, batch)

    def _find_renamed(self, path: Path, key: str, mark: Mark, now: float) -> Tail | None:
        """The file of the last position under its new name: its writer may not have heard of the
        rotation yet."""
        try:
            with os.scandir(path.parent) as entries:
                files = (entry for entry in entries if entry.is_file())
                renamed = next((e.path for e in files if key_of(e.stat()) == key), None)
        except OSError:
            return None
        tail = self._open(renamed, key, mark.position, now) if renamed is not None else None
        if tail is not None:
            tail.earlier, tail.head, tail.head_length = mark, mark.head, mark.head_length
            if not _stands_here(tail):
                self._tails.pop(key)
                os.close(tail.fd)
                return None
        return tail

    def _read_to_end(self, tail: Tail, now: float, batch: Batch) -> None:
        """It is older than all that is read after it."""
        batch.more = True
        while batch.more:
            batch.more = False
            self._read(tail, now, batch)

    def _read_old(self, path: Path, start: int, now: float, batch: Batch) -> None:
        """An old part, whole from there on; it grows no more."""
        stream = self._stream(str(path))
        try:
            with rotated.opened(path) as file:
                file.seek(start)
                left = self.most_behind
                while left > 0 and (chunk := file.read(min(CHUNK, left))):
                    left -= len(chunk)
                    stream.feed(chunk, now, batch)
        except rotated.UNREADABLE as error:
            self.trouble = f"cannot read {path}: {getattr(error, 'strerror', None) or error}"
        stream.idle(now, batch, ends=True)

    def _stream(self, path: str) -> Stream:
        # Only a folder of one log per session is named by its sessions.
        hint = self.hint or (Path(path).stem if self.kind == "folder" else "")
        clock = self.clock_of(Path(path)) if self.clock_of is not None else None
        return Stream(hint, self.log_session, self.own, clock)

    def _open(self, path: str, key: str, start: int, now: float) -> Tail | None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self.trouble = unreadable(path, error)
            return None
        if key_of(os.fstat(fd)) != key:
            os.close(fd)  # replaced since; the next look finds what is there then
            return None
        tail = self._tails[key] = Tail(fd, path, self._stream(path), start, read_at=now)
        return tail

    def _read(self, tail: Tail, now: float, batch: Batch) -> None:
        try:
            size = os.fstat(tail.fd).st_size
            if size < tail.behind or (size > tail.behind and not _stands_here(tail)):
                if tail.earlier is None:  # else the old parts were looked through already
                    self._read_copy(tail, now, batch)
                _begin_again(tail)
            tail.earlier = None
            if size - tail.behind > self.most_behind:
                batch.passed_over += size - self.most_behind - tail.behind
                tail.position, tail.last = size - self.most_behind, b""
                tail.stream.splitter = Splitter(skipping=True)
            if size <= tail.behind:
                tail.stream.idle(now, batch)
                return
            at = tail.behind
            chunk = os.pread(tail.fd, CHUNK, at)
        except OSError as error:
            self.trouble = unreadable(tail.path, error)
            return
        tail.read_at = now
        before = tail.stream.splitter.partial
        tail.stream.feed(chunk, now, batch)
        tail.position = at + len(chunk) - len(tail.stream.splitter.partial)
        _note_place(tail, before + chunk)
        batch.more = batch.more or size > at + len(chunk)

    def _read_copy(self, tail: Tail, now: float, batch: Batch) -> None:
        """The file was cut: what was written just before stands in the copy that was made."""
        missed = rotated.missed(Path(tail.path), tail.mark, frozenset(self._tails))
        if (copy := next(missed, None)) is not None:
            self._read_old(*copy, now, batch)

    def _drop(self, key: str, now: float, batch: Batch) -> None:
        tail = self._tails.pop(key)
        tail.stream.idle(now, batch, ends=True)
        os.close(tail.fd)


def _goes_on(path: Path, key: str, mark: Mark) -> bool:
    """Whether the log at that path is the file that the mark stands in."""
    try:
        with path.open("rb") as file:
            return key_of(os.fstat(file.fileno())) == key and mark.stands_in(file)
    except OSError:
        return False


def _stands_here(tail: Tail) -> bool:
    """Whether our place is where it was: the file was neither cut nor written over."""
    mark = tail.mark
    if mark.head_length and hash_of(os.pread(tail.fd, mark.head_length, 0)) != mark.head:
        return False
    before = os.pread(tail.fd, mark.last_length, mark.position - mark.last_length)
    return not mark.last_length or hash_of(before) == mark.last


def _begin_again(tail: Tail) -> None:
    tail.position, tail.head, tail.head_length, tail.last = 0, "", 0, b""
    tail.stream.splitter.clear()


def _note_place(tail: Tail, read: bytes) -> None:
    """`read`: what was read since `position` was last noted, whole lines and the rest."""
    length = min(rotated.HEAD, tail.position)
    if length > tail.head_length:
        tail.head, tail.head_length = hash_of(os.pread(tail.fd, length, 0)), length
    whole = read[: len(read) - len(tail.stream.splitter.partial)]
    if not tail.stream.splitter.skipping:
        tail.last = (tail.last + whole)[-rotated.LAST :]
    else:
        tail.last = b""
