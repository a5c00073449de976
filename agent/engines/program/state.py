"""All that a program says. It prints: lines for the log, its last ones for people, errors of its
keys. It tells of its session: as claims and happenings."""

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from agent import errors, redaction
from agent.core.crypto_patterns import CryptoFinding, CryptoLogReader, Effect
from agent.core.words import NOT_TOLD, Claim, ConnectionStatus
from agent.engines import whatsapp
from agent.engines.baileys import session_state
from agent.engines.base import Qr, Reporter, text
from agent.engines.program.declaration import MISSING

log = logging.getLogger("program")

LONGEST = 8192
"""Bytes of one line; a longer one is shown in pieces."""
LAST, LAST_LONG = 5, 180
"""Last lines for people, and letters of each: all of them fit into a session's reason."""
MOST, MOST_BYTES, WITHIN = 2000, 1 << 20, 10.0
"""Lines and bytes that are logged within these seconds; beyond them only the number of lines."""

_NO_WORDS = re.compile(r"\s+at .*|[\s^~]*|Node\.js v[0-9].*|\s*\.\.\. [0-9]+ lines? .*")
"""Lines that Node prints around an error: where it came from, and marks below a line of the
source."""
_STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_DRAWN = re.compile(r"[ \u2580-\u259f\u00a0]{16,}")
_SQUARES = re.compile(r"\x1b\[(?:4[0-9]|7|10[0-9])m {2}")
_BLOCKS = re.compile(r"[\u2580-\u259f]")
_KEY_BEGINS = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY")
_KEY_ENDS = "-----END "
_OF_A_KEY = re.compile(r"[A-Za-z0-9+/=]+|.*[A-Za-z0-9+/=]{40}.*|.*(?:Proc-Type|DEK-Info):.*")
_LONGEST_KEY = 200
"""Lines of a key; RSA with 16,384 bits has 150."""


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
        """Number of coming lines that may be of a private key, and of harmless summaries."""

    def feed(self, content: bytes) -> None:
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            self._take(line)
        while len(self._rest) > LONGEST:
            self._take(self._rest[:LONGEST])
            self._rest = self._rest[LONGEST:]

    def close(self) -> None:
        """Take in the end of the output: what has no end of line is a line, too."""
        self._take(self._rest)
        self._rest = b""
        self._tell(self._reader.flush())
        self._say_left_out()

    def _take(self, raw: bytes) -> None:
        text = raw[:LONGEST].decode("utf-8", "replace").rstrip("\r")
        if is_drawn_code(text):
            if not self._in_code:
                self._show(redaction.CODE_REMOVED)
            self._in_code = True
            return
        plain = _STYLE.sub("", text).rstrip()
        if not plain:
            return
        self._in_code = False
        if self._is_of_key(plain):
            return
        self._tell(self._reader.feed(plain))
        for secret in self._secrets:
            plain = plain.replace(secret, redaction.REMOVED)
        plain = self._words.sub(redaction.REMOVED, plain) if self._words else plain
        self._show(redaction.redact(plain))

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
        """True for a line of a private key after its first one, whose rest is redacted."""
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

    def _tell(self, found: list[CryptoFinding]) -> None:
        for finding in found:
            if finding.effect is Effect.SUMMARY and self._benign:
                self._benign -= 1
            elif finding.effect is not Effect.BENIGN:
                self._found(finding)
            elif finding.name == "duplicate":
                self._benign = min(self._benign + 1, LAST)


def is_drawn_code(text: str) -> bool:
    """True for a line of a QR code, in blocks or blanks: a reader of the log could scan it."""
    plain = _STYLE.sub("", text)
    if not plain.strip() and _SQUARES.search(text):
        return True
    return bool(_DRAWN.fullmatch(plain)) and len(_BLOCKS.findall(plain)) >= 8


Status = ConnectionStatus

ENDED, FAILING = "program_ended", "program_failing"
_LARGEST = 1e10
"""Seconds: no time that a person means is longer."""
COMES_BACK = frozenset(
    ["connection_lost", "service_unavailable", "restart_required", "bad_session", "unknown"]
)
"""Reasons after which most programs reconnect by themselves."""
ENDS = frozenset({"logout", "banned", "temporary_ban", "client_outdated"})
ENDS |= {"conflict", "multidevice_mismatch", "proxy_block"}
"""Reasons after which no login follows at once."""
QR_IDLE = "qr_idle"
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+-]{0,39}", re.ASCII)
"""Versions of a library: a program chooses the text, which is a label of metrics."""


class ProgramState(session_state.State):
    """State of a program's session. Unknown is a state, too: neither connected nor lost."""

    def __init__(self, reporter: Reporter) -> None:
        claim = Claim(Status.INITIALIZING, phase="process", pairing_unknown=True)
        super().__init__(reporter, claim)
        self.device = ""
        """The device as `Linked` has it; "" = the library told none."""
        self.told = False
        """True if the running program reports on its session."""

    def begun(self) -> None:
        """Note that a program runs and has told nothing so far."""
        self._forget()
        self.change(Status.INITIALIZING, NOT_TOLD, pairing_unknown=True)

    def ended(self, reason: str, raw: str) -> None:
        self._forget()
        self.change(Status.DISCONNECTED, reason, raw=raw)

    def refused(self, error: errors.EngineError) -> None:
        """Note that the program was not started; if its files are why, the agent looks at them."""
        if error.code == MISSING:
            self.ended(error.code, str(error))
            return
        self._forget()
        self.change(Status.AUTH_FAILURE, error.code, raw=str(error)[:200])

    def note_status(self, words: str) -> None:
        """Note STATUS= of a program that tells nothing else."""
        if not self.told and self.claim.reason == NOT_TOLD and words != self.claim.raw:
            self.change(Status.INITIALIZING, NOT_TOLD, raw=words, pairing_unknown=True)

    def note_look(self, answer: Mapping[str, Any]) -> None:
        """Take in the library's answer to a question that it really asked WhatsApp."""
        age = _number(answer.get("frame_age"))
        if answer.get("open") is True and age is not None and age > -1:
            self._frame_at = time.monotonic() - max(age, 0.0)
        if answer.get("open") is False and self.connected:
            self.change(Status.RECONNECTING, "connection_lost")

    def change(self, status: ConnectionStatus, reason: str = "", **more: Any) -> None:
        if reason in (ENDED, FAILING):
            more["pairing_unknown"] = self.claim.pairing_unknown
        super().change(status, reason, **more)

    def found_crypto(self, finding: CryptoFinding) -> None:
        if words := session_state.PATTERN_WORDS.get(finding.name):
            self.happened("crypto_error", pattern=finding.name, text=words, peer=finding.peer)

    def hear(self, event: Mapping[str, Any]) -> None:
        handle = getattr(self, f"_on_{text(event.get('event'), 20)}", None)
        if handle is not None:
            self.told = True
            handle(event)

    def on_ready(self) -> None:
        """Note that the library is loaded: an event that it does not report has not happened."""
        self.told = True
        if self.claim.reason in (NOT_TOLD, ENDED, FAILING):
            self.change(Status.INITIALIZING, phase="attached")

    def _forget(self) -> None:
        self.told, self._code, self._codes, self._frame_at = False, None, 0, None

    def _on_connecting(self, _event: Mapping[str, Any]) -> None:
        if self.claim.status is Status.RECONNECTING:
            return  # it comes back by itself, for as long as that may take
        self.change(Status.LOADING if self.claim.paired else Status.INITIALIZING, phase="login")

    def _on_qr(self, event: Mapping[str, Any]) -> None:
        self._codes += 1
        lasts = event.get("expires")
        seconds = float(lasts) if isinstance(lasts, int | float) and 0 < lasts < 3600 else 0.0
        self._code = Qr(text(event.get("qr"), 2000), seconds or whatsapp.FIRST_CODE, self._codes)
        self._code_until = time.monotonic() + self._code.expires_in
        self.change(Status.QR_REQUIRED, phase="login", raw=f"code {self._codes}")

    def _on_paired(self, event: Mapping[str, Any]) -> None:
        self._code = None
        self._note_account(event)
        self.change(Status.LOADING, phase="login")

    def _on_sync(self, event: Mapping[str, Any]) -> None:
        if self.connected:
            return
        self._code = None
        share = event.get("progress")
        progress = float(share) if isinstance(share, int | float) and 0 <= share <= 1 else None
        self.change(Status.LOADING, phase="sync", progress=progress)

    def _on_open(self, event: Mapping[str, Any]) -> None:
        self._code = None
        self._frame_at = time.monotonic()
        self._note_account(event)
        version = text(event.get("version"), 40)
        self.claim = replace(self.claim, version=version if _VERSION.fullmatch(version) else "")
        self.change(Status.CONNECTED)

    def pairing(self) -> tuple[str, bool, str]:
        return self.claim.account, self.claim.paired, self.device

    def _note_account(self, event: Mapping[str, Any]) -> None:
        account = text(event.get("account"), 40)
        self.device = text(event.get("device"), 64) or self.device
        self.claim = replace(self.claim, paired=True, account=account or self.claim.account)

    def _on_close(self, event: Mapping[str, Any]) -> None:
        self._code = None
        reason, raw, until = self._why(event)
        if reason == "logout":
            self.claim = replace(self.claim, paired=False)
        if reason == QR_IDLE:
            self.change(Status.QR_REQUIRED, reason, raw=raw)
        elif reason in ENDS:
            self.change(Status.DISCONNECTED, reason, raw=raw, until_wall=until)
        else:
            # The program may come back by itself; how long it may take is not its to say.
            self.change(Status.RECONNECTING, reason, raw=raw)

    def _why(self, event: Mapping[str, Any]) -> session_state.Ended:
        raw, code, expire = text(event.get("raw")), event.get("code"), event.get("expire")
        if (named := text(event.get("reason"), 60)) in ENDS | COMES_BACK | {QR_IDLE}:
            return session_state.Ended(named, raw)
        known: dict[str, Any] = {"paired": self.claim.paired, "codes": self._codes}
        known |= {"expire": _number(expire), "now_wall": time.time()}
        code = code if isinstance(code, int) else None
        return session_state.why_closed(code, raw or named, **known)

    def _on_message(self, event: Mapping[str, Any]) -> None:
        detail = {key: text(event.get(key), 64) for key in ("direction", "type", "id", "peer")}
        self.happened("message", **{key: value for key, value in detail.items() if value})

    def _on_ack(self, event: Mapping[str, Any]) -> None:
        self.happened("ack", id=text(event.get("id"), 64), ack=text(event.get("ack"), 20))

    def _on_not_kept(self, event: Mapping[str, Any]) -> None:
        """Note a message that the program has, and the agent has not."""
        self.happened("error", code="not_kept", raw=text(event.get("raw"), 120))

    def _on_undecryptable(self, event: Mapping[str, Any]) -> None:
        if words := session_state.CRYPTO_WORDS.get(kind := text(event.get("kind"), 40)):
            peer = text(event.get("peer"), 64).partition("@")[0].partition(":")[0]
            self.happened("crypto_error", pattern=kind, text=words, peer=peer)


def _number(raw: object) -> float | None:
    """Return a number of seconds; None for any other value."""
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return None
    return float(raw) if -_LARGEST < raw < _LARGEST else None
