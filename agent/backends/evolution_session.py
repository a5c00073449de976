"""The knowledge of one session on an Evolution server, and the claim that follows. No I/O.

The list's `disconnection*` columns outlive a success: they count only for an end that is newer than
the last time the session was known to be open.
"""

from dataclasses import dataclass, field, replace

from agent.backends.evolution_calls import EvolutionCalls, Live, Row, Shown
from agent.clock import boot_now
from agent.core.words import Claim, ConnectionStatus
from agent.engines import base, whatsapp

Status = ConnectionStatus

CODE_HOLDS = 45.0
"""Seconds for which one QR code can be scanned; Evolution sets it for Baileys."""
BLANK = 25.0
"""Seconds in `connecting` without a code after which 1.8 is asked for the account of its keys."""
LOGIN = 3.0
"""Seconds in `connecting` before which what the server writes for a request may break the login."""
ACCOUNT_AGAIN = 300.0
"""Seconds from the answer whether the keys of a session have an account to the next question."""
UNANSWERED = 25.0
"""Seconds until that is asked again if no answer came in time, or the server did not tell."""
STAYS_CLOSED = 180.0
"""Seconds in `close` after which the server makes no more tries of its own. Before a try it asks
the internet for a version, which takes 130 s where nothing answers; the try takes 20 to 30 s."""
YOUNG = 60.0
"""Seconds for which an open session is looked at in each round."""
_OLD_RESTART = (
    "Evolution API 1.8 ignores a restart of a connecting session; for an open one it opens a second"
    " connection, and the two replace each other endlessly"
)


@dataclass(slots=True, repr=False)
class EvolutionSession:
    name: str
    calls: EvolutionCalls
    adopted: bool = False
    """True if it was on the server before the agent had it."""
    paired: bool | None = None
    """None: not known yet."""
    account: str = ""
    born: float = field(default_factory=boot_now)
    """A list that was asked for earlier is about another session of this name."""
    live: Live | None = None
    since: float = field(default_factory=boot_now)
    """Boot time at which `live` was first seen."""
    row: Row | None = None
    way_out: str | None = None
    row_at: float = float("-inf")
    """Boot time at which the request that brought `row` began."""
    alive: bool | None = None
    """False if the last query in this opening got no answer; None: not asked yet."""
    proved_at: float = 0.0
    """Boot time of that query; of the look, where the server's word is believed."""
    unproved: str = ""
    """Why its proof cannot be asked for: the last query got no answer of WhatsApp's."""
    gone: bool = False
    """It is missing at two looks and in a list between them."""
    owed: bool = False
    """The agent deleted it in order to create it again, and has not done so yet."""
    made: bool = False
    """The agent made it on the server."""
    renewing: bool = False
    begun_at: float = float("-inf")
    """Boot time at which the agent last asked for a login."""
    lost: bool = False
    """A phone or WhatsApp ended its pairing."""
    code_taken: bool = False
    """A phone scanned its code, and it has not opened since."""
    _ended: str = ""
    _open_until: float = 0.0
    """Ends before this moment of the server's clock are old."""
    _code: Shown | None = None
    _code_at: float = 0.0
    _scanned: str = ""
    """The last code before it opened: the server goes on showing it."""
    _closed_since: float | None = None
    _looked_at: float = 0.0
    _tries: bool = False
    """True if it was seen connecting or open, or a login was asked for, since its last end."""
    _under_way: bool = False
    """True if a login may begin: one was asked for without an answer, or a code was scanned."""
    _asked: Shown | None = None
    """The code at the last question for its account."""
    _ask_at: float = float("-inf")
    """Boot time from which that is asked again without another code."""

    @property
    def code(self) -> Shown | None:
        """The code that a phone can scan now."""
        fresh = self.live is Live.CONNECTING and boot_now() - self._code_at < CODE_HOLDS
        return self._code if fresh else None

    @property
    def qr(self) -> base.Qr | None:
        if self.code is None or not self.code.code:
            return None
        left = self._code_at + CODE_HOLDS - boot_now()
        return base.Qr(self.code.code, max(1.0, left), max(1, self.code.count))

    @property
    def end(self) -> str:
        """Why it ended for good, as a reason's code; "" = it did not, or that is not known."""
        row = self.row
        if self._ended or row is None or row.code is None or row.status != Live.CLOSE:
            return self._ended
        if row.closed_wall <= self._open_until:  # it was open since
            return ""
        return whatsapp.code_reason(row.code, row.text)

    @property
    def is_due(self) -> bool:
        """True if it must be looked at soon, not only when a pass probes it."""
        if self.live is not Live.OPEN or not self.alive or boot_now() - self.since < YOUNG:
            return True
        return self.row_at >= self.since and (self.row is None or self.row.status != Live.OPEN)

    @property
    def hangs(self) -> bool:
        """True if it is connecting and never showed a code: it has no pairing and no login that a
        restart could disturb."""
        new = self.paired is False and self._code is None and not self.account
        shown = not self.calls.old and (self.row is None or self.row.status != Live.CLOSE)
        return new and not shown and self.live is Live.CONNECTING

    @property
    def may_come_back(self) -> bool:
        """True if it is closed and the server may connect it by itself."""
        if self.live is not Live.CLOSE or self._looked_closed >= STAYS_CLOSED:
            return False
        return self._under_way or self.paired is not False or (self._tries and not self.end)

    @property
    def _looked_closed(self) -> float:
        return 0.0 if self._closed_since is None else self._looked_at - self._closed_since

    def refuse_login(self, *, restart: bool = False) -> str:
        """Why no login may be asked for now, by GET connect or by a restart; "" = it may. One that
        begins beside the server's own makes two connections that replace each other."""
        if self.live is Live.UNLOADED:
            return "the server has not loaded it; if it stays so, restart the server"
        if restart and self.live in (Live.OPEN, Live.CONNECTING):
            return _OLD_RESTART if self.calls.old or not self.calls.told else ""
        if self.may_come_back:
            return (
                "the server may still connect it by itself, and two logins would replace each other"
                f" without an end; it was seen closed for {self._looked_closed:.0f} s, and"
                f" {STAYS_CLOSED:.0f} s are needed"
            )
        if self.live is not Live.CLOSE and self.paired is not False:
            return f"the session is {self.live}, and its server connects it by itself"
        return ""

    def note_live(self, live: Live) -> None:
        """The server said so at a look."""
        now, before = boot_now(), self.live
        if live is Live.CLOSE:
            self._closed_since = self._closed_since or now
        else:
            self._closed_since, self._under_way = None, False
            self._tries = self._tries or live in (Live.CONNECTING, Live.OPEN)
        if live is Live.MISSING:
            listed = self.row is not None or self.row_at < self.since
            self.gone = self.gone or (before is Live.MISSING and not listed)
            self._code = None
        else:
            self.gone = False
        self._looked_at = now
        if live is not before:
            self.live, self.since, self.alive = live, now, None
        if live is Live.OPEN:
            self._scanned = self._code.code if self._code else self._scanned
            self._code = None
            self._ended, self.paired, self.lost, self.code_taken = "", True, False, False
            if self.row is not None:
                self._open_until = max(self._open_until, self.row.closed_wall)
        elif live in (Live.MISSING, Live.UNLOADED):
            self._tries = self._under_way = False

    def note_row(self, row: Row | None, at: float) -> None:
        """`at`: boot time at which the request for it began."""
        if at < self.born or at < self.row_at:
            return
        self.row, self.row_at, self.way_out = row, at, None
        if row is None:
            return
        self.account, self.way_out = row.account or self.account, row.proxy
        if self.calls.old:
            return
        if row.status == Live.OPEN and self.live is Live.OPEN:
            self._open_until = max(self._open_until, row.closed_wall)
        elif self.live is Live.OPEN:
            return  # the next look tells which of both is newer
        elif self.code_taken and row.status == Live.CONNECTING:
            return  # the row of before the scan
        elif row.status == Live.OPEN or at >= self.since:
            # An older list may tell that a pairing stands; only a newer one that none does.
            self.paired = self._pairing_in(row)

    def _pairing_in(self, row: Row) -> bool | None:
        """A final close and a logout delete the keys and leave the owner's name; a code that is
        shown sets "connecting". None: it says "close" without the number of an end."""
        if not row.account or self._ended in ("logout", "banned", "temporary_ban"):
            return False
        if row.status == Live.CLOSE:
            return False if self.end else None
        return row.status == Live.OPEN

    def note_shown(self, shown: Shown) -> None:
        """A code is new only for a session without a pairing: a session that lost its connection
        shows the code of its last login."""
        if shown.state in (Live.OPEN, Live.CONNECTING, Live.CLOSE):
            self.note_live(Live(shown.state))
        new = self._code is None or self._code.code != shown.code
        if not shown.code or self.paired is not False or shown.code == self._scanned:
            return
        if new:
            self._code_at, self._ended = boot_now(), ""
        if new or shown.pairing_code:
            self._code = shown

    def asks_account(self, *, at_once: bool = False) -> bool:
        """True if the server must be asked whether the keys have an account: a phone may have
        scanned the code that is gone, and 1.8's list tells of no pairing."""
        if self.live not in (Live.CONNECTING, Live.CLOSE):
            return False
        seconds = boot_now() - self.since
        if self.live is Live.CONNECTING and seconds < LOGIN and not at_once:
            return False  # the question would go into its login, and break it
        if self.paired is False:
            doubt = self._code is not None and (at_once or self.code is None)
        elif self.paired is None:
            doubt = True
        else:
            doubt = self.calls.old and (at_once or seconds >= BLANK)
        if doubt and (at_once or self._asked != self._code or boot_now() >= self._ask_at):
            self._asked, self._ask_at = self._code, boot_now() + UNANSWERED
            return True
        return False

    def note_account(self, has: bool | None) -> None:
        if has is not None and self._ask_at > boot_now():  # no login was asked for meanwhile
            self._ask_at = boot_now() + ACCOUNT_AGAIN
        if has is False:
            if self.paired:  # after that end the server makes no tries
                self.lost, self._tries, self._under_way = True, False, False
            self.paired = False
        elif has and self.paired is False and self._code and not self._code.pairing_code:
            # A code to type names the account at once.
            self.paired, self.code_taken, self._under_way = None, True, True
        elif has and self.paired is None and not self.code_taken:
            self.paired = True

    def begin(self) -> None:
        """A login is asked for now."""
        self.begun_at = boot_now()
        self._tries = self._under_way = True
        self._ended = ""
        self.away()
        self._ask_at = float("-inf")

    def answered(self) -> None:
        """The server answers once the login has begun."""
        self._under_way = False
        if self.live is not Live.CONNECTING:
            self.live, self.since = Live.CONNECTING, boot_now()

    def note_end(self, ended: str) -> None:
        self._ended, self.paired, self._code = ended, False, None
        self._tries = self._under_way = False

    def away(self) -> None:
        """The server was away: another session may come back, or one that makes tries again."""
        self.alive = self._closed_since = None

    def claim(self) -> Claim | None:
        """None: the server has said nothing of it yet."""
        if self.live is None:
            return None
        claim = self._claim()
        if self.calls.old and self.live in (Live.CONNECTING, Live.OPEN):
            claim = replace(claim, useless=(*claim.useless, "restart"))
        return replace(claim, made_elsewhere=self.adopted or not self.made)

    def _claim(self) -> Claim:
        if self.renewing:
            return Claim(Status.INITIALIZING, raw="it is created again")
        match self.live:
            case Live.OPEN:
                claim = self._with(Status.CONNECTED)
                age = boot_now() - self.proved_at if self.alive else None
                return replace(claim, proof_age=age, raw="", useless=("reconnect",))
            case Live.CONNECTING:
                return self._connecting()
            case Live.MISSING if self.gone:
                reason = "renewal_unfinished" if self.owed else "remote_missing"
                return Claim(Status.DISCONNECTED, reason, raw="missing")
            case Live.CLOSE if self.may_come_back:
                # Nothing milder can be tried before.
                harsh = () if self.paired is False else ("logout_restart", "cleanup")
                useless = ("reconnect", "restart", *harsh)
                return replace(self._with(Status.INITIALIZING), useless=useless)
            case Live.CLOSE if self.calls.old or self.row_at >= self.since:
                shown = not self.calls.old and self.row and self.row.status == Live.CONNECTING
                # A code was shown, and then it closed without an end.
                reason = self.end or ("qr_idle" if shown else "connection_lost")
                status = Status.QR_REQUIRED if reason == "qr_idle" else Status.DISCONNECTED
                return self._with(status, reason)
            case _:
                return self._with(Status.INITIALIZING)

    def _connecting(self) -> Claim:
        if self.code is not None:
            return self._with(Status.QR_REQUIRED, "logout" if self.lost else "")
        claim = replace(self._with(Status.INITIALIZING), useless=("reconnect",))
        if self.code_taken:
            return replace(claim, phase="pairing")
        # Without a connection a logout is answered with success and changes nothing.
        return replace(claim, useless=("reconnect", "logout_restart")) if self.paired else claim

    def _with(self, status: ConnectionStatus, reason: str = "") -> Claim:
        claim = Claim(status, reason, account=self.account, raw=str(self.live or ""))
        return replace(claim, paired=self.paired is True, pairing_unknown=self.paired is None)
