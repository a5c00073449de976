"""Makes the sessions of this machine those that the fleet's database says it owns.

The keeper says what this machine owns and until when. A session that is owned and not here is
fetched and started; one that is here and owned elsewhere is stopped and retired to the trash.
Every step can be cut short: the next comparison goes on with it.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from agent.clock import boot_now
from agent.core.fleet.lease import Lease
from agent.core.model import Instance, InstanceId, JournalEntry, Override, SessionRecord
from agent.core.words import NO_LEASE
from agent.errors import Refused, TryLater, VaultError, WaError
from agent.failpoint import failpoint
from agent.fleet.coordinator import NewSession, Owned
from agent.fleet.fleet import Fleet
from agent.host.base import Host
from agent.log import about
from agent.store.database import Store
from agent.supervise.facts import Facts
from agent.supervise.fleet.arrivals import Arrivals, Arrived, waiting_view
from agent.supervise.fleet.epochs import Epochs, Tenancy
from agent.supervise.fleet.leases import Leases
from agent.supervise.fleet.wanted import DISABLED, STOPPED, new_session, wanted_of
from agent.supervise.registry import Registry
from agent.supervise.story import DELETING, entry
from agent.vault.trash import retire

log = logging.getLogger(__name__)

LEAVING = "fleet_leaving"
"""Fact: this machine began to leave. Cut short, it registers its sessions as new ones."""
MOVED = "moved"
"""Why a folder is in the trash."""
AT_ONCE = 8
JOINED_WITHIN, KNOWN_WITHIN = 5.0, 60.0
"""Seconds for a creation right after the agent's start, and for a deletion of before it."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a new session asks of the fleet."""

    labels: Mapping[str, str]
    failover: str
    """"" = as its engine has it."""


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class Ownership:
    fleet: Fleet
    registry: Registry
    store: Store
    host: Host
    root: Path
    epochs: Epochs
    arrivals: Arrivals
    leases: Leases
    wake: Callable[[InstanceId], None]
    forget: Callable[[InstanceId], None]
    """It is gone: neither in a queue nor due for a pass."""
    problems: dict[InstanceId, str] = field(init=False, default_factory=dict)
    """Why an owned session is not here yet."""
    lease: Lease = field(init=False, default=Lease(0.0))
    owned: Mapping[InstanceId, Owned] = field(init=False, default_factory=dict)
    """As the database said it last, with what this machine did since."""
    known: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    """Set when the database has said what this machine owns."""
    left: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    """Set when this machine has left its fleet."""
    wishes: dict[InstanceId, Wishes] = field(init=False, default_factory=dict)
    """Of sessions that are being made."""
    _claimed: dict[InstanceId, Owned] = field(init=False, default_factory=dict)
    """Made by this machine, and not yet in an answer of the database."""
    _losses: int = field(init=False, default=0)
    _released: dict[InstanceId, int] = field(init=False, default_factory=dict)
    """Given away or deleted, and still in an older answer: the epoch that ended."""
    _written: dict[InstanceId, tuple[str, Mapping[str, Any]]] = field(
        init=False, default_factory=dict
    )
    """What the database has of wanted and settings."""
    in_hand: set[InstanceId] = field(init=False, default_factory=set)
    _working: set[InstanceId] = field(init=False, default_factory=set)
    """Sessions that are being fetched or given up."""
    _rung: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _places: asyncio.Semaphore = field(
        init=False, default_factory=lambda: asyncio.Semaphore(AT_ONCE)
    )

    # what the keeper says

    def changed(self, owned: Sequence[Owned], lease: Lease) -> None:
        if self.left.is_set():
            return
        held, self.lease = self.lease.holds(boot_now()), lease
        if not lease.holds(boot_now()):
            self._claimed.clear()
            self.leases.give(lease.until, ())
            return
        if self._losses != self.fleet.keeper.losses:
            self._losses = self.fleet.keeper.losses
            self._released.clear()  # what was given away may have come back
        answer = {InstanceId(it.id): it for it in owned}
        for id in [id for id in self._released if id not in answer]:
            del self._released[id]
        for id in answer.keys() & self._claimed.keys():
            del self._claimed[id]
        kept = {id: it for id, it in answer.items() if it.epoch > self._released.get(id, -1)}
        self.owned = {**kept, **self._claimed}
        self._give_lease()
        self.known.set()
        self._rung.set()
        if not held:
            for id in self.registry.facts:
                self.wake(id)

    def _give_lease(self) -> None:
        """To those whose folder here is the newest; the others' workers end by themselves."""
        until, owned = self.lease.until, self.owned
        self.leases.give(until, [id for id, it in owned.items() if self._is_of(id, it)])

    def wait_reason(self, facts: Facts) -> str:
        """Why this session may not start here; its worker, if it runs, has a deadline itself."""
        if self.left.is_set() or not facts.instance.leased:
            return ""
        held = self.lease.holds(boot_now()) and facts.id in self.owned
        return "" if held and self._is_of(facts.id, self.owned[facts.id]) else NO_LEASE

    def attached(self, id: InstanceId) -> None:
        self.leases.attached(id)

    def _is_of(self, id: InstanceId, owned: Owned) -> bool:
        known = self.epochs.known.get(id)
        return known is None or known.epoch == owned.epoch

    # what requests do

    async def joined(self) -> None:
        """Right after the agent's start a request waits a moment for the database."""
        await _at_most(JOINED_WITHIN, self.fleet.keeper.joined)

    async def claim(self, instance: Instance) -> None:
        """Take an id in the fleet for a session that is made here. Refused: another has it."""
        await self.joined()
        member = self.fleet.keeper.member
        session = self._described(instance, SessionRecord())
        if wishes := self.wishes.get(instance.id):
            failover = wishes.failover or session.failover
            session = replace(session, labels=wishes.labels, failover=failover)
        if not await self.fleet.coordinator.create(member, session, member.id):
            row = await self.fleet.coordinator.session(instance.id)
            mine = row is not None and row.machine == member.id
            # Only a creation that was cut short is made once more: what has run may have a pairing.
            begun = mine and row is not None and row.epoch == 0 and row.copy_at is None
            ran = instance.id in self.registry.facts or await self.fleet.coordinator.views(
                [instance.id]
            )
            if not begun or ran:
                known = "" if row is None else self.fleet.directory.name_of(row.machine)
                raise Refused(
                    f"cannot create {instance.id}: machine {known or '(not known yet)'} of the"
                    " fleet has it already",
                    field="id",
                    code="exists",
                )
        await self.epochs.put({instance.id: Tenancy(0, member.epoch)})
        owned = Owned(
            session.id,
            0,
            session.engine,
            session.wanted,
            session.failover,
            session.labels,
            session.only_on,
            session.settings,
        )
        self._released.pop(instance.id, None)
        self._claimed[instance.id] = owned
        self.owned = {**self.owned, instance.id: owned}
        self._give_lease()
        failpoint("fleet_claimed")

    def refuse_other_engine(self, instance: Instance) -> None:
        """Machines are chosen and copies are judged by the engine in the database's row."""
        owned = self.owned.get(instance.id)
        if owned is not None and owned.engine != instance.engine:
            raise Refused(
                f"cannot replace {instance.id}: the fleet has it with engine {owned.engine}, not"
                f" {instance.engine}; delete it first",
                field="engine",
                code="wrong_engine",
            )

    def _described(self, instance: Instance, record: SessionRecord) -> NewSession:
        return new_session(instance, record, self.host.boot_id(), self.fleet.machine)

    def released(self, id: InstanceId) -> None:
        """It was given away or deleted: an older answer of the database says otherwise for now."""
        owned = self.owned.get(id)
        self._released[id] = owned.epoch if owned is not None else 0
        self._claimed.pop(id, None)
        self._written.pop(id, None)
        self.owned = {other: it for other, it in self.owned.items() if other != id}
        self._give_lease()

    def refuse_unreachable(self) -> None:
        if (error := self.fleet.keeper.database_error) and not self.left.is_set():
            raise TryLater(error, code="fleet_database")

    async def delete(self, id: InstanceId) -> None:
        """Take it out of the fleet; one that is not in it is no fault."""
        if self.left.is_set():
            return
        await _at_most(KNOWN_WITHIN, self.known)
        if (owned := self.owned.get(id)) is not None:
            await self.fleet.coordinator.delete(self.fleet.keeper.member, id, owned.epoch)
        self.released(id)
        await self.epochs.forget([id])

    async def write_through(self, facts: Facts) -> None:
        """What an operator orders holds on the next machine too."""
        owned, told = self.owned.get(facts.id), self._tell(facts)
        if owned is None or self._written.get(facts.id) == told:
            return
        try:
            await self.fleet.coordinator.update(
                self.fleet.keeper.member, facts.id, owned.epoch, wanted=told[0], settings=told[1]
            )
        except TryLater as error:
            sentence = "%s; the agent writes the order into the fleet's database later"
            log.warning(sentence, error, extra=about(facts.id))
            return
        self._written[facts.id] = told

    def _tell(self, facts: Facts) -> tuple[str, Mapping[str, Any]]:
        wanted = wanted_of(facts.instance, facts.record, self.host.boot_id())
        return wanted, dict(facts.instance.settings)

    async def leave(self) -> None:
        """The machine and its rows go out of the database; the sessions stay here and go on."""
        await self.store.put_fact(LEAVING, "")
        failpoint("fleet_leaving")
        here = [id for id, it in self.registry.facts.items() if it.instance.leased]
        if not await self.fleet.requests.leave(self.fleet.keeper.member, list(self.owned)):
            await self.store.forget_facts([LEAVING])
            raise Refused(
                "cannot leave the fleet: this machine owns sessions whose files have not"
                " arrived yet; wa-agent fleet status lists them",
                code="not_settled",
            )
        self.left.set()
        failpoint("fleet_left")
        await self.registry.set_leased(False)
        await self.leases.remove(here)
        await self.epochs.forget(list(self.epochs.known))
        await self.store.forget_facts([LEAVING])
        self.registry.tenure.owner = None
        for id in here:
            self.wake(id)
        log.warning("this machine left its fleet: take [fleet] out of agent.toml before a restart")

    # comparing

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                await self._rung.wait()
                self._rung.clear()
                self.compare(group)
                try:
                    await self._write_all()
                except WaError as error:
                    log.error("%s", error)

    def compare(self, group: asyncio.TaskGroup) -> None:
        """Begin what differs; a session whose files take long holds up no other one."""
        if self.left.is_set() or not self.lease.holds(boot_now()):
            return
        owned, taken = self.owned, self.in_hand | self._working
        self.problems = {id: why for id, why in self.problems.items() if id in owned}
        for id, facts in self.registry.facts.items():
            if id not in taken and not (id in owned and self._is_of(id, owned[id])):
                self._begin(group, id, partial(self._give_up, facts))
        for id, session in owned.items():
            if id not in taken and id not in self.registry.facts:
                self._begin(group, id, partial(self._take_in, session))

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
            if self.problems.get(id) != str(error):
                log.error("%s", error, extra=about(id))
            self.problems[id] = str(error)  # each renewal tries again
            await self._show_waiting(id, error)
        else:
            self.problems.pop(id, None)
            if id not in self.registry.facts:
                self._rung.set()  # it was given up, and may be this machine's again
        finally:
            self._working.discard(id)

    async def _show_waiting(self, id: InstanceId, error: WaError) -> None:
        """The lists have the view of its last machine until this one has it."""
        if id in self.registry.facts or isinstance(error, TryLater):
            return
        with contextlib.suppress(WaError):  # each renewal tries again
            for row in await self.fleet.requests.views([id]):
                view = waiting_view(row, str(error))
                if view != row.view:
                    await self.fleet.requests.publish(self.fleet.keeper.member, {id: view})

    async def _write_all(self) -> None:
        for facts in list(self.registry.facts.values()):
            if (owned := self.owned.get(facts.id)) is None:
                continue
            self._written.setdefault(facts.id, (owned.wanted, dict(owned.settings)))
            await self.write_through(facts)

    # taking in

    async def _take_in(self, owned: Owned) -> None:
        id = InstanceId(owned.id)
        arrived = await self.arrivals.fetch(owned)
        failpoint("fleet_arrived")
        if self.owned.get(id) != owned or id in self.registry.facts:
            return  # it changed meanwhile: the next comparison sees what is in place
        await self.epochs.put({id: Tenancy(owned.epoch, self.fleet.keeper.member.epoch)})
        instance, record = _as_wanted(owned, arrived, self.host.boot_id())
        row = await self.fleet.coordinator.session(id)
        why = row.why if row is not None else ""
        said = JournalEntry(
            "arrived",
            f"it runs on this machine from now on: {why or 'the fleet assigned it'}",
            instance=id,
            wall=time.time(),
            detail={"epoch": owned.epoch},
        )
        await self.store.add(instance, record, said)
        facts = self.registry.add(instance, record)
        self._give_lease()
        facts.saved.identity = arrived.identity
        facts.saved.identity_behind = True
        log.info("%s", said.sentence, extra=about(id))
        self.wake(id)

    # giving up

    async def _give_up(self, facts: Facts) -> None:
        """Another machine owns it, or none does: nothing of it may go on here."""
        row = await self.fleet.coordinator.session(facts.id)
        member = self.fleet.keeper.member
        tenancy = self.epochs.known.get(facts.id)
        if await self.store.get_fact(DELETING + facts.id) is not None:
            return  # the deletion goes on by itself
        # A leave whose answer did not come in time may have happened: the session is still ours.
        leaving = await self.store.get_fact(LEAVING) is not None
        known = tenancy is not None and tenancy.machine_epoch >= member.epoch
        if row is None and (leaving or known):
            await self._register_again(facts)
            return
        if (
            row is not None
            and row.machine == member.id
            and (tenancy is None or tenancy.epoch == row.epoch)
        ):
            return  # it came between two answers
        who = "the fleet has deleted it" if row is None else "another machine of the fleet owns it"
        if row is not None and row.machine == member.id:
            who = "it was on another machine meanwhile, and its newer files are fetched"
        await self.retire(facts, MOVED, f"{who}: this machine's files went to the trash")

    async def _register_again(self, facts: Facts) -> None:
        """The database lost its row, or this machine's leave took it out; no other machine can
        have deleted it."""
        session = self._described(facts.instance, facts.record)
        member = self.fleet.keeper.member
        if await self.fleet.coordinator.register(member, [session]):
            return
        sentence = "the fleet's database had lost this session; it is there again"
        log.warning(sentence, extra=about(facts.id))
        await self.epochs.put({facts.id: Tenancy(0, member.epoch)})
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
        await self.epochs.forget([id])
        self.registry.drop(facts)
        self.forget(id)
        log.warning("%s", sentence, extra=about(id))


async def _at_most(seconds: float, event: asyncio.Event) -> None:
    """What needs it says itself that it has not come."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _as_wanted(owned: Owned, arrived: Arrived, boot: str) -> tuple[Instance, SessionRecord]:
    """Its files say who it is; the database what operators ordered last."""
    instance = replace(
        arrived.identity.instance,
        enabled=owned.wanted not in (DISABLED,),
        settings=dict(owned.settings),
        leased=True,
    )
    stopped = owned.wanted == STOPPED
    record = replace(
        arrived.record,
        override=Override.STOPPED if stopped else Override.NONE,
        override_boot=boot if stopped else "",
    )
    return instance, record
