"""One stream of a log: its bytes become findings, counted and bounded."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from agent.core.findings.crypto_patterns import CryptoPattern
from agent.engines.whaticket.logs.lines import SUMMARY_WAIT, LineReader, LogError
from agent.engines.whaticket.logs.records import LONGEST_RECORD
from agent.engines.whaticket.logs.times import LogClock
from agent.engines.whaticket.turns import Turn

_MOST_KINDS = 1000


@dataclass(slots=True)
class Splitter:
    """Bytes in, whole lines out; what has no end yet is kept, within bounds."""

    partial: bytes = b""
    skipping: bool = False
    """The line is longer than any that we read: it is passed over to its end."""

    def feed(self, chunk: bytes) -> list[bytes]:
        first, newline, rest = chunk.partition(b"\n")
        if not newline:
            self._keep(chunk)
            return []
        lines = [] if self.skipping else [self.partial + first]
        self.partial, self.skipping = b"", False
        if rest:
            *whole, last = rest.split(b"\n")
            lines += whole
            self._keep(last)
        return lines

    def clear(self) -> None:
        self.partial, self.skipping = b"", False

    def _keep(self, piece: bytes) -> None:
        if self.skipping:
            return
        self.partial += piece
        if len(self.partial) > LONGEST_RECORD:
            self.partial, self.skipping = b"", True


@dataclass(slots=True)
class Batch:
    """What one reading found. However long the log, this stays small."""

    errors: Counter[tuple[LogError, str]] = field(default_factory=Counter)
    """Each with the stream it stood in, and how often."""
    turns: list[tuple[Turn, str]] = field(default_factory=list)
    lines: int = 0
    passed_over: int = 0
    """Bytes that were not read: there was more than can matter."""
    more: bool = False
    """There is more to read right now."""


@dataclass(slots=True)
class Stream:
    """`hint`: what the stream itself says of the session, a file's name."""

    hint: str
    log_session: re.Pattern[str] | None = None
    own: tuple[CryptoPattern, ...] = ()
    clock: LogClock | None = None
    """Reads when each line was written; None where it is read as it is written."""
    splitter: Splitter = field(default_factory=Splitter)
    reader: LineReader = field(init=False)
    _heard_at: float = 0.0

    def __post_init__(self) -> None:
        self.reader = LineReader(self.log_session, self.own, dated=self.clock is not None)

    def feed(self, chunk: bytes, now: float, batch: Batch) -> None:
        self.feed_lines(self.splitter.feed(chunk), now, batch)

    def feed_lines(self, lines: Iterable[bytes], now: float, batch: Batch) -> None:
        self._heard_at = now
        reader = self.reader
        for line in lines:
            batch.lines += 1
            reader.feed(line, now if self.clock is None else self.clock.see(line))
        self._hand_over(now, batch, quiet=False)

    def idle(self, now: float, batch: Batch, *, ends: bool = False) -> None:
        self._hand_over(now, batch, quiet=ends or now - self._heard_at > 0.5, ends=ends)

    def _hand_over(self, now: float, batch: Batch, *, quiet: bool, ends: bool = False) -> None:
        reader = self.reader
        reader.settle(now, quiet=quiet, wait=0.0 if ends else SUMMARY_WAIT)
        for error in reader.errors:
            if len(batch.errors) < _MOST_KINDS:
                batch.errors[(error, self.hint)] += 1
        batch.turns += [(turn, self.hint) for turn in reader.turns[-_MOST_KINDS:]]
        del batch.turns[:-_MOST_KINDS]
        reader.errors.clear()
        reader.turns.clear()
