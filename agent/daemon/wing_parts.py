"""What runs in the agent of each wing that brings a part."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agent.config.config import Config
from agent.core.model import InstanceId
from agent.deliver.bus import EventBus
from agent.messages.reader import Reader
from agent.messages.sending import Sending
from agent.metrics.exporter import Exporter
from agent.metrics.text import Family
from agent.store.database import Store
from agent.supervise.supervisor import Supervisor
from agent.wing import wings

Begin = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Around:
    """What the parts of wings may use."""

    config: Config
    store: Store
    bus: EventBus
    reader: Reader
    sending: Sending
    supervisor: Supervisor
    exporter: Exporter
    in_force: Callable[[], Config]
    """The settings, as the last reload left them."""
    figures: Callable[[], Mapping[str, Any]]
    """What the troubles read of each part, by the wing's name."""
    log_path: Callable[[InstanceId], Path | None] = lambda _id: None
    """Where the lines of a session's worker are; None: in the journal."""


class WingPart(Protocol):
    def tasks(self) -> Mapping[str, Begin]:
        """What runs as long as the agent does, by name."""

    def reload(self, config: Config) -> None:
        """Take on settings that were read again."""

    def samples(self) -> Iterable[tuple[Family, str]]:
        """The part's lines on /metrics."""

    def figures(self) -> Any:
        """What the conditions of troubles read."""


def open_wing_parts(around: Around) -> Mapping[str, WingPart]:
    """By the wing's name."""
    return {wing.name: wing.take(wing.part).open_part(around) for wing in wings() if wing.part}
