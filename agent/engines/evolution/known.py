"""What answers and the webhook told of one session. It sends no request."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.core.engine_words import evolution_reason
from agent.core.words import Claim
from agent.engines.base import Qr
from agent.engines.evolution.answers import Shown
from agent.engines.evolution.claims import Facts, Live, claim_of, disagreement, fresh_end, is_paired
from agent.engines.evolution.hooks import (
    HookEvent,
    code_told,
    codes_used_up,
    end_told,
    outdated,
    state_told,
)
from agent.engines.evolution.rows import FINAL, Row
from agent.engines.evolution.settings import Pace

STATE_EVENTS = ("CONNECTION_UPDATE", "QRCODE_UPDATED", "STATUS_INSTANCE", "LOGOUT_INSTANCE")


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the next worker may know of a session at its start.

    Never that it was unpaired: a phone may have scanned a code since.
    """

    paired: bool = False
    account: str = ""
    scanned: str = ""
    """The mark of the last code before it opened, which the server may go on showing."""


@dataclass(frozen=True, slots=True)
class Code:
    text: str = field(repr=False)
    pairing_code: str = field(repr=False)
    number: int
    at: float
    """When we saw it first; the server made it earlier."""


class Known:
    """Facts go in, the claim comes out."""

    def __init__(
        self,
        pace: Pace,
        clock: Callable[[], float] = time.monotonic,
        remembered: Remembered | None = None,
    ) -> None:
        self.live = Live.MISSING
        self.since = clock()
        """When `live` was first seen."""
        self.awaited = False
        """Its creation was asked for, and the server has not refused it."""
        self.account = ""
        self.integration = ""
        self._pace = pace
        self._clock = clock
        self._paired: bool | None = None
        self._scanned = ""
        self._closed = False
        """It was open, and then closed without coming back by itself."""
        self._lost = False
        self._first_seen = ""
        """Of a paired session: the mark of the code that it showed as it began to connect."""
        if remembered is not None:
            self._paired = True if remembered.paired else None
            self.account, self._scanned = remembered.account, remembered.scanned
        self._row: Row | None = None
        self._row_known = False
        self._ended = ""
        self._open_until = 0.0
        self._code: Code | None = None
        self._blank_since: float | None = None
        self._newest = 0.0
        self._disagreed = ""

    # asked

    @property
    def paired_unknown(self) -> bool:
        return self._paired is None

    @property
    def paired(self) -> bool:
        return self._paired is True

    @property
    def remembered(self) -> Remembered:
        return Remembered(self.paired, self.account, self._scanned)

    @property
    def end_known(self) -> bool:
        """Whether we know why it closed. The server writes its row a moment after the state."""
        return bool(self._ended) or fresh_end(self._row, self._open_until) is not None

    @property
    def logged_out(self) -> bool:
        return self._ended == "logout"

    def seconds(self) -> float:
        """How long we have seen it in its state."""
        return self._clock() - self.since

    def code(self) -> Code | None:
        """The code to scan now."""
        code = self._code
        if code is None or self.live is not Live.CONNECTING:
            return None
        return code if self._clock() - code.at < self._pace.code_holds else None

    def qr(self) -> Qr | None:
        code = self.code()
        if code is None or not code.text:
            return None
        left = self._pace.code_holds - (self._clock() - code.at)
        return Qr(code.text, max(1.0, left), max(1, code.number))

    def claim(self) -> Claim:
        facts = Facts(
            self.live,
            self._row,
            self._row_known,
            self._ended,
            self.paired,
            self.account,
            self.code() is not None,
            self._blank_for(),
            self._open_until,
            self.paired_unknown,
            self.awaited,
            self._lost,
        )
        return claim_of(facts, self._pace.blank_limit)

    def can_show_code(self) -> str:
        if self.live is Live.OPEN or self.paired:
            return "not_needed"
        return "yes" if self.code() is not None else "no"

    def compare(self, row: Row | None, age: float) -> str | None:
        """How the list contradicts the state, from the second time on, for a list is always behind.
        None: this list cannot tell."""
        if age > self.seconds():
            return None  # it is older than the state
        before, self._disagreed = self._disagreed, disagreement(self.live, row)
        return self._disagreed if self._disagreed in ("", before) else None

    # told

    def begin(self) -> None:
        """We asked it to connect: its earlier end counts no more."""
        if self._ended != "client_outdated":
            self._ended = ""
        if self._blank_since is None:
            self._blank_since = self._clock()

    def note_created(self) -> None:
        """The server has just made it: it was never paired."""
        self._paired, self._ended, self._code, self.awaited = False, "", None, False

    def is_news(self, shown: Shown) -> bool:
        """Whether the shown code may be a new one: the server goes on showing the last code through
        pairing, logout and silence. Of a paired session only a second, other code counts, for
        the server makes none for it."""
        mark = _mark(shown.code)
        if not shown.code or mark == self._scanned:
            return False
        if not self.paired:
            return True
        self._first_seen = self._first_seen or mark
        return mark != self._first_seen

    def is_current(self, shown: Shown) -> bool:
        return self._code is not None and self._code.text == shown.code

    def note_live(self, live: Live) -> None:
        if live is Live.CLOSE and self.live is Live.CLOSE:
            # Twice in a row: it is closed, not between two tries of an endless loop.
            self._blank_since = None
            self._closed = self._closed or self.paired
        if live is not self.live:
            if live is Live.CONNECTING and self._ended != "client_outdated":
                self._ended = ""  # it came back by itself
            self.live, self.since = live, self._clock()
            self._row, self._row_known = None, False
        if live is Live.OPEN:
            if self._code is not None:
                self._scanned = _mark(self._code.text)
            self._ended, self._code, self._blank_since, self._paired = "", None, None, True
            self._first_seen, self._closed, self._lost = "", False, False
        elif live is Live.CONNECTING and self._blank_since is None and self.code() is None:
            self._blank_since = self._clock()
        if live is not Live.MISSING:
            self.awaited = False
        else:
            self._paired, self._code, self._blank_since = False, None, None

    def note_shown(self, shown: Shown) -> None:
        """Take in a code that the server made for this login."""
        if not shown.code and not shown.pairing_code:
            return
        before = self._code
        # It was paired, it closed and stayed closed, and now the server makes a code for it: a
        # phone or WhatsApp ended the pairing. 1.8 does not say so anywhere.
        self._lost = self._lost or (self.paired and self._closed)
        self.live, self.since = self._connecting_since()
        self._paired, self._ended, self._blank_since = False, "", None
        if before is None or before.text != shown.code:
            number = shown.count or (before.number + 1 if before is not None else 1)
            self._code = Code(shown.code, shown.pairing_code, number, self._clock())
        elif shown.pairing_code:
            self._code = Code(before.text, shown.pairing_code, before.number, before.at)

    def note_row(self, row: Row | None) -> None:
        """Take in a row that is newer than the state."""
        self._row, self._row_known = row, True
        if row is None:
            return
        self.account = row.account or self.account
        self.integration = row.integration
        if self.live is Live.OPEN:
            if row.status == Live.OPEN:
                self._open_until = max(self._open_until, row.updated_wall)
            self._open_until = max(self._open_until, row.closed_wall)
        elif not row.live:
            self._paired = is_paired(row, self._open_until) and self._ended not in _UNPAIRED

    def note_logout(self) -> None:
        self._ended, self._paired, self._code = "logout", False, None

    def told(self, event: HookEvent) -> bool:
        """Take in a state event of the webhook; True where it changed something."""
        if outdated(event, self._newest):
            return False
        self._newest = event.stamp or self._newest
        match event.kind:
            case "CONNECTION_UPDATE":
                return self._state_told(event)
            case "QRCODE_UPDATED":
                return self._code_told(event)
            case "STATUS_INSTANCE":
                code = end_told(event.content)
                if code is None:
                    return False
                self._end(code)
                self._paired, self._code = False, None  # only told where the keys are deleted
            case _:
                # It follows each final close; a reason that is known says more.
                self._ended = self._ended or "logout"
                self._paired = False
        self.note_live(Live.CLOSE)
        return True

    def _state_told(self, event: HookEvent) -> bool:
        told = state_told(event.content)
        if told is None:
            return False
        self.account = told.account or self.account
        if told.live is Live.REFUSED:
            self._ended, self._paired, self._code = "qr_idle", False, None
        self.note_live(told.live)
        if told.live is Live.CLOSE and told.code is not None:
            self._end(told.code)
        return True

    def _code_told(self, event: HookEvent) -> bool:
        if codes_used_up(event.content):
            self._ended, self._paired, self._code = "qr_idle", False, None
            self.note_live(Live.REFUSED)
            return True
        shown = code_told(event.content)
        if shown is None or _mark(shown.code) == self._scanned:
            return False
        self.note_shown(shown)  # told when it is made
        return True

    def _end(self, code: int) -> None:
        if self._ended == "qr_idle" and code in (401, 428):
            return  # after the last code the server logs itself out
        self._ended = evolution_reason(code)
        if code in FINAL:
            self._paired, self._code = False, None

    def _connecting_since(self) -> tuple[Live, float]:
        since = self.since if self.live is Live.CONNECTING else self._clock()
        return Live.CONNECTING, since

    def _blank_for(self) -> float:
        # 1.8's list does not tell a pairing: there the long silence alone must do.
        unknown = self._paired is None and not self._row_known
        if self._blank_since is None or unknown:
            return 0.0
        return self._clock() - self._blank_since


def _mark(code: str) -> str:
    """A code is a secret: what is kept of it cannot be scanned."""
    return hashlib.sha256(code.encode()).hexdigest()[:16] if code else ""


_UNPAIRED = ("logout", "banned", "account_locked", "temporary_ban")
