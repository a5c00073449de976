"""One reason why a session ended: how it is shown, and whether and when it is tried again."""

import re
from dataclasses import dataclass
from enum import StrEnum

from agent.core.model import ConnectionStatus

_ID = re.compile(r"\bID\b")
"""Stands for the instance in an advice."""


class Permanence(StrEnum):
    """Whether the agent tries again by itself, and how."""

    RETRY = "retry"
    AT_ONCE = "at_once"
    AT_TIME = "at_time"
    ONCE_IF_LOCK_OURS = "once_if_lock_ours"
    PROBE_SLOWLY = "probe_slowly"
    WAIT_FOR_PERSON = "wait_for_person"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Reason:
    code: str
    title: str
    advice: str
    """What a person should know or do."""
    permanence: Permanence = Permanence.RETRY
    status: ConnectionStatus = ConnectionStatus.RECONNECTING
    """What an instance shows while this is its last word."""
    base: float | None = None
    """First delay in seconds; None = the policy's own."""
    max: float | None = None
    tries: int | None = None
    """Tries until a connection lasts; None = as many as the policy allows."""
    endless: bool = False
    """Tried for as long as it lasts, whatever the count of attempts: no login was reached."""
    fresh_worker: bool = False
    """Reconnecting inside the worker is useless: only a new worker helps."""
    local: bool = False
    """Its cause is on this machine: many at once say nothing about WhatsApp or the way to it, the
    circuit breaker does not count it, and no pause is longer than a minute."""
    unpairs: bool = False
    """WhatsApp no longer knows the pairing: its files are evidence, not a session."""
    detailed: bool = False
    """The engine's words say what came (HTTP status, address, title) and belong to the title."""
    scan_again: bool = False
    """Only a new scan by a person is missing."""

    @property
    def final(self) -> bool:
        """WhatsApp ended it for good: the agent makes not even one more login."""
        return self.permanence is Permanence.NEVER

    def advice_for(self, id: str) -> str:
        """The advice, its commands for this instance."""
        return _ID.sub(lambda _: id, self.advice)

    def in_full(self, id: str, more: str = "") -> str:
        """What is wrong with this instance, and what to type."""
        return f"{self.title}{more and f': {more}'}. {self.advice_for(id)}"

    def title_with(self, raw: str) -> str:
        return f"{self.title}: {raw}" if self.detailed and raw else self.title

    @property
    def counts_as_failure(self) -> bool:
        """True if the circuit breaker counts it: a login failed that the agent tries again."""
        spared = self.local or self.endless or self.unpairs or self.hopeless or self.slow
        waits = self.permanence is Permanence.AT_TIME or self.status is ConnectionStatus.QR_REQUIRED
        return not (spared or waits)

    @property
    def slow(self) -> bool:
        """The agent goes on trying, ever more rarely; a person should act."""
        return self.permanence is Permanence.PROBE_SLOWLY

    @property
    def hopeless(self) -> bool:
        """Only a person can end this one."""
        return self.permanence in (Permanence.NEVER, Permanence.WAIT_FOR_PERSON)
