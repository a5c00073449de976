"""Asks each rival now and then whether it would promise: two machines that do not reach each other
are told apart while the database is there, and not only when it is away and their leases end."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from agent.errors import WaError
from agent.fleet.fleet_file import Rival
from agent.fleet.keeper import Keeper

log = logging.getLogger(__name__)

EVERY = 60.0
"""Seconds: as often as a promise is rehearsed."""
WITHIN = 5.0
_TRIES = 2
"""A machine that does not answer once may be starting again."""

AskRehearsal = Callable[[Rival, int, int, str], Awaitable[str]]
"""Ask as for a promise; why the machine would not give it, "" = it would."""


class Rehearsal:
    def __init__(self, keeper: Keeper, ask: AskRehearsal, every: float = EVERY) -> None:
        self._keeper = keeper
        self._ask = ask
        self._every = every
        self._failed: dict[str, int] = {}
        self._why: dict[str, str] = {}

    @property
    def apart(self) -> dict[str, str]:
        """By name, why a machine that may take this one over would not promise to wait."""
        return {name: self._why[name] for name, count in self._failed.items() if count >= _TRIES}

    async def run(self) -> None:
        await self._keeper.joined.wait()
        while True:
            await self.look()
            # The second look at a machine that did not answer comes sooner.
            soon = any(count < _TRIES for count in self._failed.values())
            await asyncio.sleep(self._every / 4 if soon else self._every)

    async def look(self) -> None:
        rivals = self._keeper.memory.asked_for_promises
        reasons = dict(zip((it.name for it in rivals), await self._reasons(rivals), strict=True))
        before = self.apart
        self._why = {name: why for name, why in reasons.items() if why}
        self._failed = {name: self._failed.get(name, 0) + 1 for name in self._why}
        for name, why in self.apart.items():
            if name not in before:
                log.error(
                    "machine %s does not promise to wait for this one: %s; if the database is away"
                    " as well, the sessions of both stop",
                    name,
                    why,
                )
        for name in before.keys() - self._failed.keys():
            log.info("machine %s would promise again, or is no longer asked", name)

    async def _reasons(self, rivals: Sequence[Rival]) -> list[str]:
        member, accepted = self._keeper.member, self._keeper.memory.accepted.loss

        async def ask(rival: Rival) -> str:
            try:
                async with asyncio.timeout(WITHIN):
                    return await self._ask(rival, member.id, member.epoch, accepted)
            except TimeoutError:
                return f"it did not answer within {WITHIN:g} s"
            except (WaError, OSError) as error:
                return str(error)

        return await asyncio.gather(*map(ask, rivals))
