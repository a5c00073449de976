"""Compares the sessions that are here with those that this machine owns, and begins what differs.

Every step can be cut short: the next comparison goes on with it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from agent.clock import boot_now
from agent.core.model import InstanceId
from agent.errors import TryLater, WaError
from agent.fleet.fleet import Fleet
from agent.log import about
from agent.supervise.fleet.arrivals import waiting_view
from agent.supervise.fleet.giving_up import GivingUp
from agent.supervise.fleet.handing_on import HandingOn
from agent.supervise.fleet.orders import Orders
from agent.supervise.fleet.ownership import Ownership
from agent.supervise.fleet.taking_in import TakingIn
from agent.supervise.registry import Registry

log = logging.getLogger(__name__)

AT_ONCE = 8


@dataclass(slots=True, eq=False, repr=False)
class Comparing:
    fleet: Fleet
    ownership: Ownership
    orders: Orders
    registry: Registry
    taking_in: TakingIn
    giving_up: GivingUp
    handing_on: HandingOn
    in_hand: set[InstanceId]
    """Sessions whose files a request has."""
    problems: dict[InstanceId, str] = field(init=False, default_factory=dict)
    """Why an owned session is not here yet."""
    _working: set[InstanceId] = field(init=False, default_factory=set)
    """Sessions that are being fetched or given up."""
    _places: asyncio.Semaphore = field(
        init=False, default_factory=lambda: asyncio.Semaphore(AT_ONCE)
    )

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                await self.ownership.news.wait()
                self.ownership.news.clear()
                self.compare(group)
                try:
                    await self.ownership.epochs.hear(self.ownership.owned)
                    await self.orders.write_all(list(self.registry.facts.values()))
                except WaError as error:
                    log.error("%s", error)

    def compare(self, group: asyncio.TaskGroup) -> None:
        """Begin what differs; a session whose files take long holds up no other one."""
        if self.ownership.left.is_set() or not self.ownership.lease.holds(boot_now()):
            return
        owned, taken = self.ownership.owned, self.in_hand | self._working
        self.problems = {id: why for id, why in self.problems.items() if id in owned}
        for id, facts in self.registry.facts.items():
            if id not in taken and not (id in owned and self.ownership.is_of(id, owned[id])):
                self._begin(group, id, partial(self.giving_up.give_up, facts))
        for id, session in owned.items():
            if id not in taken and id not in self.registry.facts:
                self._begin(group, id, partial(self.taking_in.take_in, session))

    def _begin(
        self, group: asyncio.TaskGroup, id: InstanceId, work: Callable[[], Awaitable[None]]
    ) -> None:
        self._working.add(id)
        group.create_task(self._one(id, work), name=f"fleet {id}")

    async def _one(self, id: InstanceId, work: Callable[[], Awaitable[None]]) -> None:
        """One session's trouble must not hold the others up."""
        try:
            async with self._places:
                await work()
        except WaError as error:
            await self._failed(id, error)
        else:
            self.problems.pop(id, None)
            if id not in self.registry.facts:
                self.ownership.news.set()  # it was given up, and may be this machine's again
        finally:
            self._working.discard(id)

    async def _failed(self, id: InstanceId, error: WaError) -> None:
        """Each renewal tries again, until another machine gets a session that cannot arrive."""
        why = str(error)
        if id not in self.registry.facts:
            with contextlib.suppress(WaError):
                why = await self.handing_on.failed(id, error)
        if not why:
            self.problems.pop(id, None)
            return
        if self.problems.get(id) != why:
            log.error("%s", why, extra=about(id))
        self.problems[id] = why
        if id not in self.registry.facts and not isinstance(error, TryLater):
            await self._show_waiting(id, why)

    async def _show_waiting(self, id: InstanceId, why: str) -> None:
        """The lists have the view of its last machine until this one has it."""
        with contextlib.suppress(WaError):  # each renewal tries again
            for row in await self.fleet.requests.views([id]):
                view = waiting_view(row, why)
                if view != row.view:
                    await self.fleet.requests.publish(self.fleet.keeper.member, {id: view})
