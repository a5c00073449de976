"""What sessions keep of what arrived, and what became of messages to send."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from agent.core.model import InstanceId
from agent.messages.outbox import OutMessage
from agent.messages.outcomes import State
from agent.messages.sending import ENDS, Counts, Sending
from agent.metrics.text import COUNTER, GAUGE, HISTOGRAM, Family, histogram_lines, sample

KEPT = {
    "waiting": Family(
        "wa_messages_waiting", GAUGE, "Kept records that not all who get them have, by session."
    ),
    "bytes": Family("wa_messages_bytes", GAUGE, "Size of the kept records, by session."),
    "lost": Family(
        "wa_messages_lost_total",
        COUNTER,
        "Records that were dropped before all who get them had them, by session.",
    ),
    "media_files": Family(
        "wa_messages_media_files", GAUGE, "Files of messages that are kept, by session."
    ),
    "media_bytes": Family(
        "wa_messages_media_bytes", GAUGE, "Size of the files of messages that are kept, by session."
    ),
}
"""By the figure of the reader."""
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
FAILED = Family("wa_outbox_failed_total", COUNTER, "Messages that failed or may have, by reason.")
SECONDS = Family(
    "wa_outbox_acknowledgement_seconds",
    HISTOGRAM,
    "Time from accepted until WhatsApp's server had a message, whatever it waited for.",
)
BOUNDS = (1, 5, 30, 300, 3600, 86_400)
REASONS = ("unknown", "refused", "not_sent", "number_unknown", "other_account", "other")
"""Counted from zero on; other codes of ours and of engines as they come."""
MOST_REASONS = 40


def message_samples(
    figures: Mapping[InstanceId, Mapping[str, int]],
) -> Iterator[tuple[Family, str]]:
    for name, family in KEPT.items():
        lines = (sample(family.name, its[name], session=id) for id, its in figures.items())
        yield family, "".join(lines)


class OutboxMetrics:
    """Of all sessions together, since the agent's start, and those of each that `Sending` has."""

    def __init__(self) -> None:
        self._failed = Counter(dict.fromkeys(REASONS, 0))
        self._counts = [0] * (len(BOUNDS) + 1)
        self._total = 0.0

    def note(self, row: OutMessage, state: State, reason: str) -> None:
        """One has ended."""
        if state.left:
            took = max(time.time() - row.accepted_wall, 0.0)
            self._counts[bisect_left(BOUNDS, took)] += 1
            self._total += took
        elif state in (State.FAILED, State.UNKNOWN):
            known = reason in self._failed or len(self._failed) < MOST_REASONS
            self._failed[reason if known else "other"] += 1

    def samples(
        self, sending: Sending, sessions: Iterable[InstanceId]
    ) -> Iterator[tuple[Family, str]]:
        waiting, oldest, ended = [], [], []
        for id in sessions:
            sender = sending.senders.get(id)
            first = None if sender is None else sender.oldest()
            waiting.append(sample(WAITING.name, sender.count if sender else 0, session=id))
            if first is not None:
                oldest.append(sample(OLDEST.name, first.accepted_wall, session=id))
            its = sending.counts.get(id, Counts()).ended
            ended += [
                sample(MESSAGES.name, its[state], session=id, state=state.value) for state in ENDS
            ]
        yield WAITING, "".join(waiting)
        yield OLDEST, "".join(oldest)
        yield MESSAGES, "".join(ended)
        failed = self._failed.items()
        yield FAILED, "".join(sample(FAILED.name, count, reason=why) for why, count in failed)
        bounds = (f"{bound:g}" for bound in BOUNDS)
        yield SECONDS, histogram_lines(SECONDS.name, bounds, tuple(self._counts), self._total)
