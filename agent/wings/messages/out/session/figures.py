"""What the outbox counts: of each session what waits and how it ended, of all together why messages
failed and how long WhatsApp took."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from agent.core.model import InstanceId
from agent.metrics.text import COUNTER, GAUGE, HISTOGRAM, Family, histogram_lines, sample
from agent.wings.messages.out.states import State

WAITING = Family("wa_outbox_waiting", GAUGE, "Messages that wait to be sent, by session.")
OLDEST = Family(
    "wa_outbox_oldest_timestamp_seconds",
    GAUGE,
    "When the oldest message that waits to be sent was accepted; absent without one.",
)
MESSAGES = Family(
    "wa_outbox_messages_total",
    COUNTER,
    "Messages that left the outbox, by session and how they ended.",
)
FAILED = Family("wa_outbox_failed_total", COUNTER, "Messages that failed, by reason.")
SECONDS = Family(
    "wa_outbox_acknowledgement_seconds",
    HISTOGRAM,
    "Time from accepted until WhatsApp's server had a message, whatever it waited for.",
)
BOUNDS = (1, 5, 30, 300, 3600, 86_400)
ENDS = (State.SENT, State.FAILED, State.EXPIRED, State.CANCELLED)
OTHER = "other"
REASONS = ("unknown", "refused", "not_sent", "number_unknown", "other_account", OTHER)
"""Counted from zero on; other codes of ours and of engines as they come."""
MOST_REASONS = 40


@dataclass(frozen=True, slots=True)
class SessionOutbox:
    """Of one session, since the agent's start."""

    waiting: int = 0
    oldest_wall: float | None = None
    ended: Mapping[State, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Of those that failed."""
    sent_wall: float | None = None
    """When the last one was sent."""


@dataclass(frozen=True, slots=True)
class OutboxFigures:
    sessions: Mapping[InstanceId, SessionOutbox] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)
    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    total: float = 0.0


@dataclass(slots=True)
class _Counted:
    ended: Counter[State] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    sent_wall: float | None = None


class OutboxCounts:
    def __init__(self) -> None:
        self._sessions: dict[InstanceId, _Counted] = {}
        self._failed: Counter[str] = Counter()
        self._counts = [0] * (len(BOUNDS) + 1)
        self._total = 0.0

    def note(
        self, id: InstanceId, state: State, reason: str, accepted_wall: float, now: float
    ) -> None:
        """One has ended."""
        its = self._sessions.setdefault(id, _Counted())
        if state.left:
            took = max(now - accepted_wall, 0.0)
            self._counts[bisect_left(BOUNDS, took)] += 1
            self._total += took
            its.sent_wall = now
        its.ended[State.SENT if state.left else state] += 1
        if state is State.FAILED:
            _count(its.reasons, reason)
            _count(self._failed, reason)

    def forget(self, id: InstanceId) -> None:
        """It was deleted."""
        self._sessions.pop(id, None)

    def figures(
        self,
        ids: Iterable[InstanceId],
        waiting: Callable[[InstanceId], tuple[int, float | None]],
    ) -> OutboxFigures:
        sessions = {id: self.of(id, *waiting(id)) for id in ids}
        return OutboxFigures(sessions, self._failed, tuple(self._counts), self._total)

    def of(
        self, id: InstanceId, waiting: int = 0, oldest_wall: float | None = None
    ) -> SessionOutbox:
        its = self._sessions.get(id, _NOTHING)
        return SessionOutbox(waiting, oldest_wall, its.ended, its.reasons, its.sent_wall)


_NOTHING = _Counted()


def _count(reasons: Counter[str], reason: str) -> None:
    known = reason in reasons or len(reasons) < MOST_REASONS
    reasons[reason if known else OTHER] += 1


def outbox_samples(figures: OutboxFigures) -> Iterator[tuple[Family, str]]:
    sessions = figures.sessions.items()
    yield (
        WAITING,
        "".join(sample(WAITING.name, its.waiting, session=id) for id, its in sessions),
    )
    yield (
        OLDEST,
        "".join(
            sample(OLDEST.name, its.oldest_wall, session=id)
            for id, its in sessions
            if its.oldest_wall is not None
        ),
    )
    yield (
        MESSAGES,
        "".join(
            sample(MESSAGES.name, its.ended.get(state, 0), session=id, state=state.value)
            for id, its in sessions
            for state in ENDS
        ),
    )
    yield (
        FAILED,
        "".join(
            sample(FAILED.name, figures.failed.get(reason, 0), reason=reason)
            for reason in dict.fromkeys((*REASONS, *figures.failed))
        ),
    )
    bounds = (f"{bound:g}" for bound in BOUNDS)
    yield SECONDS, histogram_lines(SECONDS.name, bounds, figures.counts, figures.total)
