"""What runs in the agent of each wing that brings a part."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from agent.config import Config
from agent.deliver.bus import EventBus
from agent.metrics.text import Family
from agent.store.database import Store
from agent.wing import wings

Begin = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Around:
    """What the parts of wings may use."""

    config: Config
    store: Store
    bus: EventBus


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
