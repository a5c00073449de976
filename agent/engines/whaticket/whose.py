"""The session of an error that names a peer at most: by stored keys, or by a reconnect."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from agent.core.words import InstanceId
from agent.engines.whaticket.keys.store import SessionStore
from agent.engines.whaticket.logs.lines import Found
from agent.engines.whaticket.logs.owner import Names, NoOwner, Reconnects
from agent.errors import EngineError


@dataclass(slots=True)
class Attribution:
    store: SessionStore
    names: Callable[[], Names]
    ids: Callable[[], Awaitable[Iterable[str]]]
    """The server's ids of all its sessions."""
    reconnects: Reconnects = field(default_factory=Reconnects)

    async def whose(self, found: Found, at: float) -> InstanceId | NoOwner:
        """For a line that names no session and stands in no session's file."""
        holders = await self._holders(found) if found.peer else []
        if len(holders) == 1:
            return self._ours(holders[0])
        alone = self.reconnects.only_at(at)
        if alone is not None and (not holders or alone in map(self._ours, holders)):
            return alone
        return NoOwner.UNKNOWN

    async def _holders(self, found: Found) -> list[str]:
        """The sessions that have, or had, keys with that peer."""
        if not self.store.usable:
            return []
        try:
            return await self.store.holding(
                sorted(await self.ids()), found.address or f"{found.peer}.0"
            )
        except EngineError:
            return []

    def _ours(self, id: str) -> InstanceId | NoOwner:
        return self.names().ours.get(id, NoOwner.OTHER)
