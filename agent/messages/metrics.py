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
    "lost": Family("wa_messages_lost_total", COUNTER, "Those dropped before that, by session."),
}
"""By the figure of the reader."""
WAITING = Family("wa_outbox_waiting", GAUGE, "Messages that wait to be sent, by session.")
OLDEST = Family(
    "wa_outbox_oldest_timestamp_seconds", GAUGE, "When the oldest of these was accepted."
)
MESSAGES = Family(
    "wa_outbox_messages_total", COUNTER, "Messages that left the outbox, by session and state."
)


def samples(
    reader: Reader, sending: Sending, sessions: Iterable[InstanceId]
) -> Iterator[tuple[Family, str]]:
    kept, senders = reader.figures().items(), sending.senders
    for name, family in KEPT.items():
        yield family, "".join(sample(family.name, its[name], session=id) for id, its in kept)
    waiting, oldest, ended = [], [], []
    for id in sessions:
        its = senders[id].waiting if id in senders else {}
        waiting.append(sample(WAITING.name, len(its), session=id))
        for first in list(its.values())[:1]:
            oldest.append(sample(OLDEST.name, first.row.accepted_wall, session=id))
        for state in ENDS:
            count = sending.counts.get(id, Counts()).ended[state]
            ended.append(sample(MESSAGES.name, count, session=id, state=state.value))
    yield WAITING, "".join(waiting)
    yield OLDEST, "".join(oldest)
    yield MESSAGES, "".join(ended)
