"""The present knowledge of one session, by answers and the webhook. It sends no request."""

import time
from collections.abc import Callable
from dataclasses import replace

from agent.core.words import Claim
from agent.engines.base import Qr
from agent.engines.evolution.answers import Shown
from agent.engines.evolution.claims import Facts, Live, claim_of, disagreement, fresh_end, is_paired
from agent.engines.evolution.codes import Code, CodeToScan, Questions
from agent.engines.evolution.logins import Logins
from agent.engines.evolution.remembered_file import SessionNote
from agent.engines.evolution.rows import FINAL, Row
from agent.engines.evolution.settings import Pace
from agent.engines.evolution.webhook import hooks
from agent.engines.reason_codes import evolution_reason


class SessionView:
    """Facts go in, the claim comes out."""

    def __init__(
        self,
        pace: Pace,
        clock: Callable[[], float] = time.monotonic,
        remembered: SessionNote | None = None,
        old: Callable[[], bool] = lambda: True,
    ) -> None:
        self.since = clock()
        """When its state was first seen."""
        self.awaited = False
        """The agent asked for its creation, and the server has not refused."""
        self.integration = ""
        self._pace = pace
        self._clock = clock
        self.logins = Logins(pace, clock, old)
        remembered = remembered or SessionNote()
        self._facts = Facts(paired=remembered.paired or None, account=remembered.account)
        self._codes = CodeToScan(pace.code_holds, remembered.scanned)
        self._closed = False
        """The session was open, then closed, and did not come back by itself."""
        self._blank_since: float | None = None
        self._newest = 0.0
        self._questions = Questions(pace.account_again)
        self._disagreed = ""

    @property
    def live(self) -> Live:
        return self._facts.live

    @property
    def account(self) -> str:
        return self._facts.account

    @property
    def paired(self) -> bool:
        return self._facts.paired is True

    @property
    def unpaired(self) -> bool:
        """A gone session's pairing is remembered: it counts again where the session comes back."""
        return self._facts.paired is False or self.gone

    @property
    def gone(self) -> bool:
        return self._facts.gone

    @property
    def remembered(self) -> SessionNote:
        return SessionNote(self.paired, self.account, self._codes.scanned)

    @property
    def end_known(self) -> bool:
        """Whether we know why it closed. The server writes its row a moment after the state."""
        facts = self._facts
        return bool(facts.ended) or fresh_end(facts.row, facts.open_until) is not None

    @property
    def logged_out(self) -> bool:
        return self._facts.ended == "logout"

    @property
    def may_come_back(self) -> bool:
        """The session is closed, and the server may connect it by itself."""
        ended = self.end_known and self.unpaired
        return self.live is Live.CLOSE and self.logins.may_come_back(self.unpaired, ended)

    def refuse_login(self, *, restart: bool = False) -> str:
        return self.logins.refusal(self.live, self.unpaired, self.may_come_back, restart=restart)

    def seconds(self) -> float:
        """How long we have seen it in its state."""
        return self._clock() - self.since

    def code(self) -> Code | None:
        """The code to scan now."""
        return self._codes.current(self._clock()) if self.live is Live.CONNECTING else None

    def qr(self) -> Qr | None:
        return self._codes.qr(self._clock()) if self.live is Live.CONNECTING else None

    def claim(self) -> Claim:
        facts = replace(
            self._facts,
            awaited=self.awaited,
            code_shown=self.code() is not None,
            blank_for=self._blank_for(),
            may_come_back=self.may_come_back,
            fight=self.logins.fight,
        )
        return claim_of(facts, self._pace.blank_limit)

    def can_show_code(self) -> str:
        if self.live is Live.OPEN or (self.paired and not self.gone):
            return "not_needed"
        return "yes" if self.code() else "no"

    def compare(self, row: Row | None, age: float) -> str | None:
        """How the list contradicts the state, from the second time on, for a list is always behind.
        None: this list cannot tell."""
        if age > self.seconds():
            return None  # it is older than the state
        before, self._disagreed = self._disagreed, disagreement(self.live, row)
        return self._disagreed if self._disagreed in ("", before) else None

    def is_news(self, shown: Shown) -> bool:
        """Whether the shown code may be a new one."""
        return bool(shown.code) and self.unpaired and not self._codes.was_scanned(shown)

    def is_current(self, shown: Shown) -> bool:
        return self._codes.was_shown(shown)

    def begin(self) -> None:
        """We ask it to connect: its earlier end counts no more."""
        self.logins.asked()
        self._questions.login_begins()
        if self._facts.ended != "client_outdated":
            self._facts.ended = ""
        if self._blank_since is None:
            self._blank_since = self._clock()

    def note_created(self) -> None:
        """The server has just made it: it was never paired."""
        self.note_end("")
        self.awaited = self._facts.gone = False

    def note_live(self, live: Live, *, seen: bool = True) -> None:
        """`seen`: the server says so; else it follows from what we asked."""
        facts = self._facts
        if seen:
            self.logins.note(live, facts.live)
        if live is Live.CLOSE and facts.live is Live.CLOSE:
            # Twice in a row: it is closed, not between two tries of an endless loop.
            self._blank_since = None
            self._closed = self._closed or self.paired
        if live is not facts.live:
            if live is Live.CONNECTING and facts.ended != "client_outdated":
                facts.ended = ""  # it came back by itself
            facts.live, self.since = live, self._clock()
            facts.row, facts.row_known = None, False
        if live is Live.OPEN:
            self._codes.note_scanned()
            facts.ended, facts.paired, facts.lost = "", True, False
            self._blank_since, self._closed = None, False
        elif live is Live.CONNECTING and self._blank_since is None and self.code() is None:
            self._blank_since = self._clock()
        if live is not Live.MISSING:
            self.awaited = facts.gone = False
        else:
            self._codes.newest = self._blank_since = None

    def note_gone(self) -> None:
        """The server has it no more: not one look alone says so."""
        self._facts.gone = self.live is Live.MISSING

    def note_shown(self, shown: Shown) -> None:
        """Take in a code that the server made for this login."""
        if not shown.code and not shown.pairing_code:
            return
        facts = self._facts
        if self._codes.was_shown(shown) and self.code() is None:
            return  # the server goes on showing a code that no phone can scan any more
        # It was paired, it closed and stayed closed, and now the server makes a code for it: a
        # phone or WhatsApp ended the pairing. 1.8 does not say so anywhere.
        facts.lost = facts.lost or (self.paired and self._closed)
        if facts.live is not Live.CONNECTING:
            facts.live, self.since = Live.CONNECTING, self._clock()
        facts.paired, facts.ended, self._blank_since = False, "", None
        self._codes.note_shown(shown, self._clock())

    def note_row(self, row: Row | None) -> None:
        """Take in a row that is newer than the state."""
        facts = self._facts
        facts.row, facts.row_known = row, True
        if row is None:
            return
        facts.account = row.account or facts.account
        self.integration = row.integration
        if facts.live is Live.OPEN:
            if row.status == Live.OPEN:
                facts.open_until = max(facts.open_until, row.updated_wall)
            facts.open_until = max(facts.open_until, row.closed_wall)
        elif not row.live and not (facts.scanned and row.status == Live.CONNECTING):
            facts.paired = is_paired(facts, row)

    def note_event(self, event: hooks.HookEvent) -> bool:
        """Take in a state event of the webhook; True where it changed something."""
        if hooks.is_outdated(event, self._newest):
            return False
        self._newest = event.stamp or self._newest
        match event.kind:
            case "CONNECTION_UPDATE":
                return self._note_change(event)
            case "QRCODE_UPDATED":
                return self._note_code(event)
            case "STATUS_INSTANCE":
                code = hooks.read_end(event.content)
                if code is None:
                    return False
                self._end(code)
                self._facts.paired = False  # only told with the keys deleted
                self._codes.newest = None
            case _:
                # It follows each final close; a reason that is known says more.
                self._facts.ended = self._facts.ended or "logout"
                self._facts.paired = False
        self.note_live(Live.CLOSE)
        return True

    def _note_change(self, event: hooks.HookEvent) -> bool:
        change = hooks.read_state_change(event.content)
        if change is None:
            return False
        self._facts.account = change.account or self._facts.account
        if change.live is Live.REFUSED:
            self.note_end("qr_idle")
        self.note_live(change.live)
        if change.live is Live.CLOSE and change.code is not None:
            self._end(change.code)
        return True

    def _note_code(self, event: hooks.HookEvent) -> bool:
        if hooks.codes_used_up(event.content):
            self.note_end("qr_idle")
            self.note_live(Live.REFUSED)
            return True
        shown = hooks.read_code(event.content)
        if shown is None or self._codes.was_scanned(shown):
            return False
        self.note_shown(shown)  # told when it is made
        return True

    def doubts_pairing(self, *, now: bool) -> bool:
        """Whether to ask for its keys' account: a phone may have scanned the code that is gone, and
        1.8 tells of no pairing."""
        code = self._codes.newest
        if self.live is Live.CONNECTING and self.seconds() < self._pace.login and not now:
            return False  # the question would go into its login, and break it
        if self.unpaired:
            doubt = code is not None and (now or self.code() is None)
        else:
            old = self.logins.old() or self._facts.paired is None
            doubt = old and (now or not self.paired or self.seconds() >= self._pace.blank_limit)
        doubt = doubt and self.live is not Live.OPEN
        return doubt and self._questions.due(code, self._clock(), now)

    def note_account(self, *, has: bool) -> None:
        facts, code = self._facts, self._codes.newest
        if not has:
            facts.lost, facts.paired = facts.lost or self.paired, False
        elif self.unpaired and code is not None and not code.pairing_code:
            facts.paired, facts.code_taken = None, True  # a code to type names the account at once
            self.logins.under_way = True

    def note_end(self, ended: str) -> None:
        self._facts.ended, self._facts.paired = ended, False
        self._codes.newest = None
        self.logins.ended()

    def _end(self, code: int) -> None:
        if self._facts.ended == "qr_idle" and code in (401, 428):
            return  # after the last code the server logs itself out
        self._facts.ended = evolution_reason(code)
        if self._facts.ended == "conflict":
            self.logins.note_conflict()
        if code in FINAL:
            self._facts.paired, self._codes.newest = False, None

    def _blank_for(self) -> float:
        # 1.8's list does not tell a pairing: there the long silence alone must do.
        unknown = self._facts.paired is None and not self._facts.row_known
        return 0.0 if unknown or self._blank_since is None else self._clock() - self._blank_since
