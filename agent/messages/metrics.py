"""What sessions keep of what arrived, and what became of messages to send."""

from collections.abc import Iterable, Iterator

from agent.core.model import InstanceId
from agent.messages.reader import Reader
from agent.messages.sending import ENDS, Counts, Sending
from agent.metrics.text import COUNTER, GAUGE, Family, sample

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


def samples(
    reader: Reader, sending: Sending, sessions: Iterable[InstanceId]
) -> Iterator[tuple[Family, str]]:
    for name, family in KEPT.items():
        kept = reader.figures().items()
        yield family, "".join(sample(family.name, its[name], session=id) for id, its in kept)
    waiting, oldest, ended = [], [], []
    for id in sessions:
        sender = sending.senders.get(id)
        waiting.append(sample(WAITING.name, len(sender.waiting) if sender else 0, session=id))
        if sender and (first := sender.oldest()) is not None:
            oldest.append(sample(OLDEST.name, first.accepted_wall, session=id))
        its = sending.counts.get(id, Counts()).ended
        for state in ENDS:
            ended.append(sample(MESSAGES.name, its[state], session=id, state=state.value))
    yield WAITING, "".join(waiting)
    yield OLDEST, "".join(oldest)
    yield MESSAGES, "".join(ended)
