"""Why a session sends nothing now. Pure."""

from dataclasses import dataclass, replace

from agent.core.event_json import wall_text
from agent.core.model import ConnectionStatus
from agent.core.view import InstanceView
from agent.wings.messages.out.states import TIME_LOCK, Pace, next_try

LOCK_TRY = 3600.0
"""Seconds after which one message is tried in a time lock of which WhatsApp told no end."""


@dataclass(frozen=True, slots=True)
class Hold:
    code: str
    sentence: str
    until_wall: float | None = None
    """None: until the session changes."""


@dataclass(slots=True)
class SessionHolds:
    """Of one session: by what is shown of it, and by what it refused."""

    _refused: Hold | None = None
    """It looked well and refused."""
    _refusals: int = 0
    """In a row."""
    _locked_wall: float = 0.0
    """When it was seen in its time lock, or refused for it, last; 0 = it is in none."""
    careful: bool = False
    """WhatsApp refused a message for a time lock, and has taken none since: one at a time."""
    _seen_locked: bool = False
    """The session itself said so, and will say when it is over."""

    def find(self, view: InstanceView | None, now: float) -> Hold | None:
        if view is None:
            return Hold(
                "not_found", "its session is not on this machine; its messages go where it is"
            )
        if view.status is not ConnectionStatus.CONNECTED or not view.linked:
            why = f": {view.sentence}" if view.sentence else ""
            sentence = f"the session is {view.status.value}{why}"
            return Hold(view.reason or "not_connected", sentence, view.next_attempt_wall)
        if view.reason == TIME_LOCK:
            self._seen_locked = True
            return self._find_lock(view, now)
        if self._seen_locked:
            self.forgive(well=True)
        if self._refused is not None and now < (self._refused.until_wall or 0.0):
            return self._refused
        self._locked_wall = 0.0
        return None

    def refuse(self, code: str, sentence: str, now: float, pace: Pace, jitter01: float) -> None:
        self._refusals += 1
        wait = next_try(self._refusals, pace.session_longest, pace, jitter01)
        if code == TIME_LOCK or self._locked_wall:
            wait = LOCK_TRY
        self._refused = Hold(code, sentence, now + wait)

    def lock(self, now: float) -> None:
        """WhatsApp refused a message with error 463."""
        self._locked_wall = now
        self.careful = True

    def forgive(self, *, well: bool = False) -> None:
        """The session changed, or (`well`) has sent a message."""
        if not self._locked_wall or well:
            self._refused = None
        if well:
            self._refusals, self._locked_wall, self._seen_locked = 0, 0.0, False
            self.careful = False

    def move(self, step: float) -> None:
        """The clock was set."""
        if self._locked_wall:
            self._locked_wall += step
        if self._refused is not None and self._refused.until_wall:
            self._refused = replace(self._refused, until_wall=self._refused.until_wall + step)

    def _find_lock(self, view: InstanceView, now: float) -> Hold | None:
        self._locked_wall = self._locked_wall or now
        told = view.claim.claim.until_wall if view.claim is not None else None
        until = told if told and now < told else self._locked_wall + LOCK_TRY
        if now >= until:
            return None
        ends = f" until {wall_text(told)}" if told else ""
        return Hold(
            TIME_LOCK,
            f"WhatsApp lets the account answer known chats only (error 463){ends}; the next"
            f" message is tried at {wall_text(until)}",
            until,
        )
