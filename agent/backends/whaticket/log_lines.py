"""Reads the lines of a server's log: errors about keys, connections that end or begin.

No line leaves this module, only the name of the pattern that it matched: libsignal prints session
records with their private keys.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.core.findings.crypto_patterns import (
    CryptoFinding,
    CryptoLogReader,
    CryptoPattern,
    Effect,
    peer_in,
    read_log_line,
    read_record,
)
from agent.engines.raw import text
from agent.engines.reason_codes import WEB_WORDS, WHATSAPP_CODES, web_reason

LONGEST_LINE = 256 << 10
_MOST_OF_BLOCK = 120
_NEEDLES = re.compile(
    rb"decrypt|mac\b|mac error|session|pre-?key|into the future|senderkey|sender message key"
    rb"|invalid|socket|desconectou|error|already running",
    re.IGNORECASE,
)
"""One of these stands in each line that says anything to us; most lines have none."""
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_STAMP = re.compile(
    r"(?:\d+\|[^|]{1,60}\| )?(?:\d{4}-\d\d-\d\d[T ][\d:.,]{5,15}(?:Z|[+-]\d\d:?\d\d)?:? )?"
)
"""What pm2 puts before a line."""
_HEAD = re.compile(
    r"(?:\[[^\]]{5,40}\] )?(?P<level>TRACE|DEBUG|INFO|WARN|ERROR|FATAL)"
    r"(?: \[[^\]]{5,40}\])?(?: \([^)]{0,200}\))?: "
)
"""Of a record as pino-pretty writes it: its fields follow, indented."""
_OBJECT = re.compile(r"\S.{0,200}: \{")
"""Of an object as Node prints it."""
_FIELD = re.compile(r"\s+\"?([A-Za-z]{1,30})\"?: (.*)")
_ERRORS = ("error", "err", "reason", "cause")
_SESSIONS = ("sessionId", "whatsappId", "session", "id")
_PEERS = ("participant", "participantAlt", "remoteJid", "remoteJidAlt")
_PEER = re.compile(r"(\d{5,20}(?:_\d{1,3})?)(?::\d{1,5})?@(?:s\.whatsapp\.net|lid)")
_WORDS: Mapping[str, str] = {
    "far_future": "Over 2000 messages into the future",
    "bad_mac": "Bad MAC",
    "prekey": "Invalid PreKey ID",
    "no_matching_session": "No matching sessions found for message",
    "no_session": "No session record",
    "sender_key": "No SenderKeyRecord found",
    "session_error": "SessionError",
    "decrypt_failed": "failed to decrypt",
    "undecryptable": "UndecryptableMessage",
}


def words_of(name: str) -> str:
    """A line that the agent reads as the same finding, with nothing of the log in it."""
    return _WORDS.get(name, name)


@dataclass(frozen=True, slots=True)
class LogError:
    """One error about keys."""

    finding: CryptoFinding
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
    blocked: bool = False
    """True if neither: its start failed because its old browser still runs."""


@dataclass(slots=True)
class LineReader:
    """Reads one stream of lines."""

    log_session: re.Pattern[str] | None = None
    own: tuple[CryptoPattern, ...] = ()
    """The settings' patterns."""
    _reader: CryptoLogReader = field(init=False)
    _session: str = ""
    """Of the error that waits for the stack under it."""
    _block: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = CryptoLogReader(self.own)

    def feed(self, raw: bytes) -> list[LogError | Turn]:
        if self.rests and not self.own and not _NEEDLES.search(raw):
            return []
        line = _ANSI.sub("", raw[:LONGEST_LINE].decode("utf-8", "replace").rstrip("\r"))
        line = _STAMP.sub("", line, count=1)
        if self._block and line[:1] in (" ", "\t") and len(self._block) < _MOST_OF_BLOCK:
            self._block.append(line[:8192])
            return []
        found = self._end_block()
        if line.startswith("{") and isinstance(record := _parsed(line), dict):
            peer = next((p for n in _PEERS if (p := _peer(_key_of(record).get(n)))), "")
            return [*found, *self.flush(), *self._record(record, peer, self._named(line))]
        if _HEAD.match(line) or _OBJECT.fullmatch(line):
            found += self.flush()
            self._block = [line[:8192]]
            return found
        return found + self._text(line[:8192])

    @property
    def rests(self) -> bool:
        """True if no line that was read waits for another."""
        return not (self._block or self._reader.waiting is not None or self._reader.in_block)

    def flush(self) -> list[LogError | Turn]:
        """What waits for more lines, as it is."""
        found = self._end_block()
        self._reader, done = self._reader.flush()
        found += [LogError(it, self._session) for it in done]
        return [it for it in found if not _is_benign(it)]

    def _text(self, line: str) -> list[LogError | Turn]:
        session, found = self._named(line), list[LogError | Turn]()
        if turn := read_turn(line, session):
            found.append(turn)
        if session and self.log_session is not None:
            line = self.log_session.sub("", line, count=1)  # the error may begin behind it
        waited = self._reader.waiting is not None
        self._reader, done = self._reader.feed(line)
        for number, finding in enumerate(done):
            found.append(LogError(finding, self._session if waited and number == 0 else session))
        if any(finding.name == "known_header" for finding in done):
            self._session = session  # the lines below it may say no more whose it is
        elif self._reader.in_block:
            self._session = session or self._session
        elif done or not waited:
            self._session = session
        return [it for it in found if not _is_benign(it)]

    def _end_block(self) -> list[LogError | Turn]:
        """A printed record: its fields as far as they are about an error, a peer, a session. Others
        may have a contact's words."""
        lines, self._block = self._block, []
        if not lines:
            return []
        head = _HEAD.match(lines[0])
        record: dict[str, Any] = {"msg": lines[0][head.end() :] if head else lines[0]}
        record |= {"level": head["level"]} if head else {}
        error: dict[str, str] = {}
        peer, inside, depth = "", "", 0
        for line in lines[1:]:
            if line.lstrip().startswith("at "):
                peer = peer or peer_in(line.strip())
            if (found := _FIELD.match(line)) is None:
                continue
            name, value = found[1], found[2].strip().rstrip(",").strip("\"'`")
            here = len(line) - len(line.lstrip())
            if inside and here <= depth:
                inside = ""
            if not inside and name in (*_ERRORS, "key"):
                inside, depth = name, here
                if name in _ERRORS and value not in ("{", ""):
                    error.setdefault("message", value)
            elif inside in _ERRORS and name in ("type", "name", "message"):
                error.setdefault("type" if name == "name" else name, value)
            elif inside == "key" and name in _PEERS:
                peer = peer or _peer(value)
            elif not inside:
                record.setdefault(name, value)
        record |= {"err": error} if error else {}
        return self._record(record, peer, self._named(lines[0]))

    def _record(self, record: Mapping[str, Any], peer: str, session: str) -> list[LogError | Turn]:
        names = (record.get(name) for name in _SESSIONS)
        session = session or next((str(n)[:200] for n in names if isinstance(n, str | int)), "")
        found: list[LogError | Turn] = []
        if (turn := read_turn(text(record.get("msg"), 8192))) is not None:
            found.append(turn if turn.session else replace(turn, session=session))
        finding = read_record(record, self.own)
        if finding is None and "level" not in record:
            finding = read_log_line(text(record.get("msg"), 8192), self.own)
        if finding is not None and finding.effect is not Effect.BENIGN:
            found.append(LogError(replace(finding, peer=peer or finding.peer), session))
        return found

    def _named(self, line: str) -> str:
        named = self.log_session.search(line[:2000]) if self.log_session else None
        return (named[1] or "")[:200] if named else ""


def _is_benign(it: LogError | Turn) -> bool:
    return isinstance(it, LogError) and it.finding.effect is Effect.BENIGN


def _parsed(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _key_of(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a message of one's own, the chat is not the peer."""
    key = record.get("key")
    key = key if isinstance(key, Mapping) else {}
    if key.get("fromMe"):
        return {name: key[name] for name in key if name.startswith("participant")}
    return key


def _peer(jid: object) -> str:
    named = _PEER.fullmatch(jid) if isinstance(jid, str) else None
    return named[1] if named else ""


# connections that begin or end

_TURNS = (
    re.compile(
        r"Socket {1,2}(?P<name>.{1,200}?) Connection Update (?P<state>open|close)\b(?P<why>.*)"
    ),
    re.compile(r"Session: (?P<name>.{1,200}?) (?P<state>READY)\b(?P<why>)"),
    re.compile(r"(?P<state>Disconnected) session: (?P<name>.{1,200}?), reason: (?P<why>.*)"),
    re.compile(r"(?P<state>DESCONECTOU) REASON: (?P<why>.{1,500})(?P<name>)"),
)
_CODE_OF_NAME: Mapping[str, int] = {
    "loggedOut": 401,
    "forbidden": 403,
    "connectionLost": 408,
    "timedOut": 408,
    "multideviceMismatch": 411,
    "connectionClosed": 428,
    "connectionReplaced": 440,
    "badSession": 500,
    "unavailableService": 503,
    "restartRequired": 515,
}
"""Baileys' DisconnectReason."""
_TEXTS: Mapping[str, str] = {
    # Only those that mean one thing: `Stream Errored (conflict)` is a logout as well as a
    # second copy, `Connection Failure` anything.
    "Intentional Logout": "logout",
    "QR refs attempts ended": "qr_idle",
    "Connection was lost": "connection_lost",
    "Connection Terminated": "connection_closed",
    "Connection Closed": "connection_closed",
    "restart required": "restart_required",
    "Multi-device beta not joined": "multidevice_mismatch",
}
_NAME = re.compile(r'"session(?:Id|Name)?"\s*:\s*"?([^",}]{1,200})')
_CODE = re.compile(r'"statusCode"\s*:\s*(\d{3})\b')
_BROWSER = re.compile(
    r"browser is already running for [^\s]{0,400}?session-(?:[A-Za-z]{1,20}[_-])?(?P<id>\d{1,20})\b"
)
"""Puppeteer names the profile's folder; whatsapp-web.js names that after the session's number."""


def read_turn(line: str, session: str = "") -> Turn | None:
    """`session`: what the line's surroundings call it; better than the name in the line."""
    if hit := _BROWSER.search(line):
        return Turn(session or hit["id"], False, blocked=True)
    for pattern in _TURNS:
        hit = pattern.search(line)
        # Quoted text may be a contact's words.
        if hit and line.count('"', 0, hit.start()) % 2 == 0:
            opened = hit["state"] in ("open", "READY")
            named = _NAME.search(hit["why"])
            name = session or hit["name"].strip() or (named[1] if named else "")
            return Turn(name, opened, "" if opened else _reason(hit["why"].strip()))
    return None


def _reason(why: str) -> str:
    if number := _CODE.search(why):
        return WHATSAPP_CODES.get(int(number[1]), "")
    first = why.split(maxsplit=1)[0] if why else ""
    if (code := _CODE_OF_NAME.get(first)) is not None:
        return WHATSAPP_CODES[code]
    if first.upper() in WEB_WORDS:
        return web_reason(first.upper())
    return next((code for text, code in _TEXTS.items() if text in why), "")
