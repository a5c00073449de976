"""A server's logs: files by path and glob, read on from where an earlier run stood; what stands in
their lines.

No line leaves this module, only the name of the pattern that it matched: libsignal prints session
records with their private keys. A file is known by its inode. A file that rotated away before it
was read is named, not searched. A line's age is its own time; where that has no zone, it is
measured from the file's last such line, so that no time zone matters.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from agent.backends.whaticket.contract import BackendSettings
from agent.core import crypto_patterns as crypto
from agent.core.crypto_patterns import CryptoPattern
from agent.engines import base, whatsapp
from agent.files import open_plain

LONGEST_LINE = 256 << 10
_LONGEST_TEXT, _MOST_OF_BLOCK = 8192, 120
_DRESS = re.compile(
    r"\x1b\[[0-9;]*[A-Za-z]|^(?:\d+\|[^|]{1,60}\| )?"
    r"(?:(?=\d)[\d/.,T -]{0,24}\d\d:\d\d[\d:.,+Z -]{0,20}: "
    r"|[A-Z][a-z]{2} [ \d]\d [\d:]{8} \S{1,64} \S{1,64}\[\d+\]: "
    r"|\d{4}-\d\d-\d\d[T ][\d:.,]{5,18}(?:Z|[+-]\d\d:?\d\d)?:? )?"
)
"""Colours, and what stands before a line: pm2's time in any form, such as `YYYY-MM-DD HH:mm Z`;
journalctl's time, host and program; docker's time."""
_HEAD = re.compile(
    r"(?:\[[^\]]{5,40}\] )?(?P<level>TRACE|DEBUG|INFO|WARN|ERROR|FATAL)"
    r"(?: \[[^\]]{5,40}\])?(?: \([^)]{0,200}\))?: |\S.{0,200}: \{$"
)
"""First line of a record as pino-pretty writes it, or of an object as Node prints it: the fields
follow, indented."""
_FIELD = re.compile(r"\s+\"?([A-Za-z]{1,30})\"?: (.*)")
_PM2S = {"message", "timestamp", "type", "process_id", "app_name"}
"""Fields of a record in which pm2 writes what a program said, with `log_type: "json"`."""
_ERRORS = ("error", "err", "reason", "cause")
_PEERS = ("participant", "participantAlt", "remoteJid", "remoteJidAlt")
_PEER = re.compile(r"(\d{5,20}(?:_\d{1,3})?)(?::\d{1,5})?@(?:s\.whatsapp\.net|lid)")


@dataclass(frozen=True, slots=True)
class Turn:
    """A connection that began or ended."""

    open: bool
    reason: str = ""
    """Why the connection ended; "" = the log leaves that open."""


@dataclass(frozen=True, slots=True)
class Found:
    """An error about keys, or a turn."""

    it: crypto.CryptoFinding | Turn
    session: str = ""
    """The log's name of the session; "" = not named."""
    at: float = field(default=0.0, compare=False)
    """Unix time of the finding's first line."""
    hint: str = ""
    """The file's name, without what follows its last dot."""


@dataclass(slots=True)
class LineReader:
    log_session: re.Pattern[str] | None = None
    own: tuple[crypto.CryptoPattern, ...] = ()
    """Patterns of the settings."""
    hint: str = ""
    _reader: crypto.CryptoLogReader = field(init=False)
    _whose: tuple[str, float] = ("", 0.0)
    """The session and the time of what waits for the lines under it."""
    _block: list[str] = field(default_factory=list)
    _twice: int = 0
    """Number of messages that came twice: the server's lines about them are benign as well."""

    def __post_init__(self) -> None:
        self._reader = crypto.CryptoLogReader(self.own)

    def feed(self, raw: bytes, at: float) -> list[Found]:
        """Take in a line. `at`: Unix time of the line."""
        line = _DRESS.sub("", raw[:LONGEST_LINE].decode("utf-8", "replace").rstrip("\r"))
        if self._block and line[:1] in (" ", "\t") and len(self._block) < _MOST_OF_BLOCK:
            self._block.append(line[:_LONGEST_TEXT])
            return []
        named = self.log_session.search(line[:2000]) if self.log_session else None
        found, here = self._end_block(), ((named[1] or "")[:200] if named else "", at)
        with suppress(ValueError, RecursionError):
            if line.startswith("{") and isinstance(record := json.loads(line), dict):
                if record.keys() == _PM2S:
                    at = base.moment(record["timestamp"]) or at
                    said = base.text(record["message"], len(raw))
                    for each in said.removesuffix("\n").split("\n"):
                        found += self.feed(each.encode("utf-8", "replace"), at)
                    return found
                peer = next((p for n in _PEERS if (p := _peer(_key_of(record).get(n)))), "")
                return [*found, *self.flush(), *self._record(record, peer, *here)]
        if _HEAD.match(line):
            found += self.flush()
            self._block, self._whose = [line[:_LONGEST_TEXT]], here
            return found
        return found + self._text(line[:_LONGEST_TEXT], here)

    @property
    def rests(self) -> bool:
        """True if no line that was read waits for another."""
        return not (self._block or self._reader.waiting is not None or self._reader.in_block)

    def flush(self) -> list[Found]:
        """End what waits for more lines, as it is."""
        found = self._end_block()
        done = self._reader.flush()
        return found + [Found(it, *self._whose, self.hint) for it in done if self._counts(it)]

    def _text(self, line: str, here: tuple[str, float]) -> list[Found]:
        found = self._turn(line, *here)
        if here[0] and self.log_session is not None:
            line = self.log_session.sub("", line, count=1)  # the error may begin behind it
        before = self._whose if self._reader.waiting is not None else None
        done = self._reader.feed(line)
        if self._reader.in_block and not any(finding.name == "known_header" for finding in done):
            self._whose = here[0] or self._whose[0], self._whose[1]
        elif done or before is None:
            self._whose = here  # the lines below it may say no more whose it is
        for finding in done:
            if self._counts(finding):
                found.append(Found(finding, *(before or here), self.hint))
            before = None
        return found

    def _turn(self, line: str, session: str, at: float) -> list[Found]:
        """The turn that a line tells of. `session`: counts before a name in the line."""
        for pattern in _TURNS:
            hit = pattern.search(line)
            # Quoted text may be a contact's words.
            if hit and line.count('"', 0, hit.start()) % 2 == 0:
                opened, named = hit["state"] in ("open", "READY"), _NAME.search(hit["why"])
                name = session or hit["name"].strip() or (named[1] if named else "")
                why = "server_stuck" if hit["state"] == "browser" else _reason(hit["why"].strip())
                return [Found(Turn(opened, "" if opened else why), name, at, self.hint)]
        return []

    def _end_block(self) -> list[Found]:
        """A printed record: its fields as far as they are about an error, a peer, a session. Others
        may have a contact's words."""
        lines, self._block = self._block, []
        if not lines or (head := _HEAD.match(lines[0])) is None:
            return []
        record: dict[str, Any] = {"msg": lines[0]}
        if head["level"]:
            record = {"level": head["level"], "msg": lines[0][head.end() :]}
        error: dict[str, str] = {}
        peer, inside, depth = "", "", 0
        for line in lines[1:]:
            here = len(line) - len(line.lstrip())
            inside = inside if here > depth else ""
            if line.lstrip().startswith("at "):
                peer = peer or crypto.peer_in(line.strip())
            if (found := _FIELD.match(line)) is None:
                continue
            name, value = found[1], found[2].strip().rstrip(",").strip("\"'`")
            if inside in _ERRORS and name in ("type", "name", "message"):
                error.setdefault("message" if name == "message" else "type", value)
            elif inside == "key" and name in _PEERS:
                peer = peer or _peer(value)
            elif not inside and name in (*_ERRORS, "key"):
                inside, depth = name, here
                if name in _ERRORS and value not in ("{", ""):
                    error.setdefault("message", value)
            elif not inside:
                record.setdefault(name, value)
        if error:
            record["err"] = error
        return self._record(record, peer, *self._whose)

    def _record(self, record: Mapping[str, Any], peer: str, session: str, at: float) -> list[Found]:
        found = self._turn(base.text(record.get("msg"), _LONGEST_TEXT), "", at)
        names = (record.get(name) for name in ("sessionId", "whatsappId", "session", "id"))
        session = session or next((str(n)[:200] for n in names if isinstance(n, str | int)), "")
        found = [replace(it, session=it.session or session) for it in found]
        finding = crypto.read_record(record, self.own)
        if finding is not None and self._counts(finding):
            found.append(Found(replace(finding, peer=peer or finding.peer), session, at, self.hint))
        return found

    def _counts(self, finding: crypto.CryptoFinding) -> bool:
        if finding.effect is crypto.Effect.SUMMARY and self._twice:
            self._twice -= 1
            return False
        if finding.name == "duplicate":
            self._twice = min(self._twice + 1, 5)
        return finding.effect is not crypto.Effect.BENIGN


def _key_of(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the message's key; in a message of one's own, the chat is not the peer."""
    key = record.get("key")
    if not isinstance(key, Mapping) or not key.get("fromMe"):
        return key if isinstance(key, Mapping) else {}
    return {name: key[name] for name in key if name.startswith("participant")}


def _peer(jid: object) -> str:
    named = _PEER.fullmatch(jid) if isinstance(jid, str) else None
    return named[1] if named else ""


_TURNS = [
    re.compile(line)
    for line in (
        r"Socket {1,2}(?P<name>.{1,200}?) Connection Update (?P<state>open|close)\b(?P<why>.*)",
        r"Session: (?P<name>.{1,200}?) (?P<state>READY)\b(?P<why>)",
        r"(?P<state>Disconnected) session: (?P<name>.{1,200}?), reason: (?P<why>.*)",
        r"(?P<state>DESCONECTOU) REASON: (?P<why>.{1,500})(?P<name>)",
        # Puppeteer names the profile's folder; whatsapp-web.js names that after the session.
        r"(?P<state>browser) is already running for (?P<why>)[^\s]{0,400}?session-"
        r"(?:[A-Za-z]{1,20}[_-])?(?P<name>\d{1,20})\b",
    )
]
_REASONS = (
    # Only words that mean one thing: `Stream Errored (conflict)` is a logout as well as a second
    # copy, `Connection Failure` anything.
    *(("Intentional Logout", "logout"), ("loggedOut", "logout"), ("forbidden", "banned")),
    *(("QR refs attempts ended", "qr_idle"), ("Connection was lost", "connection_lost")),
    *(("Connection Terminated", "connection_lost"), ("Connection Closed", "connection_lost")),
    *(("restart required", "restart_required"), ("connectionReplaced", "conflict")),
    *(("Multi-device beta not joined", "multidevice_mismatch"), ("badSession", "bad_session")),
)
_NAME = re.compile(r'"session(?:Id|Name)?"\s*:\s*"?([^",}]{1,200})')
_CODE = re.compile(r'"statusCode"\s*:\s*(\d{3})\b')


def _reason(why: str) -> str:
    if number := _CODE.search(why):
        return whatsapp.WHATSAPP_CODES.get(int(number[1]), "")
    first = why.split(maxsplit=1)[0].upper() if why else ""
    if first in whatsapp.WEB_WORDS:
        return whatsapp.web_reason(first)
    return next((code for words, code in _REASONS if words in why), "")


CHUNK = LONGEST_LINE + (256 << 10)
MOST_FILES = 200
QUIET = 0.7
"""Seconds after which an error waits for no further lines of its stack."""
GRACE = 15.0
"""Seconds for which a program may go on writing into a file that was renamed."""
_COPIES = re.compile(r"__\d{4}-\d\d-\d\d|\.gz$")
"""Pattern of the names of pm2's copies of what was read already."""
_EPOCH = re.compile(rb'"time":\s*(1\d{12})\b')
_TIME = re.compile(
    rb"(?:(20\d\d)[-/](\d\d)[-/](\d\d)|(\d\d)[-/](\d\d)[-/](20\d\d))?[T ,]{0,2}"
    rb"(?<!\d)(\d\d):(\d\d):(\d\d)(?!\d)(?:[.,]\d{1,9})?(Z?)"
)
_QUARTER, _FIRST_DAY = 900.0, date(1970, 1, 1).toordinal()


def stamp_of(raw: bytes) -> tuple[float, bool] | None:
    """The time in a line. True: it is Unix time; else of a zone that is not known, and without a
    date of the first day."""
    if raw[:1] == b"{" and (epoch := _EPOCH.search(raw[:4096])):
        return int(epoch[1]) / 1000.0, True
    if (hit := _TIME.search(raw[:96])) is None:
        return None
    day = (hit[1], hit[2], hit[3]) if hit[1] else (hit[6] or 1970, hit[5] or 1, hit[4] or 1)
    with suppress(ValueError):
        clock = 3600.0 * int(hit[7]) + 60 * int(hit[8]) + int(hit[9])
        days = date(*map(int, day)).toordinal() - _FIRST_DAY
        return days * 86400.0 + clock, bool(days and hit[10])
    return None


@dataclass(slots=True)
class Tail:
    fd: int
    path: str
    reader: LineReader
    offset: int
    """Bytes up to the end of the last whole line that was read."""
    heard_at: float
    safe: int = 0
    """Offset at which a later run must begin: no line before it waits for another."""
    at: float = 0.0
    """Unix time of the last line."""
    seen: Mapping[str, Any] = field(default_factory=dict)
    """The mark of the last reading; {} = none was. A file that is cut keeps it."""
    live: bool = False
    """True if nothing was left unread a moment ago: lines read now were written now."""
    skips: bool = False
    """True within a line that is longer than any that is read."""

    def read(self, most: int, now: float, *, ends: bool) -> tuple[int, list[Found]]:
        """Read on; return the number of bytes, and what is complete. `ends`: nothing more comes."""
        status = os.fstat(self.fd)
        if status.st_size < self.offset:
            # The file was cut or written over.
            self.offset, self.safe, self.skips = 0, 0, False
        chunk, found = os.pread(self.fd, min(most, CHUNK), self.offset), list[Found]()
        changed = now if self.live else min(status.st_mtime, now)
        skew = None if self.live or not chunk else self._skew(status)
        end = chunk.rfind(b"\n") + 1
        if not end and len(chunk) >= LONGEST_LINE:
            self.skips, self.offset, end = True, self.offset + len(chunk), len(chunk)
        else:  # half a line waits for its other half
            for line in chunk[: max(end - 1, 0)].split(b"\n") if end else ():
                self.at = _moment(line, skew, changed, self.at)
                if not self.skips:
                    found += self.reader.feed(line, self.at)
                self.offset, self.skips = self.offset + len(line) + 1, False
                self.safe = self.offset if self.reader.rests else self.safe
        if end:
            self.heard_at, self.seen = now, self.mark(self.offset)
        if not end and (ends or now - self.heard_at > QUIET):
            found += self.reader.flush()
            self.safe = self.offset
        self.live = os.fstat(self.fd).st_size == self.offset
        return end, found

    def _skew(self, status: os.stat_result) -> float | None:
        """Seconds from the last stamp of a zone that is not known to Unix time; None: the file's
        last lines have no stamp at all."""
        end = os.pread(self.fd, LONGEST_LINE, max(status.st_size - LONGEST_LINE, 0))
        near, skew = status.st_mtime, None
        for line in reversed(end.split(b"\n")):
            if (stamp := stamp_of(line)) is not None:
                if not stamp[1]:
                    return round((near - stamp[0]) / _QUARTER) * _QUARTER
                near, skew = stamp[0], 0.0
        return skew

    def print_of(self, offset: int) -> str:
        """Return a mark of what stands before that place; "" = the file ends before it."""
        before = os.pread(self.fd, min(256, offset), max(offset - 256, 0))
        return hashlib.sha256(before).hexdigest() if len(before) == min(256, offset) else ""

    def mark(self, offset: int) -> dict[str, Any]:
        return {"path": self.path, "offset": offset, "print": self.print_of(offset)}

    def goes_on(self, mark: Mapping[str, Any]) -> bool:
        """True if the file begins with all that was read until that mark, by any inode."""
        print = self.print_of(mark["offset"]) if mark and mark["offset"] else ""
        return print != "" and print == mark["print"]


def _moment(line: bytes, skew: float | None, changed: float, before: float) -> float:
    """Return the Unix time of a line. `changed`: of the file; `before`: of the line above."""
    if skew is None:
        return changed
    if (stamp := stamp_of(line)) is None:
        return before or changed
    at = stamp[0] if stamp[1] else stamp[0] + skew
    return min(at if at < changed + _QUARTER else at - 86400.0, changed)  # before midnight


@dataclass(slots=True)
class LogFiles:
    """The log files of a backend. Its calls block: they run in a thread."""

    patterns: Sequence[str]
    marks: dict[str, Any] = field(default_factory=dict)
    """Inode → its position in an earlier run, also of files that are no longer there."""
    history: int = 0
    """Bytes that are read of a file if no earlier run met it."""
    log_session: re.Pattern[str] | None = None
    own: tuple[CryptoPattern, ...] = ()
    trouble: str = ""
    lost: list[str] = field(default_factory=list)
    """The files that were rotated away before they were read, in words."""
    _tails: dict[str, Tail] = field(default_factory=dict)
    _began: bool = False

    def reader(self, hint: str = "") -> LineReader:
        return LineReader(self.log_session, self.own, hint)

    def read(self, most: int, *, ends: bool = False) -> list[Found]:
        """Read at most `most` bytes. `ends`: nothing more comes in this run."""
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
                self.marks[key] = tail.seen  # it may be put back
                os.close(self._tails.pop(key).fd)
        tails = self._tails.values()
        if any(os.fstat(it.fd).st_size - it.offset > LONGEST_LINE for it in tails):
            self.trouble = "its logs grow faster than they are read, so errors count late"
        return found

    def positions(self) -> dict[str, Any]:
        return {key: it.mark(it.safe) for key, it in self._tails.items()}

    def close(self) -> None:
        for tail in self._tails.values():
            os.close(tail.fd)
        self._tails.clear()

    def _meet(self, now: float) -> set[str]:
        here, paths = set(), list[Path]()
        for pattern in self.patterns:
            found = sorted(Path("/").glob(pattern.lstrip("/")))
            paths += [path for path in found if not _COPIES.search(path.name)]
            self.trouble = self.trouble if found else f"cannot read {pattern}: no such file"
        if len(paths) > MOST_FILES:
            self.trouble = f"cannot follow all of its logs: more than {MOST_FILES} files"
        for path in paths[:MOST_FILES]:
            try:
                if not path.is_file():  # PermissionError where its folder is closed
                    continue
                status = path.stat()
                key = f"{status.st_dev}:{status.st_ino}"
                here.add(key)
                if key not in self._tails:
                    self._tails[key] = self._open(path, key, now)
                self._tails[key].path = str(path)
            except OSError as error:
                self.trouble = f"cannot read {path}: {error.strerror}"
        if not self._began:
            for key, mark in self.marks.items():
                if key not in here and not any(it.goes_on(mark) for it in self._tails.values()):
                    self.lost.append(f"the end of {mark['path']} was rotated away and is not read")
            self._began = True
        return here

    def _open(self, path: Path, key: str, now: float) -> Tail:
        with open_plain(path.resolve()) as file:
            fd = os.dup(file.fileno())
        known = self._began or any(it.get("path") == str(path) for it in self.marks.values())
        known = known or key in self.marks
        start = 0 if known else max(os.fstat(fd).st_size - self.history, 0)
        tail = Tail(fd, str(path), self.reader(path.stem), start, now, start)
        read = [*self.marks.values(), *(it.seen for it in self._tails.values())]
        # A file that was copied, or put back, is not read a second time.
        if offsets := [int(mark["offset"]) for mark in read if tail.goes_on(mark)]:
            tail.offset = tail.safe = max(offsets)
        elif start:
            tail.skips = os.pread(fd, 1, start - 1) != b"\n"
        return tail


def open_logs(
    own: BackendSettings, patterns: Sequence[CryptoPattern], marks: dict[str, Any], history: int
) -> LogFiles:
    expression = re.compile(own.log_session) if own.log_session else None
    files = [it.removeprefix("file:") for it in own.logs if it.startswith("file:")]
    return LogFiles(files, marks, history, expression, tuple(patterns))
