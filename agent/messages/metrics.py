"""What sessions keep of what arrived, and what became of messages to send."""

from collections.abc import Iterable, Iterator

from agent.core.model import InstanceId
from agent.messages.reader import Reader
from agent.messages.sending import ENDS, Counts, Sending
from agent.metrics.family import Family, Row

KEPT = (
    ("waiting", "", "Kept records that not all who get them have, by session."),
    ("bytes", "", "Size of the kept records, by session."),
    ("lost", "_total", "Those dropped before that, by session."),
)
"""By the figure of the reader."""


def families(reader: Reader, sending: Sending, sessions: Iterable[InstanceId]) -> Iterator[Family]:
    kept, senders = reader.figures().items(), sending.senders
    for name, end, meaning in KEPT:
        rows: list[Row] = [({"session": id}, its[name]) for id, its in kept]
        yield Family(f"wa_messages_{name}{end}", meaning, rows)
    waiting, oldest, ended = list[Row](), list[Row](), list[Row]()
    for id in sessions:
        its = senders[id].waiting if id in senders else {}
        waiting.append(({"session": id}, len(its)))
        for first in list(its.values())[:1]:
            oldest.append(({"session": id}, first.row.accepted_wall))
        counts = sending.counts.get(id, Counts()).ended
        ended += [({"session": id, "state": state.value}, counts[state]) for state in ENDS]
    meaning = "Messages that wait to be sent, by session."
    yield Family("wa_outbox_waiting", meaning, waiting)
    meaning = "When the oldest of these was accepted."
    yield Family("wa_outbox_oldest_timestamp_seconds", meaning, oldest)
    meaning = "Messages that left the outbox, by session and state."
    yield Family("wa_outbox_messages_total", meaning, ended)
