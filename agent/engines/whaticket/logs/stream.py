"""One stream of a log: its bytes become findings, counted and bounded."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from agent.core.findings.crypto_patterns import CryptoPattern
from agent.engines.whaticket.logs.lines import Found, LineReader
from agent.engines.whaticket.logs.splitter import Splitter
from agent.engines.whaticket.logs.times import LogClock
from agent.engines.whaticket.turns import Turn

_MOST_KINDS = 1000


@dataclass(slots=True)
class Batch:
    """What one reading found. However long the log, this stays small."""

    found: Counter[tuple[Found, str]] = field(default_factory=Counter)
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
        if ends:
            reader.settle(now, quiet=True, wait=0.0)
        else:
            reader.settle(now, quiet=quiet)
        for found in reader.found:
            if len(batch.found) < _MOST_KINDS:
                batch.found[(found, self.hint)] += 1
        batch.turns += [(turn, self.hint) for turn in reader.turns[-_MOST_KINDS:]]
        del batch.turns[:-_MOST_KINDS]
        reader.found.clear()
        reader.turns.clear()
