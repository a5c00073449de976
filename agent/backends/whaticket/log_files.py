"""A server's logs: files by path and glob, read on from where an earlier run stood, or one
command; and the session that an error counts for.

A file is known by its inode. What was rotated away before it was read is said, not searched. When a
line was written is told by its own time, measured from the file's last line, which was written when
the file last changed: so no time zone matters.
"""

import asyncio
import glob
import hashlib
import json
import os
import re
import shlex
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.backends.whaticket.calls import Row
from agent.backends.whaticket.damage import user_of
from agent.backends.whaticket.log_lines import LONGEST_LINE, LineReader, LogError, Turn
from agent.errors import EngineError
from agent.files import open_plain

CHUNK = 256 << 10
MOST_FILES = 200
QUIET = 0.7
"""Seconds after which an error waits for no further lines of its stack."""
GRACE = 15.0
"""Seconds for which a program may go on writing into a file that was renamed."""
MOMENT = 30.0
"""Seconds around a reconnect in which an error without a name counts for that session."""
_PRINT = 256
_COPIES = re.compile(r"__\d{4}-\d\d-\d\d|\.gz$")
"""In the names of pm2's copies of what was read already."""
_EPOCH = re.compile(rb'"time":\s*(1\d{12})\b')
_TIME = re.compile(
    rb"(?:(20\d\d)[-/](\d\d)[-/](\d\d)|(\d\d)[-/](\d\d)[-/](20\d\d))?[T ,]{0,2}"
    rb"(?<!\d)(\d\d):(\d\d):(\d\d)(?!\d)"
)
_QUARTER = 900.0


@dataclass(frozen=True, slots=True)
class Found:
    """What stood in a log, when (Unix time), and what its file is called."""

    it: LogError | Turn
    at: float
    hint: str = ""


def stamp_of(raw: bytes) -> float | None:
    """The time in a line, in a zone that is not known; without a date, of the first day."""
    if raw[:1] == b"{" and (epoch := _EPOCH.search(raw[:4096])):
        return int(epoch[1]) / 1000.0
    if (hit := _TIME.search(raw[:96])) is None:
        return None
    year, month, day = (hit[1], hit[2], hit[3]) if hit[1] else (hit[6], hit[5], hit[4])
    try:
        date = (int(year), int(month), int(day)) if year else (1970, 1, 1)
        clock = (int(hit[7]), int(hit[8]), int(hit[9]))
        return datetime(*date, *clock, tzinfo=UTC).timestamp()
    except ValueError:
        return None


@dataclass(slots=True)
class Tail:
    """One open file."""

    fd: int
    path: str
    reader: LineReader
    offset: int
    """Behind the last whole line that was read."""
    safe: int
    """Where a later run must begin, for no line before it waits for another."""
    stamp: float | None = None
    """Of the newest line that has one."""
    began: float | None = None
    """Of the line that waits for more."""
    live: bool = False
    """True if nothing was left unread a moment ago: what is read now was written now."""
    skew: float | None = None
    """Seconds from a stamp to Unix time."""
    skips: bool = False
    """True within a line that is longer than any that is read."""
    heard_at: float = 0.0
    waiting: list[tuple[LogError | Turn, float | None]] = field(default_factory=list)

    def read(self, most: int, now: float) -> int:
        """Read on; how many bytes."""
        chunk = os.pread(self.fd, most, self.offset)
        end = chunk.rfind(b"\n") + 1
        if not end and len(chunk) < LONGEST_LINE:
            return 0  # half a line waits for its other half
        self.heard_at = now
        if not end:
            self.skips, self.offset = True, self.offset + len(chunk)
            return len(chunk)
        for line in chunk[: end - 1].split(b"\n"):
            if not self.skips:
                self._feed(line)
            self.offset, self.skips = self.offset + len(line) + 1, False
        return end

    def _feed(self, line: bytes) -> None:
        if (stamp := stamp_of(line)) is not None:
            self.stamp = stamp
        self.began = self.stamp if self.reader.rests else self.began
        found = self.reader.feed(line)
        self.waiting += [(it, self.began) for it in found]
        self.began = self.stamp if found else self.began
        if self.reader.rests:
            self.safe = self.offset + len(line) + 1

    def take(self, now: float, *, ends: bool) -> list[Found]:
        """What is complete. `ends`: nothing more comes."""
        if ends or now - self.heard_at > QUIET:
            self.waiting += [(it, self.began) for it in self.reader.flush()]
            self.safe = self.offset
        changed = now if self.live else min(os.fstat(self.fd).st_mtime, now)
        if self.stamp is not None and self.left == 0:
            self.skew = round((changed - self.stamp) / _QUARTER) * _QUARTER
        hint = Path(self.path).stem
        found = [Found(it, self._when(stamp, changed), hint) for it, stamp in self.waiting]
        self.waiting, self.live = [], self.left == 0
        return found

    def _when(self, stamp: float | None, changed: float) -> float:
        if stamp is None or self.skew is None or self.live:
            return changed
        return min(stamp + self.skew, changed)

    @property
    def left(self) -> int:
        return max(os.fstat(self.fd).st_size - self.offset, 0)

    def mark(self) -> dict[str, Any]:
        return {"path": self.path, "offset": self.safe, "print": self._print(self.safe)}

    def goes_on(self, mark: Mapping[str, Any]) -> bool:
        """True if the file has what stood before the mark."""
        return self._print(self.offset) == mark.get("print")

    def _print(self, offset: int) -> str:
        before = os.pread(self.fd, min(_PRINT, offset), max(offset - _PRINT, 0))
        return hashlib.sha256(before).hexdigest() if len(before) == min(_PRINT, offset) else ""


@dataclass(slots=True)
class LogFiles:
    """Blocking; runs in a thread."""

    patterns: Sequence[str]
    make_reader: Callable[[], LineReader]
    marks: Mapping[str, Any] = field(default_factory=dict)
    """What `positions` gave in an earlier run; by inode."""
    history: int = 0
    """Bytes that are read of a file if no earlier run met it."""
    trouble: str = ""
    lost: list[str] = field(default_factory=list)
    """What was rotated away before it was read; the caller empties it."""
    _tails: dict[str, Tail] = field(default_factory=dict)
    _gone: dict[str, float] = field(default_factory=dict)
    _began: bool = False

    def read(self, most: int, *, ends: bool = False) -> list[Found]:
        """At most so many bytes. `ends`: nothing more comes in this run."""
        now = time.time()
        self._meet()
        found = []
        for key, tail in list(self._tails.items()):
            try:
                if os.fstat(tail.fd).st_size < tail.offset:
                    self._begin_again(tail)
                while most > 0 and (count := tail.read(min(CHUNK + LONGEST_LINE, most), now)):
                    most -= count
                found += tail.take(now, ends=ends)
            except OSError as error:
                self.trouble = _unreadable(tail.path, error)
            if not tail.left and now - self._gone.get(key, now) > GRACE:
                os.close(self._tails.pop(key).fd)
        if behind := self.behind:
            self.trouble = self.trouble or f"{behind >> 10} KiB of its logs are not read yet"
        return found

    @property
    def behind(self) -> int:
        """Bytes that are not read, but for half a line."""
        left = (tail.left for tail in self._tails.values())
        return sum(count for count in left if count > LONGEST_LINE)

    def positions(self) -> dict[str, Any]:
        return {key: tail.mark() for key, tail in self._tails.items()}

    def close(self) -> None:
        for tail in self._tails.values():
            os.close(tail.fd)
        self._tails.clear()

    def _meet(self) -> None:
        self.trouble, here = "", set()
        for path in self._paths():
            try:
                status = Path(path).stat()
                key = f"{status.st_dev}:{status.st_ino}"
                here.add(key)
                if key in self._tails:
                    self._tails[key].path = path
                else:
                    self._open(path, key)
            except OSError as error:
                self.trouble = _unreadable(path, error)
        now = time.time()
        self._gone = {k: self._gone.get(k, now) for k in self._tails if k not in here}
        if not self._began:
            gone = [mark["path"] for key, mark in self.marks.items() if key not in here]
            self.lost += [
                f"the end of {path}, which was rotated away, is not read" for path in gone
            ]
            self._began = True

    def _paths(self) -> list[str]:
        paths = []
        for pattern in self.patterns:
            plain = not glob.has_magic(pattern)
            found = [pattern] if plain else sorted(map(str, Path("/").glob(pattern.lstrip("/"))))
            paths += [p for p in found if plain or (not _COPIES.search(p) and Path(p).is_file())]
            if not found:
                self.trouble = f"cannot read {pattern}: no such file"
        if len(paths) > MOST_FILES:
            self.trouble = f"cannot follow all of its logs: more than {MOST_FILES} files"
        return paths[:MOST_FILES]

    def _open(self, path: str, key: str) -> None:
        with open_plain(Path(os.path.realpath(path))) as file:
            fd = os.dup(file.fileno())
        mark, size = self.marks.get(key) if not self._began else None, os.fstat(fd).st_size
        known = self._began or any(it["path"] == path for it in self.marks.values())
        start = 0 if known else max(size - self.history, 0)
        tail = Tail(fd, path, self.make_reader(), start, start)
        if mark is not None:
            tail.offset = tail.safe = int(mark["offset"])
            if not tail.goes_on(mark):
                self._begin_again(tail)
        elif start:
            tail.skips = os.pread(fd, 1, start - 1) != b"\n"
        self._tails[key] = tail

    def _begin_again(self, tail: Tail) -> None:
        """The file was cut or written over."""
        tail.offset = tail.safe = 0
        tail.skips = False
        tail.waiting += [(it, tail.stamp) for it in tail.reader.flush()]


def _unreadable(path: str, error: OSError) -> str:
    return f"cannot read {path}: {(error.strerror or type(error).__name__).lower()}"


async def run_command(
    text: str, make_reader: Callable[[], LineReader], take: Callable[[list[Found]], None], rate: int
) -> None:
    """Run it to its end, at most `rate` bytes a second; its pipe fills meanwhile."""
    words, reader, partial = shlex.split(text), make_reader(), b""
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        cause = (error.strerror or "it cannot be started").lower()
        raise EngineError(f"cannot run {words[0]}: {cause}", code="log_source") from error
    assert process.stdout is not None
    try:
        while not process.stdout.at_eof():
            chunk: bytes | None = None
            with suppress(TimeoutError):
                async with asyncio.timeout(QUIET):
                    chunk = await process.stdout.read(CHUNK // 4)
            *lines, partial = (partial + (chunk or b""))[-LONGEST_LINE:].split(b"\n")
            found = [it for line in lines for it in reader.feed(line)]
            take([Found(it, time.time()) for it in (found if chunk else reader.flush())])
            await asyncio.sleep(len(chunk or b"") / rate)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def joined(all_found: list[Found]) -> list[Found]:
    """libsignal's error names no session; the server's own line about that message may."""
    found = list(all_found)
    for at, one in enumerate(found):
        if isinstance(one.it, LogError) and not one.it.session and one.it.finding.peer:
            user = user_of(one.it.finding.peer)
            for other in found[at + 1 : at + 50]:
                named = isinstance(other.it, LogError) and other.it.session
                if named and user == user_of(other.it.finding.peer):  # type: ignore[union-attr]
                    found[at] = replace(one, it=replace(one.it, session=named))
                    break
    return found


@dataclass(slots=True)
class Owners:
    """Which session an error counts for: the one that its line names, else the one that its file
    is named by, else the server's only one, else the only one that reconnected at that moment."""

    _names: dict[str, str] = field(default_factory=dict)
    _only: str = ""
    _turns: list[tuple[float, str]] = field(default_factory=list)

    def know(self, rows: Iterable[Row]) -> None:
        """The server's sessions. A name that two have names neither."""
        rows = list(rows)
        names = [row.name for row in rows]
        self._names = {row.name: row.id for row in rows if row.name and names.count(row.name) == 1}
        self._names |= {row.id: row.id for row in rows}
        self._only = rows[0].id if len(rows) == 1 else ""

    def note(self, session: str, at: float) -> None:
        self._turns = [*self._turns, (at, session)][-500:]

    def whose(self, found: Found) -> str:
        """The server's id of a session; "" = not known."""
        last = re.split(r"(?:session|whatsapp|wpp|baileys)[-_.]", found.hint)[-1]
        for name in (found.it.session, found.hint, last):
            if name in self._names:
                return self._names[name]
        near = {session for at, session in self._turns if abs(at - found.at) < MOMENT}
        return self._only or (near.pop() if len(near) == 1 else "")


def read_json(path: Path) -> dict[str, Any]:
    """{} if it is not there, or is damaged."""
    with suppress(OSError, ValueError, RecursionError):
        raw = json.loads(path.read_bytes())
        return raw if isinstance(raw, dict) else {}
    return {}
