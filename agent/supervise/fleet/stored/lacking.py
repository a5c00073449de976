"""Tells the fleet's database whose stored copy lacks changes for long: such a session waits for
this machine if it is lost, and does not start elsewhere with older files than its folder here."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from agent.errors import WaError
from agent.fleet.coordinator import Member
from agent.supervise.fleet.epochs import Epochs
from agent.supervise.fleet.stored.replicas import Replicas

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Lacking:
    replicas: Replicas
    epochs: Epochs
    limit: float
    """Seconds ([fleet] oldest_copy)."""
    member: Callable[[], Member]

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self.limit / 4)
            try:
                await self.tell()
            except WaError as error:  # the next round tells it
                log.debug("cannot tell whose copies lack changes: %s", error)

    async def tell(self) -> None:
        known = self.epochs.known
        late = self.replicas.behind_for(self.limit)
        numbers: dict[str, int] = {id: known[id].copy or 0 for id in late if id in known}
        if numbers:
            await self.replicas.writing.coordinator.copies_lack(self.member(), numbers)
