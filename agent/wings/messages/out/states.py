"""What becomes of a message: its states, what an engine's refusal means for it, when it is tried
again. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    ACCEPTED = "accepted"
    """On the disk; it waits, or is being sent."""
    SENT = "sent"
    """WhatsApp has it."""
    DELIVERED = "delivered"
    READ = "read"
    PLAYED = "played"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def left(self) -> bool:
        """Whether WhatsApp has it."""
        return self in _AFTER_SENT


_AFTER_SENT = (State.SENT, State.DELIVERED, State.READ, State.PLAYED)
"""In their order: a message goes forward only."""
_ACKS: Mapping[str, State] = {
    "server": State.SENT,
    "delivered": State.DELIVERED,
    "read": State.READ,
    "played": State.PLAYED,
}
ACK_OF_REFUSAL = "error"

UNKNOWN = "unknown"
"""The reason of a failed message that may have gone out."""
UNKNOWN_OUTCOME = "unknown_outcome"
"""The code of a try of which nobody can tell whether it went out."""
REFUSED = "refused"
FILE_LOST = "file_lost"

TIME_LOCK = "restricted"
"""The session's reason while WhatsApp lets it answer known chats only (error 463)."""
_TIME_LOCK_ERROR = "error 463"

_FINAL = frozenset(
    {
        *("invalid_request", "not_supported", "file_too_large", "too_large", "number_unknown"),
        *("chat_not_found", "message_not_found", "invalid_wid", FILE_LOST, REFUSED),
    }
)
"""Codes that are about the message itself: no later try ends otherwise."""
_OF_SESSION = frozenset(
    {
        *("not_connected", "not_running", "stopping", "not_ready", "busy", "suspect"),
        *("remote_missing", "other_account", "backend_unreachable", "closed", "not_found"),
        TIME_LOCK,
    }
)
"""Codes that are about the session: every message of it waits."""
_PERHAPS_FINAL = frozenset({"not_sent", "page_error", "remote_refused", "url_unreachable"})
MOST_TRIES = 10
"""Tries after which such a refusal counts as the message's own fault: about half an hour."""


class Judgement(StrEnum):
    FINAL = "final"
    SESSION = "session"
    """The session is in no state to send: all its messages wait."""
    AGAIN = "again"
    """This message is tried again; others go on."""
    UNKNOWN = "unknown"


def judge(code: str, words: str, tries: int) -> Judgement:
    """What a failed try means; `words` are the engine's, `tries` counts this one."""
    if code == UNKNOWN_OUTCOME:
        return Judgement.UNKNOWN
    if is_time_lock(code, words) or code in _OF_SESSION:
        return Judgement.SESSION
    if code in _FINAL or (code in _PERHAPS_FINAL and tries >= MOST_TRIES):
        return Judgement.FINAL
    return Judgement.AGAIN


def is_time_lock(code: str, words: str) -> bool:
    return code == TIME_LOCK or (code == REFUSED and _TIME_LOCK_ERROR in words)


def after_ack(state: State, ack: str) -> State:
    """An acknowledgement moves a message forward; a late one of an earlier step changes nothing."""
    if ack == ACK_OF_REFUSAL:
        return State.FAILED if state is State.SENT else state
    reached = _ACKS.get(ack)
    if reached is None or not state.left:
        return state
    return max(state, reached, key=_AFTER_SENT.index)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between tries."""

    first: float = 2.0
    longest: float = 300.0
    session_longest: float = 30.0
    """Of a session that looks well and refuses."""


def next_try(tries: int, longest: float, pace: Pace, jitter01: float) -> float:
    """Seconds to wait after so many tries: doubled each time, the second half of it by chance."""
    wait = min(pace.first * 2.0 ** min(tries - 1, 20), longest)
    return wait * (0.5 + 0.5 * jitter01)
