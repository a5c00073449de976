"""The rules of webhooks: which entry goes to which webhook, the body, the meaning of an answer, the
wait. A webhook is a cursor into the journal."""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from agent.core.breaker import BreakerPolicy, BreakerState
from agent.core.event_json import show_event
from agent.core.model import InstanceId, JournalEntry

OWN_KINDS = "webhook"
"""Kinds that begin so are about webhooks themselves; `detail` names which."""
LONGEST_RETRY_AFTER = 3600.0
"""A target may ask for a wait of so many seconds at most."""


class Result(StrEnum):
    """What became of an entry, or of a try; also the metric's label."""

    DELIVERED = "delivered"
    FAILED = "failed"
    DEAD = "dead"
    EXPIRED = "expired"


class Answer(StrEnum):
    TAKEN = "taken"
    LATER = "later"
    """Not now: the target is away, slow, or has too much to do."""
    REFUSED = "refused"
    """The target answered, and refuses this entry."""


class WebhookState(StrEnum):
    IDLE = "idle"
    """Everything is delivered."""
    SENDING = "sending"
    FAILING = "failing"
    """The last try failed; the next one waits for its time."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How a target that fails is tried again. Seconds."""

    first: float = 1.0
    longest: float = 300.0
    circuit_failures: int = 5
    circuit_pause: float = 60.0

    @property
    def circuit(self) -> BreakerPolicy:
        return BreakerPolicy(self.circuit_failures, self.circuit_pause)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry that its target refused for good; the journal still has it."""

    cursor: int
    kind: str
    instance: str | None
    wall: float
    problem: str
    at_wall: float
    message_id: str = ""
    """WhatsApp's id, where it was a message; its text is nowhere but in its session."""


@dataclass(frozen=True, slots=True)
class WebhookView:
    name: str
    url: str
    """Without path and query: either may be the key."""
    state: WebhookState = WebhookState.IDLE
    circuit: BreakerState = BreakerState.CLOSED
    cursor: int = 0
    """All entries up to this one are settled."""
    waiting: int = 0
    oldest_wall: float | None = None
    """When the oldest entry that waits happened; None: none waits."""
    problem: str = ""
    """Why the last try failed; "" when it did not."""
    next_try_wall: float | None = None
    delivered_wall: float | None = None
    """The last delivery since the agent began."""
    dead: int = 0
    messages: int | None = None
    """How many of those that wait are records of messages; None: it gets none."""


@dataclass(frozen=True, slots=True)
class WebhookFigures:
    results: Mapping[str, int] = field(default_factory=dict)
    waiting: int = 0
    oldest_wall: float | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """The target's answer to the test event that an operator sent."""

    delivered: bool
    status: int | None
    problem: str
    seconds: float
    said: str
    """The beginning of the answer's text."""


def wants(name: str, kinds: Sequence[str], instances: Sequence[str], entry: JournalEntry) -> bool:
    """Whether that webhook is sent that entry; never an entry about itself, or it would go
    round."""
    if entry.kind.startswith(OWN_KINDS) and entry.detail.get("webhook") == name:
        return False
    if not any(fnmatchcase(entry.kind, pattern) for pattern in kinds):
        return False
    if entry.instance is None:
        return "*" in instances
    return any(fnmatchcase(entry.instance, pattern) for pattern in instances)


def body_of(entry: JournalEntry, machine: str, version: str) -> bytes:
    """The entry as the API shows it, with its machine and version."""
    shown = show_event(entry)
    sent = {"id": shown.pop("cursor"), **shown, "machine": machine, "agent": version}
    try:
        return json.dumps(sent, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        # An infinite number is no JSON; the entry is sent without its detail, not held up.
        return json.dumps({**sent, "detail": {}}, separators=(",", ":")).encode()


def delivery_name(entry: JournalEntry) -> str:
    """The same each time that entry is sent, and never another's: a new journal counts from 1
    again, so the number alone would not do."""
    return f"{entry.cursor}-{round(entry.wall * 1000)}"


def body_of_record(id: InstanceId, record: Mapping[str, Any], machine: str, version: str) -> bytes:
    """What arrived in a session, as the API shows it, with its session, machine and version."""
    sent = {**record, "instance": id, "machine": machine, "agent": version}
    return json.dumps(sent, separators=(",", ":")).encode()


def record_delivery(id: InstanceId, record: Mapping[str, Any]) -> str:
    """As `delivery_name`."""
    kept = record.get("kept") or record.get("since") or 0.0
    return f"{id}-{record.get('cursor', 0)}-{round(kept * 1000)}"


def sign(secret: bytes, moment: int, body: bytes) -> str:
    """The X-WA-Signature header. The time is signed too, so that a copy cannot be sent later."""
    signed = hmac.new(secret, f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={signed}"


def judge_answer(status: int) -> Answer:
    if 200 <= status < 300:
        return Answer.TAKEN
    if status in (408, 425, 429) or status >= 500:
        return Answer.LATER
    # A redirect too: it is not followed, for it may lead anywhere.
    return Answer.REFUSED


def retry_after(text: str | None, now_wall: float) -> float:
    """The seconds that a Retry-After header asks for, within bounds; 0 = none."""
    if not text or len(text) > 64:
        return 0.0
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    else:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now_wall
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
