"""Gives up a session that is here and that this machine does not own any more: its worker stops,
its folder goes to the trash."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.core.model import InstanceId
from agent.errors import VaultError
from agent.failpoint import failpoint
from agent.fleet.fleet import Fleet
from agent.host.base import Host
from agent.log import about
from agent.store.database import Store
from agent.supervise.facts import Facts
from agent.supervise.fleet.epochs import Tenancy
from agent.supervise.fleet.orders import new_session
from agent.supervise.fleet.owner import LEAVING
from agent.supervise.fleet.ownership import Ownership
from agent.supervise.fleet.telling import Telling
from agent.supervise.registry import Registry
from agent.supervise.story import DELETING, entry
from agent.vault.trash import retire

log = logging.getLogger(__name__)

MOVED = "moved"
"""Why a folder is in the trash."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class GivingUp:
    fleet: Fleet
    ownership: Ownership
    registry: Registry
    store: Store
    host: Host
    root: Path
    telling: Telling
    forget: Callable[[InstanceId], None]
    """It is gone: neither in a queue nor due for a pass."""

    async def give_up(self, facts: Facts) -> None:
        """Another machine owns it, or none does: nothing of it may go on here."""
        row = await self.fleet.coordinator.session(facts.id)
        member = self.fleet.keeper.member
        tenancy = self.ownership.epochs.known.get(facts.id)
        if await self.store.get_fact(DELETING + facts.id) is not None:
            return  # the deletion goes on by itself
        # A leave whose answer did not come in time may have happened: the session is still ours.
        leaving = await self.store.get_fact(LEAVING) is not None
        known = tenancy is not None and tenancy.machine_epoch >= member.epoch
        if row is None and (leaving or (known and not await self._is_deleted(facts.id, tenancy))):
            await self._register_again(facts)
            return
        who = "the fleet has deleted it" if row is None else "another machine of the fleet owns it"
        if row is not None and row.machine == member.id:
            owned = self.ownership.owned.get(facts.id)
            behind = owned is not None and not self.ownership.is_of(facts.id, owned)
            if tenancy is None or (tenancy.epoch == row.epoch and not behind):
                return  # it came between two answers
            if tenancy.epoch > row.epoch and await self.telling.tell(facts):
                return  # records were lost: the files here are newer than what is left
            who = "it was on another machine meanwhile, and its newer files are fetched"
            if tenancy.epoch == row.epoch:
                who = "its stored copy is newer than its files here, and is fetched"
        await self.retire(facts, MOVED, f"{who}: this machine's files went to the trash")

    async def _is_deleted(self, id: InstanceId, tenancy: Tenancy | None) -> bool:
        """By its next owner, after this machine had it: its folder here is left over."""
        generation = await self.fleet.coordinator.deleted_in(id)
        return generation is not None and tenancy is not None and generation > tenancy.generation

    async def _register_again(self, facts: Facts) -> None:
        """The database lost its row, or this machine's leave took it out."""
        session = new_session(facts.instance, facts.record, self.host.boot_id(), self.fleet.machine)
        member = self.fleet.keeper.member
        if await self.fleet.coordinator.register(member, [session]):
            return
        sentence = "the fleet's database had lost this session; it is there again"
        log.warning(sentence, extra=about(facts.id))
        await self.ownership.epochs.put({facts.id: Tenancy(0, member.epoch)})
        self.fleet.keeper.wake()

    async def retire(self, facts: Facts, kind: str, sentence: str) -> None:
        """Stop its worker, put its folder into the trash, forget it; never the other way round."""
        if facts.action.task is not None and facts.action.is_start:
            facts.action.task.cancel()
        async with facts.busy:
            await self.retire_held(facts, kind, sentence)

    async def retire_held(self, facts: Facts, kind: str, sentence: str) -> None:
        """As `retire`, for one who holds `facts.busy`."""
        if facts.gone:
            return
        id = facts.id
        await self.host.stop(id)
        failpoint("fleet_stopped")
        try:
            retired = await asyncio.to_thread(retire, self.root, id, MOVED)
            sentence = f"{sentence} as {retired.name}"
        except VaultError as error:
            if error.code != "absent":
                raise
        failpoint("fleet_retired")
        await self.store.remove(id, entry(facts, kind, sentence))
        await self.ownership.epochs.forget([id])
        self.registry.drop(facts)
        self.forget(id)
        log.warning("%s", sentence, extra=about(id))
