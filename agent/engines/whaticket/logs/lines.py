"""Reads the lines of a server's log: errors about keys, connections that end or begin. No line
leaves this module, only the words that a pattern matched: libsignal prints session records with
their private keys.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.core.findings.crypto_patterns import (
    PATTERNS,
    CryptoFinding,
    CryptoLogReader,
    CryptoPattern,
    Effect,
    read_record,
)
from agent.engines.whaticket.keys.peers import address_of_jid, same_peer
from agent.engines.whaticket.logs.records import (
    LONGEST_LINE,
    LONGEST_RECORD,
    OBJECT,
    PRETTY,
    finding_among,
    jids_of,
    message_of,
    read_pretty,
    record_in,
    session_of,
)
from agent.engines.whaticket.turns import Turn, read_turn

_MOST_OF_RECORD = 120
_SUMS_UP_WITHIN = 5.0
_MOST_BLOCKS = 50
_STRETCH = 10.0
_HEADER = "known_header"
SUMMARY_WAIT = 1.5
"""Seconds that an error of libsignal waits for the server's own line about the message."""

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_STAMP = re.compile(
    r"(?:\d+\|[^|]{1,60}\| )?(?:\d{4}-\d\d-\d\d[T ][\d:.,]{5,15}(?:Z|[+-]\d\d:?\d\d)?:? )?"
)
"""What pm2 puts before a line."""
_ADDRESS = re.compile(
    r"\bat (?:async )?(?:Object\.)?(\d{5,20}(?:_\d{1,3})?\.\d{1,5})(?: \[as awaitable\]|\b)"
)
_NEEDLES = (
    *(b"decrypt", b"mac", b"session", b"prekey", b"pre-key", b"into the future", b"senderkey"),
    *(
        b"sender message key",
        b"invalidmessage",
        b"invalid signature",
        b"socket",
        b"desconectou",
        b"error",
        b"already running",
    ),
)


@dataclass(frozen=True, slots=True)
class LogError:
    """One error about keys."""

    name: str
    text: str
    """The words that the pattern matched: safe to show, and the agent reads them the same way."""
    peer: str = ""
    """The Signal address without its device."""
    address: str = ""
    """With its device, where the log told it."""
    session: str = ""
    """What the log calls the session; "" = it did not say."""
    at: float = 0.0
    """When it was written, to ten seconds; 0.0 where the reader was not asked to tell."""


@dataclass(slots=True)
class _Block:
    """What libsignal printed about one message; the server's own line about it may follow."""

    finding: CryptoFinding
    address: str
    session: str
    at: float


@dataclass(slots=True)
class LineReader:
    """Reads one stream of lines. The caller that feeds it empties `errors` and `turns`."""

    log_session: re.Pattern[str] | None = None
    own: tuple[CryptoPattern, ...] = ()
    """The settings' patterns."""
    dated: bool = False
    """`now` is the time that a line was written at: tell it."""
    errors: list[LogError] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    _reader: CryptoLogReader = field(default_factory=CryptoLogReader)
    _address: str = ""
    _session: str = ""
    _blocks: list[_Block] = field(default_factory=list)
    _pretty: list[str] = field(default_factory=list)
    _needles: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        self._reader = CryptoLogReader(self.own)
        self._needles = tuple(needle_of(pattern) for pattern in self.own)

    def feed(self, raw: bytes, now: float) -> None:
        if not self._awaits() and not is_of_interest(raw, self._needles):
            return
        line = raw[:LONGEST_RECORD].decode("utf-8", "replace").rstrip("\r")
        if "\x1b" in line:
            line = _ANSI.sub("", line)
        line = _STAMP.sub("", line, count=1)
        if self._pretty:
            if line[:1] in (" ", "\t") and len(self._pretty) < _MOST_OF_RECORD:
                self._pretty.append(line[:LONGEST_LINE])
                return
            self._end_pretty(now)
        if line.startswith("{") and (record := record_in(line)) is not None:
            self._end_block(now)
            self._take_record(record, read_record(record, self.own), self._session_in(line), now)
        elif PRETTY.match(line) or OBJECT.fullmatch(line):
            self._end_block(now)
            self._pretty = [line[:LONGEST_LINE]]
        else:
            self._feed_text(line[:LONGEST_LINE], now)

    def settle(self, now: float, *, quiet: bool, wait: float = SUMMARY_WAIT) -> None:
        """Tell what no summary will join any more. `quiet`: nothing came for a while."""
        if quiet:
            self._end_pretty(now)
            self._end_block(now)
        blocks, self._blocks = self._blocks, []
        for block in blocks:
            if now - block.at < wait:
                self._blocks.append(block)
            else:
                self._add(block.finding, block.address, block.session, block.at)

    def _awaits(self) -> bool:
        return bool(self._pretty) or self._reader.waiting is not None

    # plain lines: libsignal's own, and the server's

    def _feed_text(self, line: str, now: float) -> None:
        session = self._session_in(line)
        if turn := read_turn(line, session):
            self._note_turn(turn, now)
        waited = self._reader.waiting is not None
        if waited and not self._address and (at := _ADDRESS.search(line)):
            self._address = at[1]
        if session and self.log_session is not None:
            line = self.log_session.sub("", line, count=1)  # the error may begin behind it
        self._reader, done = self._reader.feed(line)
        if waited and done:
            self._add_block(done[0], now)
            done = done[1:]
        if any(finding.name == _HEADER for finding in done):
            self._session = session  # the lines below it say no more whose it is
        for finding in done:
            if finding.effect is Effect.SUMMARY:
                self._add_summary(finding, [finding.peer], session, now)
            elif finding.effect is not Effect.BENIGN:
                self._add(finding, "", session, now)
        if self._reader.waiting is not None:
            self._session = self._session or session

    def _note_turn(self, turn: Turn, now: float) -> None:
        self.turns.append(replace(turn, at=now) if self.dated else turn)

    def _end_block(self, now: float) -> None:
        self._reader, done = self._reader.flush()
        if done:
            self._add_block(done[0], now)

    def _add_block(self, finding: CryptoFinding, now: float) -> None:
        self._blocks.append(_Block(finding, self._address, self._session, now))
        self._address = self._session = ""
        if len(self._blocks) > _MOST_BLOCKS:
            oldest = self._blocks.pop(0)
            self._add(oldest.finding, oldest.address, oldest.session, oldest.at)

    # records: what the server's logger writes of one thing

    def _end_pretty(self, now: float) -> None:
        lines, self._pretty = self._pretty, []
        if not lines:
            return
        record, session = read_pretty(lines), self._session_in(lines[0])
        if PRETTY.match(lines[0]):
            self._take_record(record, read_record(record, self.own), session, now)
            return
        stack = next((at[1] for line in lines if (at := _ADDRESS.search(line))), "")
        self._take_record(record, finding_among(lines, self.own), session, now, stack)

    def _take_record(
        self,
        record: Mapping[str, Any],
        finding: CryptoFinding | None,
        session: str,
        now: float,
        stack: str = "",
    ) -> None:
        """`stack`: the address that a stack in it names."""
        session = session or session_of(record)
        if (turn := read_turn(message_of(record))) is not None:
            self._note_turn(turn if turn.session else replace(turn, session=session), now)
        if finding is None:
            return
        addresses = [a for jid in jids_of(record) if (a := address_of_jid(jid))]
        addresses += [stack] if stack else []
        if finding.effect is Effect.SUMMARY:
            self._add_summary(finding, addresses, session, now)
        else:
            address = addresses[0] if addresses else ""
            self._add(_with_peer(finding, address), address, session, now)

    def _add_summary(
        self, finding: CryptoFinding, addresses: list[str], session: str, now: float
    ) -> None:
        """One message, one error: with what libsignal said of it before."""
        address = addresses[0] if addresses else ""
        block = self._summed_up(addresses, now)
        if block is None:
            self._add(_with_peer(finding, address), address, session, now)
        else:
            raw = block.finding if block.finding.peer else _with_peer(block.finding, address)
            self._add(raw, block.address or address, session or block.session, now)

    def _summed_up(self, raw: list[str], now: float) -> _Block | None:
        """The block that this record is about; it is reported once, with the words of both."""
        near = [block for block in self._blocks if now - block.at < _SUMS_UP_WITHIN]
        if not near:
            return None
        named = [b for b in near if any(same_peer(b.finding.peer, address) for address in raw)]
        block = named[-1] if named else near[-1]
        self._blocks.remove(block)
        return block

    def _add(self, finding: CryptoFinding, address: str, session: str, at: float) -> None:
        if finding.effect is Effect.BENIGN:
            return
        text = words_of(finding.name)
        stretch = at - at % _STRETCH if self.dated else 0.0
        self.errors.append(LogError(finding.name, text, finding.peer, address, session, stretch))

    def _session_in(self, line: str) -> str:
        if self.log_session is None:
            return ""
        named = self.log_session.search(line[:2000])
        return (named[1] or "")[:200] if named else ""


def is_of_interest(raw: bytes, more: tuple[bytes, ...] = ()) -> bool:
    """Whether a line can say anything to us; most lines of a log do not."""
    low = raw[:LONGEST_RECORD].lower()
    return any(needle in low for needle in (*_NEEDLES, *more))


def needle_of(own: CryptoPattern) -> bytes:
    """A text in each line that the pattern matches: its longest run of plain letters. Bytes know no
    capitals beyond ASCII, and an expression's signs are not in the line."""
    text = own.name.removeprefix("own: ")
    return max(re.findall(r"[ -~]+", text), key=len, default="").lower().encode()


WORDS: Mapping[str, str] = {
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
    """A line that the agent reads as the same finding, made by ourselves."""
    return WORDS.get(name, name)


def _with_peer(finding: CryptoFinding, address: str) -> CryptoFinding:
    peer = address.rpartition(".")[0]
    return replace(finding, peer=peer) if peer else finding


assert set(WORDS) == {p.name for p in PATTERNS if p.effect is not Effect.BENIGN}
