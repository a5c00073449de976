"""What a program prints: lines for the log, its last ones for people, errors of its keys."""

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Collection

from agent.core.crypto_patterns import CryptoFinding, CryptoLogReader, Effect
from agent.redaction import CODE_REMOVED, REMOVED, redact

log = logging.getLogger("program")

LONGEST = 8192
"""Bytes of one line; a longer one is shown in pieces."""
LAST, LAST_LONG = 5, 180
"""Lines for people, and letters of each: all of them fit into a session's reason."""
MOST, MOST_BYTES, WITHIN = 2000, 1 << 20, 10.0
"""So many lines and bytes within so many seconds are logged; of more, the number of lines."""

_NO_WORDS = re.compile(r"\s+at .*|[\s^~]*|Node\.js v[0-9].*|\s*\.\.\. [0-9]+ lines? .*")
"""What Node prints around an error: where it came from, and marks below a line of the source."""
_STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_DRAWN = re.compile(r"[ \u2580-\u259f\u00a0]{16,}")
_SQUARES = re.compile(r"\x1b\[(?:4[0-9]|7|10[0-9])m {2}")
_BLOCKS = re.compile(r"[\u2580-\u259f]")
_KEY_BEGINS = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY")
_KEY_ENDS = "-----END "
_OF_A_KEY = re.compile(r"[A-Za-z0-9+/=]+|.*[A-Za-z0-9+/=]{40}.*|.*(?:Proc-Type|DEK-Info):.*")
_LONGEST_KEY = 200
"""Lines; RSA with 16,384 bits has 150."""


class Output:
    """Takes the bytes of one run of the program."""

    def __init__(
        self,
        found: Callable[[CryptoFinding], None],
        secrets: Collection[str],
        words: Collection[str] = (),
    ) -> None:
        """`found`: hears of a failing key; `secrets`: values that no line may show; `words`: those
        that none may show as a word of its own."""
        self.last: deque[str] = deque(maxlen=LAST)
        self._found = found
        self._secrets = sorted(secrets, key=len, reverse=True)
        shown = "|".join(map(re.escape, words))
        self._words = re.compile(rf"(?<!\w)(?:{shown})(?!\w)") if shown else None
        self._rest = b""
        self._reader = CryptoLogReader()
        self._since, self._lines, self._bytes, self._left_out = time.monotonic(), 0, 0, 0
        self._in_code = False
        self._key_lines = self._benign = 0
        """How many lines to come may be of a private key, and how many summaries of no harm."""

    def feed(self, content: bytes) -> None:
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            self._take(line)
        while len(self._rest) > LONGEST:
            self._take(self._rest[:LONGEST])
            self._rest = self._rest[LONGEST:]

    def close(self) -> None:
        """It ended: what has no end of line is a line, too."""
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
        if self._is_of_key(plain):
            return
        self._tell(*self._reader.feed(plain))
        self._show(self._without_secrets(plain))

    def _show(self, line: str) -> None:
        if not _NO_WORDS.fullmatch(line):
            self.last.append(line.strip()[:LAST_LONG])
        now = time.monotonic()
        if now - self._since > WITHIN:
            self._say_left_out()
            self._since, self._lines, self._bytes = now, 0, 0
        self._lines += 1
        self._bytes += len(line)
        if self._lines <= MOST and self._bytes <= MOST_BYTES:
            log.info("%s", line)
        else:
            self._left_out += 1

    def _say_left_out(self) -> None:
        if self._left_out:
            log.warning("%d more lines within %g s are left out", self._left_out, WITHIN)
            self._left_out = 0

    def _is_of_key(self, line: str) -> bool:
        """A line after the first one of a private key; of that one the rest is redacted."""
        if self._key_lines:
            self._key_lines -= 1
            if _KEY_ENDS in line:
                self._key_lines = 0
                return True
            if _OF_A_KEY.fullmatch(line):
                return True
        *_, begun = _KEY_BEGINS.split(line)
        if begun != line and _KEY_ENDS not in begun:
            self._key_lines = _LONGEST_KEY
        return False

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, REMOVED)
        return redact(self._words.sub(REMOVED, text) if self._words else text)

    def _tell(self, reader: CryptoLogReader, found: tuple[CryptoFinding, ...]) -> None:
        self._reader = reader
        for finding in found:
            if finding.effect is Effect.SUMMARY and self._benign:
                self._benign -= 1
            elif finding.effect is not Effect.BENIGN:
                self._found(finding)
            elif finding.name == "duplicate":
                self._benign = min(self._benign + 1, LAST)


def is_drawn_code(text: str) -> bool:
    """A line of a QR code drawn with blocks or coloured blanks: who reads the log could scan it."""
    plain = _STYLE.sub("", text)
    if not plain.strip() and _SQUARES.search(text):
        return True
    return bool(_DRAWN.fullmatch(plain)) and len(_BLOCKS.findall(plain)) >= 8
