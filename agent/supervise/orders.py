"""What operators want of a session: its settings, whether it runs, what they say of it;
its deletion into the trash, and its return."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from agent.core.model import Category, Instance, InstanceId, JournalEntry, Override
from agent.core.reasons import reason_of
from agent.core.session import Session
from agent.engines.catalog import check_settings, find_engine
from agent.errors import ConfigError, InvalidRequest, Refused, TryLater
from agent.files import failpoint
from agent.supervise.calls import Calls, must_be_confirmed
from agent.supervise.facts import Facts, entry
from agent.supervise.observe import refuse_to_end
from agent.supervise.registry import Registry
from agent.supervise.seats import Seats
from agent.vault.folder import unless_absent
from agent.vault.folders import Retired, list_trash, restore_trash, retire
from agent.vault.identity import read_identity
from agent.vault.restore import KEPT


def check_settings_of(instance: Instance) -> None:
    """Refuse settings with which its worker could not start."""
    try:
        check_settings(instance.engine, instance.settings)
    except ConfigError as error:
        field = f"settings.{error.field}"
        raise InvalidRequest(str(error), field=field, code="invalid_settings") from None


@dataclass(slots=True, eq=False, repr=False)
class Orders:
    """Writes each order down and wakes a pass, which carries it out; only a logout is done at once,
    for its answer is the result. Unknown ids raise NotFound."""

    registry: Registry
    host: Seats
    asking: Calls

    async def create(self, instance: Instance) -> Session:
        try:
            known = find_engine(instance.engine)
        except ConfigError as error:
            raise InvalidRequest(str(error), field="engine", code=error.code) from None
        check_settings_of(instance)
        self.registry.check(instance)
        if known.remote or instance.backend:
            self.registry.gate.backends.check_place(instance)
        made = replace(instance, created_wall=instance.created_wall or time.time())
        disabled = "" if made.enabled else ", disabled"
        facts = await self.registry.create(made, f"created with engine {made.engine}{disabled}")
        self.registry.gate.wake(facts.id)
        self.registry.gate.note_wait(facts)
        return self.registry.view(facts.id)

    async def change_settings(self, id: InstanceId, settings: Mapping[str, Any]) -> Session:
        """The worker reads them at its next start; its limits change at once. The caller has
        refused another backend or session."""
        facts = self.registry.get(id)
        changed = replace(facts.instance, settings=dict(settings))
        check_settings_of(changed)
        self.registry.check(changed)
        facts.instance = changed
        self.registry.look_up(facts)
        return await self.intend(facts, "settings", "its settings changed")

    async def enable(self, id: InstanceId) -> Session:
        facts = self.registry.get(id)
        if facts.ended_by.final and facts.instance.enabled and facts.should_run:
            # An enabled session that WhatsApp ended gets no further login.
            already = "an operator enabled it; it was enabled already"
            return await self.intend(facts, "enabled", already)
        with suppress(InvalidRequest):  # a program that is missing says so itself
            self.registry.check(facts.instance)
        async with self.registry.alone(id, facts.instance.engine, f"enable {id}"):
            facts.asked.start = True
            facts.instance = replace(facts.instance, enabled=True)
            facts.forgive()
            facts.order(Override.NONE)
            return await self.intend(facts, "enabled", "an operator enabled it")

    async def disable(self, id: InstanceId) -> Session:
        facts = self.registry.get(id)
        refuse_to_end(facts, "disable")
        if facts.enabled_by_operator:
            raise Refused(
                f"cannot disable {id}: its unit is enabled in systemd;"
                f" run: systemctl disable wa-instance@{id}",
                code="enabled_in_systemd",
            )
        facts.instance = replace(facts.instance, enabled=False)
        facts.order(Override.NONE)
        facts.action.interrupt_start()
        return await self.intend(facts, "disabled", "an operator disabled it")

    async def start(self, id: InstanceId) -> Session:
        facts = self.registry.get(id)
        async with self.registry.alone(id, facts.instance.engine, f"start {id}"):
            facts.asked.start = True
            facts.forgive()
            facts.order(Override.NONE if facts.enabled else Override.STARTED)
            return await self.intend(facts, "operator", "an operator started it")

    async def stop(self, id: InstanceId) -> Session:
        facts = self.registry.get(id)
        refuse_to_end(facts, "stop")
        facts.order(Override.STOPPED)
        facts.action.interrupt_start()
        stays = "an operator stopped it: it stays stopped until a start"
        return await self.intend(facts, "operator", stays)

    async def restart(self, id: InstanceId) -> Session:
        facts = self.registry.get(id)
        refuse_to_end(facts, "restart")
        # Right after the agent's start no pass has looked at it yet.
        unit = facts.unit if facts.observed else await self.host.status(facts)
        if not unit.runs:
            return await self.start(id)
        facts.forgive(restart_of=unit.run)
        return await self.intend(facts, "operator", "an operator asked for a restart")

    def must_confirm_passkey(self, id: InstanceId, doing: str, confirmation: str) -> None:
        must_be_confirmed(self.registry.get(id), doing, confirmed=True, passkey=confirmation)

    async def mark_passkey(self, id: InstanceId, needed: bool) -> Session:
        """Note whether its account needs a passkey to link a device."""
        facts = self.registry.get(id)
        facts.record = replace(facts.record, needs_passkey=needed)
        word = "needs a passkey to link" if needed else "needs no passkey to link"
        return await self.intend(facts, "operator", f"an operator noted: its account {word}")

    async def logout(
        self, id: InstanceId, *, confirmed: bool = False, passkey: str = ""
    ) -> Session:
        facts = self.registry.get(id)
        if facts.no_pairing_to_lose:
            raise Refused(
                f"cannot log out {id}: it is not paired, there is no pairing to end; to pair it:"
                f" `wa-agent qr {id}`",
                code="not_paired",
            )
        must_be_confirmed(facts, "log out", confirmed=confirmed, passkey=passkey)
        await self.asking.logout(id)
        return self.registry.view(id)

    async def intend(
        self, facts: Facts, kind: str, sentence: str, category: Category = Category.SESSION
    ) -> Session:
        facts.note(kind, sentence, category)
        facts.saved.identity = None  # its file is written again: it may have been changed
        await self.registry.save_order(facts)
        self.registry.gate.wake(facts.id)
        self.registry.gate.note_wait(facts)
        return self.registry.view(facts.id)

    async def delete(self, id: InstanceId, *, passkey: str = "") -> str:
        """Stop it, retire its folder, forget it. The session can be restored from the trash. After
        a kill it is as before while it has its folder; without it the next start ends this."""
        facts = self.registry.get(id)
        must_be_confirmed(facts, "delete", confirmed=True, passkey=passkey)
        facts.action.interrupt_start()
        async with facts.busy:
            self.registry.get(id)  # another request may have deleted it meanwhile
            facts.note("deleting", "an operator deletes it")
            await self.registry.save_order(facts)
            await self.host.stop(facts)
            failpoint("deletion_begun")
            if facts.instance.backend:
                await self.registry.gate.backends.let_go(facts.instance)
            name = ""
            async with self.asking.keeping.ending(facts):
                with unless_absent():
                    retire_it = partial(retire, self.registry.root, id, "deleted", follows=False)
                    name = (await asyncio.to_thread(retire_it)).name
            words = f"deleted; its session is in the trash as {name or 'nothing'}"
            failpoint("deletion_retired")
            await self.registry.store.remove(id, entry(facts, "deleted", words))
            self.registry.drop(facts)
            return name

    async def trash(self) -> list[Retired]:
        return await asyncio.to_thread(list_trash, self.registry.root)

    async def restore_trash(self, name: str) -> Session:
        id = InstanceId(name.partition(".")[0])
        async with self.registry.making(id, f"restore {id}"):
            await asyncio.to_thread(restore_trash, self.registry.root, name)
            identity = await asyncio.to_thread(read_identity, self.registry.root / id)
            instance = identity.instance
            if not (self.registry.root / id / KEPT).exists():
                # Its messages went on with what replaced it, and so did its readers' places.
                instance = replace(instance, created_wall=time.time())
            # Restored by an operator: a former stop or logout in its record is dropped, but a
            # pairing that WhatsApp no longer knows stays ended.
            record = replace(
                identity.record,
                override=Override.NONE,
                override_boot="",
                status_since_wall=time.time(),
                reason="",
                paired=identity.paired and not reason_of(identity.ended).unpairs,
            )
            said = JournalEntry("restored", f"restored from the trash ({name})", instance=id)
            try:
                async with self.registry.alone(id, instance.engine, f"restore {id}", arrives=True):
                    await self.registry.store.add(instance, record, said)
                    self.registry.add(instance, record)
            except (Refused, TryLater):
                await asyncio.to_thread(retire, self.registry.root, id, "deleted")
                raise
        self.registry.gate.wake(id)
        return self.registry.view(id)
