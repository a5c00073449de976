"""What wings have of a session that goes with it to another machine, besides its files. Pure."""

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from agent.core.model import InstanceId

Read = Callable[[], bytes]
"""The content of a piece; it works on the disk."""


@dataclass(frozen=True, slots=True)
class Packing:
    """The pieces of one session, as they are now."""

    write: Mapping[str, Read] = field(default_factory=dict)
    """New or changed, by name."""
    kept: frozenset[str] = frozenset()
    """As they were stored before."""


@dataclass(frozen=True, slots=True)
class Journey:
    """How a session came from its machine of before."""

    exact: bool
    """It was stopped there, and all of it came along. False: its machine was lost."""
    stored_wall: float
    """When its pieces were stored last."""
    folder: Path
    """Its own folder, as it is being made."""
    file_mode: int
    group: int | None
    """Of what is put into the folder; None = as it comes."""


class Bag(Protocol):
    """Of one wing."""

    def mark(self, id: InstanceId) -> Hashable:
        """What changes whenever anything is new; None = nothing is there to store. Free of cost:
        it is asked all the time."""

    async def pack(self, id: InstanceId, *, fresh: bool, exact: bool) -> Packing:
        """`fresh`: nothing counts as stored. `exact`: the session's worker does not run, and all
        of it goes along."""

    async def unpack(
        self,
        id: InstanceId,
        names: Sequence[str],
        read: Callable[[str], Awaitable[bytes]],
        journey: Journey,
    ) -> None:
        """On the next machine, before the session is there; perhaps more than once."""

    async def leave(self, id: InstanceId) -> None:
        """Its session stops here for a move: return when nothing of it is under way."""

    async def follow(self, id: InstanceId) -> None:
        """Another machine owns it, and nothing of it is here: return when what was left is there.
        It may be cut short, and goes on by itself then."""

    def stay(self, id: InstanceId) -> None:
        """The move did not happen."""
