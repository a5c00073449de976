"""Reads the lines of a server's log: errors about keys, connections that end or begin.

No line leaves this module, only the name of the pattern that it matched: libsignal prints session
records with their private keys.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from agent.core.findings import crypto_patterns as crypto
from agent.engines.raw import text
from agent.engines.reason_codes import WEB_WORDS, WHATSAPP_CODES, web_reason

LONGEST_LINE = 256 << 10
_LONGEST_TEXT, _MOST_OF_BLOCK = 8192, 120
_NEEDLES = re.compile(
    rb"decrypt|mac\b|mac error|session|pre-?key|into the future|senderkey|sender message key"
    rb"|invalid|socket|desconectou|error|already running",
    re.IGNORECASE,
)
"""One of these stands in each line that says anything to us; most lines have none."""
_DRESS = re.compile(
    r"\x1b\[[0-9;]*[A-Za-z]|^(?:\d+\|[^|]{1,60}\| )?"
    r"(?:\d{4}-\d\d-\d\d[T ][\d:.,]{5,15}(?:Z|[+-]\d\d:?\d\d)?:? )?"
)
"""Colours, and what pm2 puts before a line."""
_HEAD = re.compile(
    r"(?:\[[^\]]{5,40}\] )?(?P<level>TRACE|DEBUG|INFO|WARN|ERROR|FATAL)"
    r"(?: \[[^\]]{5,40}\])?(?: \([^)]{0,200}\))?: |\S.{0,200}: \{$"
)
"""Of a record as pino-pretty writes it, or of an object as Node prints it: its fields follow,
indented."""
_FIELD = re.compile(r"\s+\"?([A-Za-z]{1,30})\"?: (.*)")
_ERRORS = ("error", "err", "reason", "cause")
_SESSIONS = ("sessionId", "whatsappId", "session", "id")
_PEERS = ("participant", "participantAlt", "remoteJid", "remoteJidAlt")
_PEER = re.compile(r"(\d{5,20}(?:_\d{1,3})?)(?::\d{1,5})?@(?:s\.whatsapp\.net|lid)")
_WORDS = (
    *(("far_future", "Over 2000 messages into the future"), ("bad_mac", "Bad MAC")),
    *(("prekey", "Invalid PreKey ID"), ("no_session", "No session record")),
    *(("no_matching_session", "No matching sessions found for message"),),
    *(("sender_key", "No SenderKeyRecord found"), ("session_error", "SessionError")),
    *(("decrypt_failed", "failed to decrypt"), ("undecryptable", "UndecryptableMessage")),
)


def words_of(name: str) -> str:
    """A line that the agent reads as the same finding, with nothing of the log in it."""
    return dict(_WORDS).get(name, name)


@dataclass(frozen=True, slots=True)
class LogError:
    """One error about keys."""

    finding: crypto.CryptoFinding
    session: str = ""
    """As the log calls it; "" = not named."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A connection that began or ended."""

    session: str
    """As the log calls it; "" = not named."""
    open: bool
    reason: str = ""
    """Why it ended; "" = the log leaves that open."""


@dataclass(slots=True)
class LineReader:
    """Reads one stream of lines."""

    log_session: re.Pattern[str] | None = None
    own: tuple[crypto.CryptoPattern, ...] = ()
    """The settings' patterns."""
    _reader: crypto.CryptoLogReader = field(init=False)
    _session: str = ""
    """Of the error that waits for the stack under it."""
    _block: list[str] = field(default_factory=list)
    _twice: int = 0
    """Messages that came twice: the server's own lines about them are benign as well."""

    def __post_init__(self) -> None:
        self._reader = crypto.CryptoLogReader(self.own)

    def feed(self, raw: bytes) -> list[LogError | Turn]:
        if self.rests and not self.own and not _NEEDLES.search(raw):
            return []
        line = _DRESS.sub("", raw[:LONGEST_LINE].decode("utf-8", "replace").rstrip("\r"))
        if self._block and line[:1] in (" ", "\t") and len(self._block) < _MOST_OF_BLOCK:
            self._block.append(line[:_LONGEST_TEXT])
            return []
        found = self._end_block()
        with suppress(ValueError, RecursionError):
            if line.startswith("{") and isinstance(record := json.loads(line), dict):
                peer = next((p for n in _PEERS if (p := _peer(_key_of(record).get(n)))), "")
                return [*found, *self.flush(), *self._record(record, peer, self._named(line))]
        if _HEAD.match(line):
            found += self.flush()
            self._block = [line[:_LONGEST_TEXT]]
            return found
        return found + self._text(line[:_LONGEST_TEXT])

    @property
    def rests(self) -> bool:
        """True if no line that was read waits for another."""
        return not (self._block or self._reader.waiting is not None or self._reader.in_block)

    def flush(self) -> list[LogError | Turn]:
        """What waits for more lines, as it is."""
        found = self._end_block()
        self._reader, done = self._reader.flush()
        return found + [LogError(it, self._session) for it in done if self._counts(it)]

    def _text(self, line: str) -> list[LogError | Turn]:
        session = self._named(line)
        turn = read_turn(line, session)
        if session and self.log_session is not None:
            line = self.log_session.sub("", line, count=1)  # the error may begin behind it
        before = self._session if self._reader.waiting is not None else None
        self._reader, done = self._reader.feed(line)
        if any(finding.name == "known_header" for finding in done):
            self._session = session  # the lines below it may say no more whose it is
        elif self._reader.in_block:
            self._session = session or self._session
        elif done or before is None:
            self._session = session
        whose = [session if number or before is None else before for number in range(len(done))]
        errors = [LogError(*it) for it in zip(done, whose, strict=True) if self._counts(it[0])]
        return [*([turn] if turn else []), *errors]

    def _end_block(self) -> list[LogError | Turn]:
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
        record |= {"err": error} if error else {}
        return self._record(record, peer, self._named(lines[0]))

    def _record(self, record: Mapping[str, Any], peer: str, session: str) -> list[LogError | Turn]:
        names = (record.get(name) for name in _SESSIONS)
        session = session or next((str(n)[:200] for n in names if isinstance(n, str | int)), "")
        found: list[LogError | Turn] = []
        if (turn := read_turn(text(record.get("msg"), _LONGEST_TEXT))) is not None:
            found.append(turn if turn.session else replace(turn, session=session))
        finding = crypto.read_record(record, self.own)
        if finding is not None and self._counts(finding):
            found.append(LogError(replace(finding, peer=peer or finding.peer), session))
        return found

    def _counts(self, finding: crypto.CryptoFinding) -> bool:
        if finding.effect is crypto.Effect.SUMMARY and self._twice:
            self._twice -= 1
            return False
        self._twice = min(self._twice + (finding.name == "duplicate"), 5)
        return finding.effect is not crypto.Effect.BENIGN

    def _named(self, line: str) -> str:
        named = self.log_session.search(line[:2000]) if self.log_session else None
        return (named[1] or "")[:200] if named else ""


def _key_of(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a message of one's own, the chat is not the peer."""
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
    *(("Intentional Logout", "logout"), ("loggedOut", "logout"), ("forbidden", "account_locked")),
    *(("QR refs attempts ended", "qr_idle"), ("Connection was lost", "connection_lost")),
    *(("Connection Terminated", "connection_closed"), ("Connection Closed", "connection_closed")),
    *(("restart required", "restart_required"), ("connectionReplaced", "conflict")),
    *(("Multi-device beta not joined", "multidevice_mismatch"), ("badSession", "bad_session")),
)
_NAME = re.compile(r'"session(?:Id|Name)?"\s*:\s*"?([^",}]{1,200})')
_CODE = re.compile(r'"statusCode"\s*:\s*(\d{3})\b')


def read_turn(line: str, session: str = "") -> Turn | None:
    """`session`: what the line's surroundings call it; better than the name in the line."""
    for pattern in _TURNS:
        hit = pattern.search(line)
        # Quoted text may be a contact's words.
        if hit and line.count('"', 0, hit.start()) % 2 == 0:
            opened, named = hit["state"] in ("open", "READY"), _NAME.search(hit["why"])
            name = session or hit["name"].strip() or (named[1] if named else "")
            stuck = hit["state"] == "browser"
            why = "server_browser_stuck" if stuck else _reason(hit["why"].strip())
            return Turn(name, opened, "" if opened else why)
    return None


def _reason(why: str) -> str:
    if number := _CODE.search(why):
        return WHATSAPP_CODES.get(int(number[1]), "")
    first = why.split(maxsplit=1)[0].upper() if why else ""
    if first in WEB_WORDS:
        return web_reason(first)
    return next((code for words, code in _REASONS if words in why), "")
