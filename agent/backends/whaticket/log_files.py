"""A server's logs: files by path and glob, read on from where an earlier run stood, or one
command; and the session that an error counts for.

A file is known by its inode. What was rotated away before it was read is said, not searched. When a
line was written is told by its own time, measured from the file's last line, which was written when
the file last changed: so no time zone matters.
"""

import asyncio
import hashlib
import json
import os
import re
import shlex
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from agent.backends.whaticket.calls import Row
from agent.backends.whaticket.contract import BackendSettings, cannot
from agent.backends.whaticket.log_lines import LONGEST_LINE, LineReader, LogError, Turn
from agent.core.findings.crypto_patterns import CryptoPattern
from agent.files import open_plain

CHUNK = LONGEST_LINE + (256 << 10)
MOST_FILES = 200
QUIET = 0.7
"""Seconds after which an error waits for no further lines of its stack."""
GRACE = 15.0
"""Seconds for which a program may go on writing into a file that was renamed."""
MOMENT = 30.0
"""Seconds around a reconnect in which an error without a name counts for that session."""
_COPIES = re.compile(r"__\d{4}-\d\d-\d\d|\.gz$")
"""In the names of pm2's copies of what was read already."""
_EPOCH = re.compile(rb'"time":\s*(1\d{12})\b')
_TIME = re.compile(
    rb"(?:(20\d\d)[-/](\d\d)[-/](\d\d)|(\d\d)[-/](\d\d)[-/](20\d\d))?[T ,]{0,2}"
    rb"(?<!\d)(\d\d):(\d\d):(\d\d)(?!\d)"
)
_QUARTER, _FIRST_DAY = 900.0, date(1970, 1, 1).toordinal()


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
    day = (hit[1], hit[2], hit[3]) if hit[1] else (hit[6] or 1970, hit[5] or 1, hit[4] or 1)
    with suppress(ValueError):
        clock = 3600.0 * int(hit[7]) + 60 * int(hit[8]) + int(hit[9])
        return (date(*map(int, day)).toordinal() - _FIRST_DAY) * 86400.0 + clock
    return None


@dataclass(slots=True)
class Tail:
    """One open file."""

    fd: int
    path: str
    reader: LineReader
    offset: int
    """Behind the last whole line that was read."""
    heard_at: float
    safe: int = 0
    """Where a later run must begin, for no line before it waits for another."""
    stamp: float | None = None
    """Of the newest line that has one."""
    began: float | None = None
    """Of the line that waits for more."""
    skew: float | None = None
    """Seconds from a stamp to Unix time."""
    live: bool = False
    """True if nothing was left unread a moment ago: what is read now was written now."""
    skips: bool = False
    """True within a line that is longer than any that is read."""

    def read(self, most: int, now: float, *, ends: bool) -> tuple[int, list[Found]]:
        """Read on: how many bytes, and what is complete. `ends`: nothing more comes."""
        if os.fstat(self.fd).st_size < self.offset:
            self.begin_again()
        chunk, waiting = os.pread(self.fd, min(most, CHUNK), self.offset), []
        end = chunk.rfind(b"\n") + 1
        if not end and len(chunk) >= LONGEST_LINE:
            self.skips, self.offset, end = True, self.offset + len(chunk), len(chunk)
        else:  # half a line waits for its other half
            for line in chunk[: max(end - 1, 0)].split(b"\n") if end else ():
                waiting += [] if self.skips else self._feed(line)
                self.offset, self.skips = self.offset + len(line) + 1, False
                self.safe = self.offset if self.reader.rests else self.safe
        self.heard_at = now if end else self.heard_at
        if ends or now - self.heard_at > QUIET:
            waiting += [(it, self.began) for it in self.reader.flush()]
            self.safe = self.offset
        status = os.fstat(self.fd)
        changed = now if self.live else min(status.st_mtime, now)
        if self.stamp is not None and status.st_size == self.offset:
            self.skew = round((changed - self.stamp) / _QUARTER) * _QUARTER
        skew, hint = None if self.live else self.skew, Path(self.path).stem
        self.live = status.st_size == self.offset
        return end, [Found(it, _moment(at, skew, changed), hint) for it, at in waiting]

    def _feed(self, line: bytes) -> list[tuple[LogError | Turn, float | None]]:
        stamp = stamp_of(line)
        self.stamp = self.stamp if stamp is None else stamp
        self.began = self.stamp if self.reader.rests else self.began
        found = [(it, self.began) for it in self.reader.feed(line)]
        self.began = self.stamp if found else self.began
        return found

    @property
    def left(self) -> int:
        return max(os.fstat(self.fd).st_size - self.offset, 0)

    def print_of(self, offset: int) -> str:
        """A mark of what stands before that place."""
        before = os.pread(self.fd, min(256, offset), max(offset - 256, 0))
        return hashlib.sha256(before).hexdigest() if len(before) == min(256, offset) else ""

    def begin_again(self) -> None:
        """The file was cut or written over."""
        self.offset, self.safe, self.skips = 0, 0, False


def _moment(stamp: float | None, skew: float | None, changed: float) -> float:
    """Unix time of a stamp in a file that was changed then."""
    at = changed if stamp is None or skew is None else stamp + skew
    return min(at if at < changed + _QUARTER else at - 86400.0, changed)  # before midnight


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
    """What was rotated away before it was read."""
    _tails: dict[str, Tail] = field(default_factory=dict)
    _began: bool = False

    def read(self, most: int, *, ends: bool = False) -> list[Found]:
        """At most so many bytes. `ends`: nothing more comes in this run."""
        now, found, self.trouble = time.time(), list[Found](), ""
        here = self._meet(now)
        for key, tail in list(self._tails.items()):
            count = 1
            try:
                while count and most > 0:
                    count, more = tail.read(most, now, ends=ends)
                    most, found = most - count, found + more
            except OSError as error:
                self.trouble = f"cannot read {tail.path}: {error.strerror}"
            if key not in here and now - tail.heard_at > GRACE:
                os.close(self._tails.pop(key).fd)
        if any(tail.left > LONGEST_LINE for tail in self._tails.values()):
            self.trouble = "its logs grow faster than they are read, so errors count late"
        return found

    def positions(self) -> dict[str, Any]:
        return {
            key: {"path": it.path, "offset": it.safe, "print": it.print_of(it.safe)}
            for key, it in self._tails.items()
        }

    def close(self) -> None:
        for tail in self._tails.values():
            os.close(tail.fd)
        self._tails.clear()

    def _meet(self, now: float) -> set[str]:
        here, paths = set(), list[Path]()
        for pattern in self.patterns:
            found = sorted(Path("/").glob(pattern.lstrip("/")))
            paths += [path for path in found if not _COPIES.search(path.name) and path.is_file()]
            self.trouble = self.trouble if found else f"cannot read {pattern}: no such file"
        if len(paths) > MOST_FILES:
            self.trouble = f"cannot follow all of its logs: more than {MOST_FILES} files"
        for path in paths[:MOST_FILES]:
            try:
                status = path.stat()
                here.add(key := f"{status.st_dev}:{status.st_ino}")
                if key not in self._tails:
                    self._tails[key] = self._open(path, key, now)
                self._tails[key].path = str(path)
            except OSError as error:
                self.trouble = f"cannot read {path}: {error.strerror}"
        if not self._began:
            gone = [mark["path"] for key, mark in self.marks.items() if key not in here]
            self.lost += [f"the end of {path} was rotated away and is not read" for path in gone]
            self._began = True
        return here

    def _open(self, path: Path, key: str, now: float) -> Tail:
        with open_plain(path.resolve()) as file:
            fd = os.dup(file.fileno())
        known = self._began or any(it["path"] == str(path) for it in self.marks.values())
        start = 0 if known else max(os.fstat(fd).st_size - self.history, 0)
        mark = None if self._began else self.marks.get(key)
        start = start if mark is None else int(mark["offset"])
        tail = Tail(fd, str(path), self.make_reader(), start, now, start)
        if mark is not None and tail.print_of(start) != mark["print"]:
            tail.begin_again()
        elif mark is None and start:
            tail.skips = os.pread(fd, 1, start - 1) != b"\n"
        return tail


def open_logs(
    own: BackendSettings, patterns: Sequence[CryptoPattern], marks: Mapping[str, Any], history: int
) -> LogFiles:
    expression = re.compile(own.log_session) if own.log_session else None
    files = [it.removeprefix("file:") for it in own.logs if it.startswith("file:")]
    return LogFiles(files, lambda: LineReader(expression, tuple(patterns)), marks, history)


async def run_command(
    text: str, reader: LineReader, take: Callable[[list[Found]], None], rate: int
) -> None:
    """Run it to its end, at most `rate` bytes a second; its pipe fills meanwhile."""
    words, partial = shlex.split(text), b""
    to = asyncio.subprocess
    try:
        process = await asyncio.create_subprocess_exec(
            *words, stdin=to.DEVNULL, stdout=to.PIPE, stderr=to.STDOUT, start_new_session=True
        )
    except OSError as error:
        raise cannot(f"run {words[0]}", f"{error.strerror}", "log_source") from error
    assert process.stdout is not None
    try:
        while not process.stdout.at_eof():
            chunk = b""
            with suppress(TimeoutError):
                async with asyncio.timeout(QUIET):
                    chunk = await process.stdout.read(CHUNK // 8)
            *lines, partial = (partial + chunk)[-LONGEST_LINE:].split(b"\n")
            found = [it for line in lines for it in reader.feed(line)]
            take([Found(it, time.time()) for it in (found if chunk else reader.flush())])
            await asyncio.sleep(len(chunk) / rate)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@dataclass(slots=True)
class Owners:
    """Which session an error counts for: the one that its line names, else the one that its file
    is named by, else the server's only one, else the only one that reconnected at that moment."""

    ids: dict[str, str] = field(default_factory=dict)
    """The server's ids, by themselves and by each name that no two have."""
    _only: str = ""
    _turns: list[tuple[float, str]] = field(default_factory=list)

    def know(self, rows: Sequence[Row]) -> None:
        """The server's sessions."""
        names = Counter(row.name for row in rows)
        self.ids = {row.name: row.id for row in rows if names[row.name] == 1}
        self.ids |= {row.id: row.id for row in rows}
        self._only = rows[0].id if len(rows) == 1 else ""

    def whose(self, found: Found) -> str:
        """The server's id of a session; "" = not known."""
        last = re.split(r"(?:session|whatsapp|wpp|baileys)[-_.]", found.hint)[-1]
        named = [self.ids[n] for n in (found.it.session, found.hint, last) if n in self.ids]
        near = {session for at, session in self._turns if abs(at - found.at) < MOMENT}
        whose = next(iter(named), self._only or (near.pop() if len(near) == 1 else ""))
        if isinstance(found.it, Turn) and (named or found.it.session):
            turn = (found.at, named[0] if named else found.it.session)
            self._turns = [*self._turns, turn][-500:]
        return whose


def turns_first(found: list[Found]) -> list[Found]:
    """An error without a name may stand before the reconnect that tells whose it is."""
    return sorted(found, key=lambda it: isinstance(it.it, LogError))


def read_json(path: Path) -> dict[str, Any]:
    """{} if it is not there, or is damaged."""
    with suppress(OSError, ValueError, RecursionError):
        raw = json.loads(path.read_bytes())
        return raw if isinstance(raw, dict) else {}
    return {}
