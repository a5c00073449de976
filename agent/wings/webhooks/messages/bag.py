"""How far each webhook is with a session's messages goes along with the session."""

import json
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

from agent.core.fleet.baggage import Journey, Packing
from agent.core.model import InstanceId
from agent.errors import VaultError
from agent.store.database import Store
from agent.supervise.messages.kept_messages import KeptMessages

if TYPE_CHECKING:
    from agent.wings.webhooks.messages.carrier import MessageCarrier

CURSORS = "cursors"


class CursorsBag:
    def __init__(
        self,
        store: Store,
        source: KeptMessages,
        carriers: Callable[[], Mapping[str, "MessageCarrier"]],
    ) -> None:
        self._store = store
        self._source = source
        self._carriers = carriers
        """By the webhook's name."""

    def mark(self, id: InstanceId) -> Hashable:
        return tuple(self._positions(id).items()) or None

    async def pack(self, id: InstanceId, *, fresh: bool, exact: bool) -> Packing:
        if not (positions := self._positions(id)):
            return Packing()
        told = {"born": self._source.created_wall(id), "cursors": positions}
        text = json.dumps(told).encode()
        return Packing({CURSORS: lambda: text})

    async def unpack(
        self,
        id: InstanceId,
        names: Sequence[str],
        read: Callable[[str], Awaitable[bytes]],
        journey: Journey,
    ) -> None:
        """A cursor that is known here may be older: the session was here before."""
        from agent.wings.webhooks.messages.cursors import cursor_fact, cursor_row

        if CURSORS not in names:
            return
        try:
            told = json.loads(await read(CURSORS))
            born_wall = float(told["born"])
            positions = {str(name): int(cursor) for name, cursor in told["cursors"].items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise VaultError(
                f"cannot use the stored cursors of {id}: {error}", code="damaged"
            ) from error
        facts = {cursor_fact(name, id): cursor_row(at, born_wall) for name, at in positions.items()}
        await self._store.put_facts(facts)
        carriers = self._carriers()
        for name, cursor in positions.items():
            if name in carriers:
                carriers[name].bring(id, born_wall, cursor)

    async def leave(self, id: InstanceId) -> None:
        for carrier in self._carriers().values():
            await carrier.leave(id)

    async def follow(self, id: InstanceId) -> None: ...

    def stay(self, id: InstanceId) -> None:
        for carrier in self._carriers().values():
            carrier.stay(id)

    def _positions(self, id: InstanceId) -> Mapping[str, int]:
        found = {name: carrier.position(id) for name, carrier in self._carriers().items()}
        return {name: at for name, at in found.items() if at is not None}
