"""States of a message that is sent, and what a failed try means for it and its session. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from agent.core import model, session
from agent.errors import EngineError, InvalidRequest, Refused, TooLarge, TryLater, WaError


class State(StrEnum):
    ACCEPTED = "accepted"
    """On the disk; no try of it can have left."""
    SENDING = "sending"
    """A try is under way, or may have sent it."""
    SENT = "sent"
    """WhatsApp has it."""
    DELIVERED = "delivered"
    READ = "read"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    """It may have gone out, and is never sent again."""


WAITING = (State.ACCEPTED, State.SENDING)
LEFT = (State.SENT, State.DELIVERED, State.READ)
"""States in their order: an acknowledgement moves a message forward only."""

UNSURE = "unknown_outcome"
"""The code of a try that may have sent the message."""
REFUSED = "refused"
TIME_LOCK = "restricted"
"""The session's reason while WhatsApp lets it answer known chats only (error 463)."""
_OF_SESSION = (
    *("not_connected", "not_running", "stopping", "not_ready", "busy", "suspect", TIME_LOCK),
    *("remote_missing", "other_account", "closed", "not_found"),
)
_PERHAPS_FINAL = ("not_sent", "page_error", "remote_refused", "url_unreachable")
_STATES = (
    *("not_supported", "remote_missing", "number_unknown"),
    *("chat_not_found", "message_not_found", "invalid_wid"),
)
"""Codes of an engine: the request is right, and what it is about does not allow it."""
_FINAL = (*_STATES, "invalid_request", "file_too_large", "too_large", "file_lost", REFUSED)

MOST_TRIES = 10
"""Tries after which such a refusal counts as the message's own fault: about half an hour."""
FIRST, LONGEST, SESSION_LONGEST = 2.0, 300.0, 30.0
"""Seconds to the second try, between two of one message, and between two of a session."""
LOCKED = "WhatsApp lets the account answer known chats only (error 463)"
LOCK_TRY = 3600.0
"""Seconds between two messages that are tried in a time lock of which WhatsApp told no end."""


def judge(code: str, words: str, tries: int) -> Literal["final", "session", "again", "unknown"]:
    """The meaning of a failed try, the `tries`-th of its message; `words` are the engine's.
    `final`: no later try ends otherwise; `session`: it cannot send now, and all its messages wait;
    `again`: this one is tried again, others go on."""
    if code == UNSURE:
        return "unknown"
    if is_time_lock(code, words) or code in _OF_SESSION:
        return "session"
    if code in _FINAL or (code in _PERHAPS_FINAL and tries >= MOST_TRIES):
        return "final"
    return "again"


def is_time_lock(code: str, words: str) -> bool:
    return code == TIME_LOCK or (code == REFUSED and "error 463" in words)


def after_ack(state: State, ack: str) -> State:
    if ack == "error":
        return State.FAILED if state is State.SENT else state
    reached = {"server": "sent", "played": "read"}.get(ack, ack)
    forward = {state, reached} <= {*LEFT}
    return max(state, State(reached), key=LEFT.index) if forward else state


def next_try(tries: int, jitter01: float, longest: float = LONGEST) -> float:
    """Seconds to wait after this number of tries: doubled each time, the second half of it by
    chance."""
    return min(FIRST * 2.0 ** min(tries - 1, 20), longest) * (0.5 + 0.5 * jitter01)


def refusal_of(engine: str, error: WaError) -> WaError:
    """The engine's refusal as an error: wrong, not supported, or not in this state."""
    if error.code in ("not_connected", "not_running", "stopping"):
        return TryLater(str(error), code=error.code)
    if not isinstance(error, EngineError):
        return error
    if error.code == "invalid_request":
        if error.field != "type":
            return InvalidRequest(str(error), field=error.field or "body")
        return Refused(f"{error} ({engine})", field="type", code="not_supported")
    if error.code == "file_too_large":
        return TooLarge(str(error), field="content", code=error.code)
    return Refused(str(error), code=error.code) if error.code in _STATES else error


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a session sends nothing now."""

    code: str
    sentence: str
    until_wall: float | None = None
    """Unix time of the end of the hold; None: until the session changes."""
    refusal: str = "not_connected"
    """The code for a client that waits for its message."""


@dataclass(slots=True)
class Holds:
    """The one rule that holds a session: what it shows of itself, and what it refused. Each `now`
    is a boot time."""

    careful: bool = False
    """True from a time lock until WhatsApp takes a message: one is sent at a time."""
    _until: float = 0.0
    _refused: tuple[str, str] = ("", "")
    _refusals: int = 0
    """Refusals in a row."""
    _seen_locked: bool = False
    """True if the session itself said that it is locked: it will say when it is not."""

    def find(self, view: session.Session | None, now: float, wall: float) -> Hold | None:
        if view is None:
            return Hold("not_found", "its session is not on this machine", refusal="not_found")
        if view.status is not model.ConnectionStatus.CONNECTED or not view.linked:
            said = f"the session is {view.status.value}: {view.verdict.sentence}"
            said = "its worker cannot be reached" if view.status == "CONNECTED" else said
            refusal = "not_connected" if view.linked else "not_running"
            return Hold(view.reason or "not_connected", said, view.next_attempt_wall, refusal)
        locked = view.reason == TIME_LOCK
        if locked and not self._seen_locked:
            self._seen_locked = self.careful = True
            self._until = max(self._until, now + LOCK_TRY)
            self._refused = TIME_LOCK, LOCKED
        elif self._seen_locked and not locked:
            self.sent()
        told = view.claim.claim.until_wall if locked and view.claim else None
        until = told if told is not None and wall < told else wall + self._until - now
        if wall >= until:
            return None
        (code, sentence), again = self._refused, session.wall_text(until)
        return Hold(code, f"{sentence}; the next one is tried at {again}", until, code)

    def refuse(self, code: str, sentence: str, now: float, jitter01: float) -> None:
        """Note that the session looked well and refused."""
        self.careful |= is_time_lock(code, sentence)
        self._refusals += 1
        wait = LOCK_TRY if self.careful else next_try(self._refusals, jitter01, SESSION_LONGEST)
        self._until, self._refused = now + wait, (code, sentence)

    def changed(self) -> None:
        """Note that the session changed, which lifts no time lock."""
        if not self.careful:
            self._until = 0.0

    def sent(self) -> None:
        """Note that WhatsApp took a message: refusals and locks are over."""
        self._until, self._refusals = 0.0, 0
        self.careful = self._seen_locked = False
