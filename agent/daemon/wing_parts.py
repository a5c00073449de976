"""What runs in the agent of each wing that brings a part."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from agent.api.http.call import MessageOutbox
from agent.config import Config
from agent.core.model import InstanceId
from agent.deliver.bus import EventBus
from agent.metrics.text import Family
from agent.store.database import Store
from agent.supervise.requests.kept_messages import MessageChanges
from agent.supervise.requests.message_page import KeptState, MessagePage
from agent.supervise.supervisor import Supervisor
from agent.wing import wings

Begin = Callable[[], Awaitable[object]]


class MessageSource(Protocol):
    """What arrived in the sessions: supervise/requests/kept_messages.py."""

    @property
    def ending(self) -> bool: ...

    async def page(
        self, id: InstanceId, after: int | None, *, limit: int = 100, wait: float = 0.0
    ) -> MessagePage: ...

    async def wait(self, id: InstanceId, seconds: float) -> None: ...

    def follow(self) -> MessageChanges: ...

    async def settled(self, consumer: str, id: InstanceId, cursor: int) -> None: ...

    def consume(self, consumer: str, wants: Callable[[InstanceId], bool]) -> None: ...

    def forget_consumer(self, consumer: str) -> None: ...

    def sessions(self) -> list[InstanceId]: ...

    def created_wall(self, id: InstanceId) -> float: ...

    async def tell_settled(self, id: InstanceId) -> None: ...

    def count_behind(self, id: InstanceId, cursor: int) -> int: ...

    def states(self) -> Mapping[InstanceId, KeptState]: ...

    async def ask_state(self, id: InstanceId) -> None: ...


@dataclass(frozen=True, slots=True)
class Around:
    """What the parts of wings may use."""

    config: Config
    store: Store
    bus: EventBus
    messages: MessageSource
    supervisor: Supervisor


class WingPart(Protocol):
    def tasks(self) -> Mapping[str, Begin]:
        """What runs as long as the agent does, by name."""

    def reload(self, config: Config) -> None:
        """Take on settings that were read again."""

    def samples(self) -> Iterable[tuple[Family, str]]:
        """Its lines on /metrics."""

    def figures(self) -> Any:
        """What its alerts read."""


def open_wing_parts(around: Around) -> Mapping[str, WingPart]:
    """By the wing's name."""
    return {wing.name: wing.take(wing.part).open_part(around) for wing in wings() if wing.part}


class OutboxPart(WingPart, MessageOutbox, Protocol): ...


def open_outbox(around: Around) -> OutboxPart | None:
    """Of the first wing that keeps messages until they are sent."""
    for wing in wings():
        if wing.outbox:
            opened: OutboxPart = wing.take(wing.outbox).open_outbox(around)
            return opened
    return None
