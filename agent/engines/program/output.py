"""What a program prints: lines for the log, its last ones for people, errors of its keys."""

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Collection

from agent.core.findings.crypto_patterns import CryptoFinding, CryptoLogReader, Effect
from agent.redaction import CODE_REMOVED, REMOVED, redact

log = logging.getLogger("program")

LONGEST = 8192
"""Bytes of one line; a longer one is shown in pieces."""
LAST = 5
MOST, WITHIN = 2000, 10.0
"""So many lines within so many seconds are logged; of more, their number."""

_STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_DRAWN = re.compile(r"[ \u2580-\u259f\u00a0]{16,}")
_SQUARES = re.compile(r"\x1b\[(?:4[0-9]|7|10[0-9])m {2}")
_BLOCKS = re.compile(r"[\u2580-\u259f]")


class Output:
    """Takes the bytes of one run of the program."""

    def __init__(self, found: Callable[[CryptoFinding], None], secrets: Collection[str]) -> None:
        """`found`: hears of a failing key; `secrets`: values that no line may show."""
        self.last: deque[str] = deque(maxlen=LAST)
        self._found = found
        self._secrets = sorted(secrets, key=len, reverse=True)
        self._rest = b""
        self._reader = CryptoLogReader()
        self._since, self._lines = time.monotonic(), 0
        self._in_code = False

    def feed(self, content: bytes) -> None:
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            self._take(line)
        while len(self._rest) > LONGEST:
            self._take(self._rest[:LONGEST])
            self._rest = self._rest[LONGEST:]

    def close(self) -> None:
        """It ended: what has no end of line is a line, too."""
        if self._rest:
            self._take(self._rest)
            self._rest = b""
        self._tell(*self._reader.flush())
        self._say_left_out()

    def _take(self, raw: bytes) -> None:
        text = raw[:LONGEST].decode("utf-8", "replace").rstrip("\r")
        if is_drawn_code(text):
            if not self._in_code:
                self._show(CODE_REMOVED)
            self._in_code = True
            return
        plain = _STYLE.sub("", text).rstrip()
        if not plain:
            return
        self._in_code = False
        self._tell(*self._reader.feed(plain))
        self._show(self._without_secrets(plain))

    def _show(self, line: str) -> None:
        self.last.append(line[:300])
        now = time.monotonic()
        if now - self._since > WITHIN:
            self._say_left_out()
            self._since, self._lines = now, 0
        self._lines += 1
        if self._lines <= MOST:
            log.info("%s", line)

    def _say_left_out(self) -> None:
        if self._lines > MOST:
            log.warning("%d more lines within %g s are left out", self._lines - MOST, WITHIN)
            self._lines = 0

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, REMOVED)
        return redact(text)

    def _tell(self, reader: CryptoLogReader, found: tuple[CryptoFinding, ...]) -> None:
        self._reader = reader
        for finding in found:
            if finding.effect is not Effect.BENIGN:
                self._found(finding)


def is_drawn_code(text: str) -> bool:
    """A line of a QR code drawn with blocks or coloured blanks: who reads the log could scan it."""
    plain = _STYLE.sub("", text)
    if not plain.strip() and _SQUARES.search(text):
        return True
    return bool(_DRAWN.fullmatch(plain)) and len(_BLOCKS.findall(plain)) >= 8
