"""What runs in the agent for messages: the reader of what arrived, and the sender of what waits."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from agent.config.config import Config
from agent.config.tables import own_row
from agent.core.model import InstanceId
from agent.core.view import InstanceView
from agent.daemon.wing_parts import Around
from agent.errors import TryLater
from agent.messages.outcomes import State
from agent.messages.reader import Reader
from agent.messages.sending import Limits, Sending
from agent.metrics.text import Family
from agent.wings.messages.metrics import OutboxMetrics, message_samples
from agent.wings.messages.settings import TABLES

READERS, ALL_READERS = 4, 16
"""Files of messages that are read at once, of one session and of all."""


@dataclass(frozen=True, slots=True)
class MessageFigures:
    """What the troubles read, by session."""

    lost: Mapping[str, int]
    not_kept: Collection[str]
    """Those whose worker cannot write what arrives."""
    failed: Mapping[str, int]
    oldest_wall: Mapping[str, float]
    """Unix time at which the oldest message that waits to be sent was accepted."""


def open_part(around: Around) -> "MessagesPart":
    part = MessagesPart(around.reader, around.sending, around.supervisor.views)
    part.reload(around.config)
    return part


class MessagesPart:
    def __init__(
        self,
        reader: Reader,
        sending: Sending,
        views: Callable[[], Mapping[InstanceId, InstanceView]],
    ) -> None:
        self.reader, self.sending, self.views = reader, sending, views
        self._metrics = OutboxMetrics()
        self._files: Counter[InstanceId] = Counter()
        sending.on_end = self._metrics.note

    def tasks(self) -> Mapping[str, Callable[[], Awaitable[object]]]:
        return {"messages": self._read, "outbox": self.sending.run}

    async def _read(self) -> None:
        try:
            await self.reader.run()
        except asyncio.CancelledError:
            self.reader.end()
            raise

    def reload(self, config: Config) -> None:
        messages, pace = (own_row(config, table) for table in TABLES)
        self.sending.limits = Limits(
            messages.expires_hours, messages.outbox_most, messages.outbox_megabytes, pace.per_minute
        )

    def samples(self) -> Iterator[tuple[Family, str]]:
        yield from message_samples(self.reader.figures())
        yield from self._metrics.samples(self.sending, self.views())

    def figures(self) -> MessageFigures:
        counts = self.sending.counts.items()
        oldest = {id: its.oldest() for id, its in self.sending.senders.items()}
        kept = self.reader.figures().items()
        return MessageFigures(
            {id: its["lost"] for id, its in kept},
            {id for id, its in kept if its["refused"]},
            {id: its.ended[State.FAILED] + its.ended[State.UNKNOWN] for id, its in counts},
            {id: row.accepted_wall for id, row in oldest.items() if row is not None},
        )

    @contextmanager
    def reads_file(self, id: InstanceId) -> Iterator[None]:
        """TryLater where too many files are read already."""
        if self._files[id] >= READERS or self._files.total() >= ALL_READERS:
            raise TryLater(
                f"cannot read a file of {id}: too many are read already; try again", code="busy"
            )
        self._files[id] += 1
        try:
            yield
        finally:
            self._files[id] -= 1
            self._files += Counter()  # without those at zero
