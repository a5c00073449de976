"""Messages to send go from machine to machine, not through the fleet's database: the next machine
has each on its disk before it is deleted here."""

from collections.abc import Awaitable, Callable, Hashable, Sequence

from agent.core.fleet.baggage import Journey, Packing
from agent.core.model import InstanceId
from agent.wings.messages.travel.handing_over import HandingOver


class OutboxBag:
    def __init__(self, handing_over: HandingOver) -> None:
        self._handing_over = handing_over

    def mark(self, id: InstanceId) -> Hashable:
        return None

    async def pack(self, id: InstanceId, *, fresh: bool, exact: bool) -> Packing:
        return Packing()

    async def unpack(
        self,
        id: InstanceId,
        names: Sequence[str],
        read: Callable[[str], Awaitable[bytes]],
        journey: Journey,
    ) -> None: ...

    async def leave(self, id: InstanceId) -> None: ...

    async def follow(self, id: InstanceId) -> None:
        await self._handing_over.wait(id)

    def stay(self, id: InstanceId) -> None: ...
