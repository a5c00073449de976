"""Deletes an instance into the trash, and brings a session back from it."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from agent.core.model import InstanceId, JournalEntry, Override
from agent.core.observed import with_override
from agent.core.reasons import reason_of
from agent.core.session import Session
from agent.errors import Refused, TryLater
from agent.failpoint import failpoint
from agent.log import clean
from agent.supervise.facts import Facts
from agent.supervise.registry import Registry
from agent.supervise.requests.confirming import must_be_confirmed
from agent.supervise.seats import Seats
from agent.supervise.snapshots import Snapshots
from agent.supervise.story import entry
from agent.vault.check import read_linked
from agent.vault.folder import SESSION, unless_absent
from agent.vault.identity import read_identity
from agent.vault.trash import Retired, list_trash, restore_trash, retire


@dataclass(slots=True, eq=False, repr=False)
class Deletion:
    registry: Registry
    host: Seats
    keeping: Snapshots
    forget: Callable[[InstanceId], None]
    """Takes the instance out of queues and loop."""

    async def delete(self, id: InstanceId, *, passkey: str = "") -> str:
        """Stop it, retire its folder, forget it. The session can be restored from the trash."""
        facts = self.registry.get(id)
        must_be_confirmed(facts, "delete", confirmed=True, passkey=passkey)
        facts.instance = replace(facts.instance, enabled=False)
        facts.record = with_override(facts.record, Override.STOPPED, facts.boot)
        facts.action.interrupt_start()
        async with facts.busy:
            self.registry.get(id)  # another request may have deleted it meanwhile
            # After a kill it is disabled and can be deleted again; without its folder the next
            # start ends the deletion.
            await self.registry.save_order(
                facts, entry(facts, "deleting", "an operator deletes it")
            )
            failpoint("deletion_begun")
            await self.host.stop(id)
            if facts.instance.backend:
                await self.registry.gate.backends.let_go(facts.instance)
            stays = await asyncio.to_thread(self._left_elsewhere, facts)
            name = ""
            async with self.keeping.ending(facts):
                with unless_absent():
                    retire_it = partial(retire, self.registry.root, id, "deleted", follows=False)
                    name = (await asyncio.to_thread(retire_it)).name
            words = f"deleted; its session is in the trash as {name or 'nothing'}{stays}"
            said = entry(facts, "deleted", words)
            failpoint("deletion_retired")
            await self.registry.store.remove(id, said)
            self.registry.drop(facts)
            self.forget(id)
            return name

    async def trash(self) -> list[Retired]:
        return await asyncio.to_thread(list_trash, self.registry.root)

    async def restore_trash(self, name: str) -> Session:
        id = await asyncio.to_thread(restore_trash, self.registry.root, name)
        identity = await asyncio.to_thread(read_identity, self.registry.root / id)
        # Restored by an operator: a former stop or logout in its record is dropped, but a pairing
        # that WhatsApp no longer knows stays ended.
        record = replace(
            with_override(identity.record, Override.NONE, ""),
            status_since_wall=time.time(),
            reason="",
            paired=identity.paired and not reason_of(identity.ended).unpairs,
        )
        said = JournalEntry(
            "restored", f"restored from the trash ({name})", instance=id, wall=time.time()
        )
        try:
            doing = f"restore {id}"
            linked = await asyncio.to_thread(
                read_linked, self.registry.root, id, identity.instance.engine
            )
            async with self.registry.devices.alone(id, identity.instance.engine, doing, linked):
                await self.registry.store.add(identity.instance, record, said)
                self.registry.add(identity.instance, record)
        except (Refused, TryLater):
            await asyncio.to_thread(retire, self.registry.root, id, "deleted")
            raise
        self.registry.gate.wake(id)
        return self.registry.view(id)

    def _left_elsewhere(self, facts: Facts) -> str:
        """A link is the operator's own, as is what it leads to: the trash gets the link."""
        session = self.registry.root / facts.id / SESSION
        try:
            return f"; {clean(str(session.readlink()))}, to which its folder was a link, stays"
        except OSError:
            return ""
