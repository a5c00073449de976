"""The public face of supervision: what is wanted is written down here, and passes are woken.

Nothing here acts on a worker except where the answer is the deed itself (a QR, a send, a
logout, a deletion); all else is an intent that the next pass carries out.
"""

import asyncio
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.core.incident import Incident
from agent.core.model import (
    Category,
    HealthVerdict,
    Instance,
    InstanceId,
    JournalEntry,
    Override,
    SessionRecord,
)
from agent.core.reconnect import Breaker, forgive, with_breaker
from agent.core.repair import Ending, Goal
from agent.core.statistics import RepairStatistics
from agent.core.view import AgentStatus, InstanceView
from agent.deliver.bus import EventBus
from agent.engines.base import Qr
from agent.engines.catalog import find_engine
from agent.errors import (
    ConfigError,
    InvalidRequest,
    LinkError,
    NotFound,
    Refused,
    TryLater,
    VaultError,
)
from agent.host.base import Host
from agent.link.client import Link
from agent.log import bound
from agent.store.database import Store
from agent.supervise.facts import Facts
from agent.supervise.gate import StartGate
from agent.supervise.incidents import Incidents
from agent.supervise.loop import Loop, Wakes
from agent.supervise.observe import desired_of
from agent.supervise.own_status import OwnFigures
from agent.supervise.passes import Passes
from agent.supervise.registry import Registry
from agent.supervise.remember import entry
from agent.supervise.repairing import Ladder
from agent.supervise.show import NOT_LOOKED_YET
from agent.vault.identity import create as create_folder
from agent.vault.identity import read_identity
from agent.vault.retire import Retired, list_trash, restore_trash, retire

LOGOUT_TIMEOUT = 30.0
REPAIR_TIMEOUT = 300.0
SEND_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class RepairResult:
    """How a repair that somebody asked for ended."""

    healthy: bool
    cleaned: bool
    recovered: bool
    ending: str


class Supervisor:
    """Everything that may be asked of supervision. Unknown ids raise NotFound."""

    def __init__(
        self,
        *,
        registry: Registry,
        store: Store,
        host: Host,
        session_root: Path,
        bus: EventBus,
        wakes: Wakes,
        loop: Loop,
        passes: Passes,
        gate: StartGate,
        ladder: Ladder,
        incidents: Incidents,
        figures: OwnFigures,
        checks_at_once: int,
    ) -> None:
        self.bus = bus
        self._registry = registry
        self._store = store
        self._host = host
        self._session_root = session_root
        self._wakes = wakes
        self._loop = loop
        self._passes = passes
        self._gate = gate
        self._ladder = ladder
        self._incidents = incidents
        self._figures = figures
        self._checks = asyncio.Semaphore(checks_at_once)

    # reading

    def views(self) -> Mapping[InstanceId, InstanceView]:
        return self._registry.views()

    def view(self, id: InstanceId) -> InstanceView:
        self._registry.get(id)
        return self._registry.views()[id]

    def status(self) -> AgentStatus:
        return self._figures.status()

    async def history(
        self,
        instance: InstanceId | None = None,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int = 100,
        kinds: Collection[str] = (),
    ) -> list[JournalEntry]:
        return await self._store.history(
            instance, before=before, after=after, limit=limit, kinds=kinds
        )

    # wanting

    async def create(self, instance: Instance) -> InstanceView:
        _check_engine(instance.engine)
        if instance.id in self._registry.facts:
            raise Refused(
                f"cannot create {instance.id}: it exists already", field="id", code="exists"
            )
        made = replace(instance, created_wall=instance.created_wall or time.time())
        # The folder first: a crash in between leaves an empty folder, never a lost session.
        await asyncio.to_thread(create_folder, self._session_root, made)
        record = SessionRecord(status_since_wall=time.time())
        said = JournalEntry(
            "created",
            f"created with engine {made.engine}" + ("" if made.enabled else ", disabled"),
            instance=made.id,
            wall=time.time(),
        )
        await self._store.add(made, record, said)
        facts = self._registry.add(made, record)
        self._wakes.wake(facts.id)
        return self.view(facts.id)

    async def change_settings(self, id: InstanceId, settings: Mapping[str, Any]) -> InstanceView:
        """The worker reads them when it starts next."""
        facts = self._registry.get(id)
        facts.instance = replace(facts.instance, settings=dict(settings))
        await self._registry.save_instance(facts, entry(facts, "settings", "its settings changed"))
        return self.view(id)

    async def enable(self, id: InstanceId) -> InstanceView:
        facts = self._registry.get(id)
        facts.instance = replace(facts.instance, enabled=True)
        facts.record = _by_hand(forgive(facts.record), Override.NONE, "")
        return await self._intend(facts, entry(facts, "enabled", "enabled: it should run"))

    async def disable(self, id: InstanceId) -> InstanceView:
        facts = self._registry.get(id)
        if facts.enabled_by_operator:
            raise Refused(
                f"cannot disable {id}: its unit is enabled in systemd;"
                f" run: systemctl disable wa-instance@{id}",
                code="enabled_in_systemd",
            )
        facts.instance = replace(facts.instance, enabled=False)
        facts.record = _by_hand(facts.record, Override.NONE, "")
        self._interrupt_start(facts)
        return await self._intend(facts, entry(facts, "disabled", "disabled: it should not run"))

    async def start(self, id: InstanceId) -> InstanceView:
        facts = self._registry.get(id)
        wanted = facts.instance.enabled or facts.enabled_by_operator
        override = Override.NONE if wanted else Override.STARTED
        facts.record = _by_hand(forgive(facts.record), override, self._host.boot_id())
        return await self._intend(facts, entry(facts, "operator", "an operator started it"))

    async def stop(self, id: InstanceId) -> InstanceView:
        facts = self._registry.get(id)
        facts.record = _by_hand(facts.record, Override.STOPPED, self._host.boot_id())
        self._interrupt_start(facts)
        said = entry(facts, "operator", "an operator stopped it: it stays stopped until started")
        return await self._intend(facts, said)

    async def restart(self, id: InstanceId) -> InstanceView:
        facts = self._registry.get(id)
        if not facts.unit.runs:
            return await self.start(id)
        facts.record = replace(forgive(facts.record), restart_of=facts.unit.run)
        said = entry(facts, "operator", "an operator asked for a restart")
        return await self._intend(facts, said)

    async def delete(self, id: InstanceId) -> str:
        """Stop it, retire its folder, forget it. The session can be restored from the trash."""
        facts = self._registry.get(id)
        facts.instance = replace(facts.instance, enabled=False)
        facts.record = _by_hand(facts.record, Override.STOPPED, self._host.boot_id())
        self._interrupt_start(facts)
        async with facts.busy:
            self._registry.get(id)  # somebody else may have deleted it meanwhile
            await self._registry.save_instance(
                facts, entry(facts, "deleting", "an operator deletes it")
            )
            await self._host.stop(id)
            retired = await self._retire(facts)
            said = entry(
                facts, "deleted", f"deleted; its session is in the trash as {retired or 'nothing'}"
            )
            await self._store.remove(id, said)
            self._registry.drop(facts)
            self._gate.settled(id)
            self._loop.forget(id)
            return retired

    async def trash(self) -> list[Retired]:
        return await asyncio.to_thread(list_trash, self._session_root)

    async def restore_trash(self, name: str) -> InstanceView:
        id = await asyncio.to_thread(restore_trash, self._session_root, name)
        identity = await asyncio.to_thread(read_identity, self._session_root / id)
        record = SessionRecord(
            status_since_wall=time.time(), paired=identity.paired, account=identity.account
        )
        said = JournalEntry(
            "restored", f"restored from the trash ({name})", instance=id, wall=time.time()
        )
        await self._store.add(identity.instance, record, said)
        self._registry.add(identity.instance, record)
        self._wakes.wake(id)
        return self.view(id)

    # asking the engine

    async def qr(self, id: InstanceId) -> Qr | None:
        answer = await self._link(id, "show the QR code of").call("qr")
        return _qr_of(answer.get("qr"))

    async def logout(self, id: InstanceId) -> InstanceView:
        link = self._link(id, "log out")
        facts = self._registry.get(id)
        await self._store.append(entry(facts, "operator", "an operator asked for a logout"))
        await link.call("logout", {}, timeout=LOGOUT_TIMEOUT)
        self._wakes.wake(id)
        return self.view(id)

    async def command(
        self, id: InstanceId, name: str, arguments: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        link = self._link(id, f"{name} with")
        return await link.call("command", {"name": name, "arguments": dict(arguments)})

    async def send(self, id: InstanceId, message: Mapping[str, Any]) -> Mapping[str, Any]:
        facts = self._registry.get(id)
        link = self._link(id, "send with")
        try:
            return await link.call("send", {"message": dict(message)}, timeout=SEND_TIMEOUT)
        except LinkError as error:
            # It may have gone out before the worker fell silent: the caller must not guess.
            raise TryLater(
                f"cannot tell whether {facts.id} sent the message: {error}", code="unknown_outcome"
            ) from error

    async def check_now(
        self, ids: Collection[InstanceId] | None = None
    ) -> Mapping[InstanceId, HealthVerdict]:
        """Look at these instances (or all) now, side by side, and say what was found."""
        chosen = list(self._registry.facts) if ids is None else list(ids)
        every = [self._registry.get(id) for id in chosen]
        await asyncio.gather(*(self._check(facts) for facts in every))
        return {facts.id: facts.verdict or NOT_LOOKED_YET for facts in every}

    # repairing

    async def check_instance_health(self, id: InstanceId) -> HealthVerdict:
        """Measure now and judge."""
        return (await self.check_now([id]))[id]

    async def try_recover(self, id: InstanceId) -> RepairResult:
        """One round of all that keeps the pairing."""
        return await self._repair(id, Goal.RECOVER)

    async def cleanup_corrupted(self, id: InstanceId) -> RepairResult:
        """Begin afresh: the session is retired (it can be restored) and a new QR offered."""
        return await self._repair(id, Goal.CLEANUP)

    async def ensure_healthy(self, id: InstanceId) -> RepairResult:
        """Check, recover, and clean up if nothing milder helped: it ends connected or with a QR."""
        verdict = await self.check_instance_health(id)
        if verdict.healthy:
            return RepairResult(healthy=True, cleaned=False, recovered=False, ending="")
        return await self._repair(id, Goal.WORKING_QR)

    def statistics(self) -> RepairStatistics:
        return self._ladder.statistics

    def incidents(self) -> Collection[Incident]:
        return tuple(self._incidents.active.values())

    def release_incident(self, group: str) -> None:
        if group not in self._incidents.active:
            raise NotFound(f"cannot release an incident of {group}: there is none")
        self._incidents.release(group, "released by an operator")

    async def force_reconnection(self, id: InstanceId) -> InstanceView:
        """Try now, whatever the count, the delay and the circuit say."""
        facts = self._registry.get(id)
        facts.record = forgive(facts.record)
        facts.may_try_at_once = True
        said = entry(facts, "operator", "an operator asked for a try now", Category.RECONNECT)
        return await self._intend(facts, said)

    async def reset_circuit_breaker(self, id: InstanceId) -> InstanceView:
        facts = self._registry.get(id)
        facts.record = with_breaker(facts.record, Breaker())
        said = entry(facts, "operator", "an operator closed the circuit", Category.RECONNECT)
        return await self._intend(facts, said)

    async def _repair(self, id: InstanceId, goal: Goal) -> RepairResult:
        facts = self._registry.get(id)
        if not desired_of(facts, self._host).should_run:
            raise Refused(
                f"cannot repair {id}: it is not meant to run; enable or start it first",
                code="not_wanted",
            )
        self._ladder.request(facts, facts.verdict or NOT_LOOKED_YET, goal)
        said = entry(facts, "operator", f"somebody asked for a repair: {goal}", Category.RECOVERY)
        await self._store.append(said)
        self._wakes.wake(id)
        try:
            async with asyncio.timeout(REPAIR_TIMEOUT):
                await facts.repair_over.wait()
        except TimeoutError:
            raise TryLater(
                f"the repair of {id} still goes on after {REPAIR_TIMEOUT:.0f} s",
                code="repair_goes_on",
            ) from None
        ending = facts.repair.ending if facts.repair is not None else Ending.NOT_WANTED
        return RepairResult(
            healthy=ending in (Ending.RECOVERED, Ending.CLEANED),
            cleaned=ending is Ending.CLEANED,
            recovered=ending is Ending.RECOVERED,
            ending=ending,
        )

    # inside

    async def _check(self, facts: Facts) -> None:
        facts.next_probe = 0.0
        async with self._checks:
            await self._passes.run(facts)
        self._wakes.wake(facts.id)  # its next deadline belongs to the loop

    async def _intend(self, facts: Facts, said: JournalEntry) -> InstanceView:
        bound(said.category, facts.id).info("%s", said.sentence)
        await self._registry.save_instance(facts, said)
        self._wakes.wake(facts.id)
        return self.view(facts.id)

    def _interrupt_start(self, facts: Facts) -> None:
        if facts.acting is not None and facts.acting_start:
            facts.acting.cancel()

    async def _retire(self, facts: Facts) -> str:
        try:
            retired = await asyncio.to_thread(retire, self._session_root, facts.id, "deleted")
        except VaultError as error:
            if error.code != "absent":
                raise
            return ""
        return retired.name

    def _link(self, id: InstanceId, doing: str) -> Link:
        facts = self._registry.get(id)
        if facts.link is None:
            raise Refused(
                f"cannot {doing} {id}: its worker does not run or cannot be reached"
                f" ({facts.sentence or 'not looked at yet'})",
                code="not_running",
            )
        return facts.link


def _check_engine(name: str) -> None:
    try:
        find_engine(name)
    except ConfigError as error:
        raise InvalidRequest(str(error), field="engine", code=error.code) from None


def _qr_of(told: Any) -> Qr | None:
    if not isinstance(told, Mapping):
        return None
    text, expires_in, number = told.get("text"), told.get("expires_in"), told.get("number")
    if not isinstance(text, str) or not isinstance(expires_in, int | float):
        raise LinkError("cannot read the QR code: the worker's answer has another form")
    return Qr(text, float(expires_in), number if isinstance(number, int) else 0)


def _by_hand(record: SessionRecord, override: Override, boot: str) -> SessionRecord:
    in_boot = "" if override is Override.NONE else boot
    return replace(record, override=override, override_boot=in_boot)
