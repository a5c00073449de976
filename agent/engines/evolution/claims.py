"""From what the server says of one session to a Claim.

The list's `disconnection*` columns outlive a success, so they count only for an end that is newer
than the last time the session was known to be open.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from agent.core.words import Claim, ConnectionStatus
from agent.engines.evolution.rows import Row
from agent.engines.reason_codes import evolution_reason

Status = ConnectionStatus

_UNPAIRED = ("logout", "banned", "account_locked", "temporary_ban")
_USELESS = ("reconnect",)
"""While it connects, GET connect only shows the code that there is; on an open one, its state."""


class Live(StrEnum):
    """A session's state as the server's process has it."""

    OPEN = "open"
    CONNECTING = "connecting"
    CLOSE = "close"
    REFUSED = "refused"
    """Told by the webhook alone: no phone scanned the last code."""
    UNLOADED = "not loaded"
    """The database holds the session and the server's process does not (yet)."""
    MISSING = "missing"


@dataclass(slots=True)
class Facts:
    live: Live = Live.MISSING
    row: Row | None = None
    """Read after the state; None = the session has none, or none was read."""
    row_known: bool = False
    """`row` was read, or the server has no rows (1.8)."""
    ended: str = ""
    """Why the session ended, as the webhook told it."""
    paired: bool | None = False
    """None: the server has not told."""
    account: str = ""
    code_shown: bool = False
    code_taken: bool = False
    """The session showed a code, and now its keys have an account: a phone scanned it."""
    blank_for: float = 0.0
    """Seconds in which the session has connected and shown no code."""
    open_until: float = 0.0
    """Ends before this moment of the server's clock are old: the session was open later."""
    gone: bool = False
    """The session is missing by the server's list too, and by a second look."""
    awaited: bool = False
    """The agent asked for its creation; the server may need a minute."""
    lost: bool = False
    """A phone or WhatsApp ended its pairing."""
    may_come_back: bool = False
    """The session closed a short time ago, and the server may connect it by itself."""
    fight: bool = False
    """Two connections of it replace each other."""

    @property
    def scanned(self) -> bool:
        """A phone scanned its code, and whether the pairing is complete is not known."""
        return self.code_taken and self.paired is None


def claim_of(facts: Facts, blank_limit: float) -> Claim:
    """The claim that follows from these facts."""
    if facts.fight:
        return _with(facts, Status.DISCONNECTED, "two_connections")
    match facts.live:
        case Live.OPEN:
            return Claim(
                Status.CONNECTED,
                proof_age=0.0,
                paired=True,
                account=facts.account,
                useless=_USELESS,
            )
        case Live.MISSING if facts.awaited:
            return Claim(Status.INITIALIZING, raw="its creation is not answered yet")
        case Live.MISSING if not facts.gone:
            return _with(facts, Status.INITIALIZING)  # one look ends no pairing
        case Live.MISSING:
            return Claim(Status.DISCONNECTED, "remote_missing", raw="missing")
        case Live.UNLOADED:
            return _with(facts, Status.INITIALIZING)
        case Live.REFUSED:
            return _with(facts, Status.QR_REQUIRED, "qr_idle", paired=False)
        case Live.CONNECTING:
            return _connecting(facts, blank_limit)
        case Live.CLOSE if _blank(facts, blank_limit) and not facts.ended:
            # Between two tries of an endless loop.
            return _with(facts, Status.INITIALIZING)
        case Live.CLOSE if facts.may_come_back and not facts.ended:
            claim = _with(facts, Status.INITIALIZING)
            return replace(claim, useless=("reconnect", "restart"))
        case Live.CLOSE:
            return _closed(facts)


def came_back(heard: Live | None, live: Live) -> bool:
    """Whether an end decided on by the state `heard` must not be carried out in this one."""
    return heard is Live.MISSING or (live is Live.OPEN and heard not in (None, Live.OPEN))


def fresh_end(row: Row | None, open_until: float) -> int | None:
    """WhatsApp's number of the last final close, where the session was not open since."""
    if row is None or row.code is None or row.status != Live.CLOSE:
        return None  # the session was open, or showed a code, since
    return row.code if row.closed_wall > open_until else None


def is_paired(facts: Facts, row: Row) -> bool | None:
    """Whether the row tells of a pairing that still stands; None: it does not tell."""
    if not row.account or facts.ended in _UNPAIRED:
        return False
    if row.status == Live.CLOSE and fresh_end(row, facts.open_until) is None:
        return None  # the server writes this with the number of an end, and there is none
    # A final close and a logout delete the keys and leave the owner's name; a code that is
    # shown sets "connecting".
    return row.status == Live.OPEN and fresh_end(row, facts.open_until) is None


def disagreement(live: Live, row: Row | None) -> str:
    """The sentence on how the list contradicts the live state; "" = they agree."""
    if live is Live.UNLOADED:
        return "the server's database holds the session and its process does not"
    if live is Live.MISSING:
        return "the server's list shows a session that it does not have" if row is not None else ""
    if row is None:
        return f"the session is {live} and the server's list does not show it"
    if row.live or row.status == live:
        return ""
    # The server's own reconnects leave "open" in the row; a last code without a scan "connecting".
    if live is Live.OPEN or (live is Live.CLOSE and row.status == Live.OPEN):
        return f"the server's list says {row.status:.20} and the session is {live}"
    return ""


def _connecting(facts: Facts, blank_limit: float) -> Claim:
    if facts.code_shown:
        return _with(facts, Status.QR_REQUIRED, "logout" if facts.lost else "", paired=False)
    if fresh_end(facts.row, facts.open_until) == 405 or facts.ended == "client_outdated":
        return _with(facts, Status.DISCONNECTED, "client_outdated")
    if facts.scanned:
        return replace(_with(facts, Status.INITIALIZING), phase="pairing", useless=_USELESS)
    # Paired and not connected it cannot tell WhatsApp that it goes: a logout is answered with
    # success and changes nothing.
    useless = (*_USELESS, "logout_restart") if facts.paired else _USELESS
    claim = replace(_with(facts, Status.INITIALIZING), useless=useless)
    # A connection or a code comes within seconds, unless WhatsApp refuses the client (405) or
    # cannot be reached. Both servers try again and again then, and say neither in an answer, in a
    # row, nor through the webhook.
    hangs = facts.blank_for >= blank_limit
    return replace(claim, guess="client_outdated") if hangs else claim


def _blank(facts: Facts, blank_limit: float) -> bool:
    return not facts.paired and facts.blank_for >= blank_limit


def _closed(facts: Facts) -> Claim:
    row = facts.row
    if facts.ended:
        reason = facts.ended
    elif not facts.row_known:
        # The next probe reads the row, which tells why; until then the agent does nothing.
        return _with(facts, Status.INITIALIZING)
    elif row is not None and (code := fresh_end(row, facts.open_until)) is not None:
        reason = evolution_reason(code, row.text)
    elif row is not None and not row.live and row.status == Live.CONNECTING:
        reason = "qr_idle"  # a code was shown, and then it closed without an end
    else:
        reason = "connection_closed"
    if reason == "qr_idle":
        return _with(facts, Status.QR_REQUIRED, reason, paired=False)
    return _with(facts, Status.DISCONNECTED, reason)


def _with(
    facts: Facts, status: ConnectionStatus, reason: str = "", *, paired: bool | None = None
) -> Claim:
    return Claim(
        status,
        reason,
        paired=bool(facts.paired) if paired is None else paired,
        pairing_unknown=facts.paired is None and paired is None,
        account=facts.account,
        raw=str(facts.live),
    )
