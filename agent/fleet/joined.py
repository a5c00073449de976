"""Joined: this machine's part in its fleet, from `[fleet]` to its sessions' records."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Container
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from agent import VERSION
from agent.clock import boot_id, boot_now
from agent.core.words import SUSPECT, InstanceId, SessionFiles
from agent.engines.catalog import engine_names, remote_engines
from agent.errors import NotFound, Refused, TryLater, WaError
from agent.files import write_whole
from agent.fleet import arriving, etcd, forward, peers, records, running, settings, shown, taking
from agent.fleet.copies.change import FleetKey
from agent.fleet.copies.sender import Copies
from agent.fleet.etcd import Get, Put, Same, StoreAway
from agent.fleet.keeper import Keeper
from agent.log import about, going_on, log
from agent.messages.sending import Sending
from agent.supervise import assemble
from agent.supervise.facts import Facts
from agent.vault import folders, tree

LOOK_EVERY, MOVES_AGAIN = 1.0, 300.0
"""Seconds between two looks for sessions whose records are not up to date; and between two tries to
move a session from a machine that is drained."""
FLUSHES, LOOKS = 5.0, 0.05
"""Seconds at an ordered stop, and before an order is answered, for the last changes to reach the
machines with copies; and between two looks if they have."""
DRAINED, LASTS, GONE = "drained", "say that this lasts", "deleted"
"""File of an order that lasts; what cannot be said of an order that was carried out; `wanted` of a
session that the fleet deleted, with the epoch of the next one of its name."""
KERNEL, AT_ONCE = 2.0, 16
"""Seconds past its lease after which no worker is left: `margin` is more; and sessions whose files
are brought in at the same time."""
OWN, MANY = 1 << 53, 9999
"""Number of the last change of a session's own folder: no copy of its epoch is newer; and sessions
that a machine has room for that limits no memory."""

Orders = dict[str, tuple[str, int]]
"""For each session of this machine `wanted` of its record, as carried out here, and the epoch of
its files."""


def wanted_of(facts: Facts) -> str:
    return "running" if facts.should_run else "stopped"


class Joined(running.Running):
    """This machine in its fleet. Each agent whose agent.toml has `[fleet] store` has one."""

    def __init__(self, supervisor: assemble.Supervisor, state: Path) -> None:
        self.settings = settings.fleet_of(supervisor.settings.config)
        super().__init__(supervisor)
        self.fleet, self.name = self.settings.names
        self.folder, self.keys = state / "fleet", records.Keys(self.fleet)
        self._path = self.folder / "orders.json"
        self._problem = "the agent has not reached etcd yet"
        self._keeping: asyncio.Task[None] | None = None
        self.told = dict[str, str]()
        self.drained, self._has_room = False, True
        """drained: True if an operator ordered that it takes no session, and gives away its own."""
        self._tried = dict[str, float]()
        """Boot time of the next try to move a session away, since the last order to drain."""
        self._orders, self._written = Orders(), Orders()
        """_written: as on the disk, so that the next agent carries no order out again."""
        self._deleted_here = dict[str, int]()
        """Session deleted here → epoch. One whose folder was lost is in no trash."""
        self.unsettled = dict[str, str]()
        """Why the files of a session that this machine owns are not here."""
        self.copies: Copies | None = None
        """Copies of sessions; None: there is no key of the fleet, and nothing is copied."""
        self._copies_open = asyncio.get_running_loop().create_future()
        self._store: etcd.Etcd | None = None
        self.views, supervisor.gate.fleet = supervisor.views, self

    forward, others, own = forward.forward, forward.others, forward.own
    show, troubles = shown.show, shown.troubles

    def begin(self, sending: Sending, api: Any) -> dict[str, Callable[[], Awaitable[object]]]:
        """Return the fleet's tasks. `api` makes the server that answers other machines."""
        self.api = partial(api, partial(forward.enter, self))
        self._arriving = arriving.Arriving(self._supervisor, sending)
        sending.limits.sure, self._senders = self.is_sure_of, sending.senders
        tasks = {"fleet": self.run, "records of the fleet": self.keep_records}
        tasks |= {"copies": self.keep_copies, "listener for other machines": self.keep_listening}
        return {**tasks, "agent.toml": self.make_declared, "drain": self.keep_drained}

    @property
    def problem(self) -> str:
        """Why this machine has no place in the fleet; "" = it has one."""
        known = self.keeper.problem if self.keeper else ""
        return known or ("" if self.view.revision else self._problem)

    @property
    def view(self) -> taking.View:
        return self.keeper.view if self.keeper else taking.View()

    async def run(self) -> None:
        """Run until cancelled. The keeper works on: sessions are saved and closed with leases."""
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.create_task(self._keep(), name="keeper of the fleet")
        await asyncio.wait({self._keeping})
        self._keeping.result()

    async def close(self, *, leave: bool) -> None:
        if self.copies is not None and not leave:
            last = self.copies.flush(), self.copies.run()
            flushes, sends = (asyncio.create_task(it, name="last copies") for it in last)
            await asyncio.wait({flushes}, timeout=FLUSHES)
            _ = flushes.cancel(), sends.cancel()
            await asyncio.wait({flushes, sends})
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        with going_on("cannot tell the fleet that this machine stopped"):
            if self.keeper is not None and not leave and not await self.workers():
                await self.keeper.release()
        if self._store is not None:
            await self._store.aclose()
        if self.copies is not None:
            await self.copies.peers.close()

    async def _keep(self) -> None:
        try:
            await asyncio.to_thread(self.folder.mkdir, mode=0o700, exist_ok=True)
            had = self._path.read_bytes() if self._path.exists() else b"{}"
            self._written = records.decoded(had, Orders) or {}
            self._orders = self._written | self._orders
            await self._open_copies()
            self.drained = await asyncio.to_thread((self.folder / DRAINED).exists)
            tls, disk = peers.tls_of(self.folder), self.folder.stat()
            store = self._store = self._store or etcd.Etcd(self.settings.store, tls)
            here, draw = f"{boot_id()} {disk.st_dev}:{disk.st_ino}", random.SystemRandom()
            common = await self._common(store)
            keeper = Keeper(store, fleet=common, runner=self, boot_and_folder=here, draw=draw)
        except (WaError, OSError) as error:
            self._problem = str(error)
            raise
        self.keeper = keeper
        await keeper.run()

    async def _open_copies(self) -> None:
        """Open the copies. None are made without the fleet's key, or an address for others."""
        path, root = self.folder / "fleet.key", self._supervisor.root
        if self.copies is None and self.settings.address and path.exists():
            key = await asyncio.to_thread(FleetKey.read, path)
            self.copies = await asyncio.to_thread(Copies, self, root, key)
            self._copies_open.set_result(self.copies)

    async def keep_copies(self) -> None:
        await (await asyncio.shield(self._copies_open)).run()

    async def keep_listening(self) -> None:
        """Take the copies of other machines, and what they forward."""
        await (await asyncio.shield(self._copies_open)).peers.run()

    def engines(self) -> dict[InstanceId, str]:
        """Return session → engine, for those owned here whose newest files are here."""
        owned, here = self.view.owned(self.name), self.here()
        mine = (InstanceId(id) for id in owned.keys() & here.keys() if self.settled(id, owned[id]))
        return {id: here[id].instance.engine for id in mine}

    async def _common(self, store: etcd.Etcd) -> records.Fleet:
        """Return the times of the fleet, which its first machine writes."""
        key = self.keys.common
        while True:
            try:
                put = Put(key, records.encoded(records.Fleet()))
                answer = await store.commit([Same(key, 0)], [put, Get(key)], [Get(key)])
                value = answer.found[0][0].value
                fleet = records.decoded(value, records.Fleet)
                if fleet and fleet.tables > records.TABLES:
                    raise TryLater(f"cannot join fleet {self.fleet}: it needs a newer wa-agent")
                if fleet and fleet.margin > KERNEL and fleet.usable > fleet.renew_every:
                    return fleet
                raise TryLater(f"cannot use {value!r:.80} of {key}: want 2 < margin < 5/6 of ttl")
            except StoreAway as error:
                self._problem = str(error)
            await asyncio.sleep(LOOK_EVERY)

    def elsewhere(self, id: str) -> str:
        """Return the other machine that has the session; "" = none has it."""
        there = self.view.sessions[id].record.machine if self.has(id) else ""
        return "" if there == self.name else there

    def has(self, id: str) -> bool:
        return id in self.view.sessions and not self.view.sessions[id].record.deleted

    async def make_declared(self) -> None:
        """Make sessions of agent.toml that no machine has, once the store said so."""
        while not self._may_write():
            await self.clock.sleep(LOOK_EVERY)
        await assemble.create_declared(self._registry, self._supervisor.settings.config.instance)

    def may_make(self, id: InstanceId, doing: str) -> None:
        own, there = self.view.owned(self.name).get(id), self.elsewhere(id)
        # One that is on its way here has no cause yet why its files do not come.
        comes = own and not self.settled(id, own) and not self.unsettled.get(id)
        if there or (comes and doing != f"{arriving.BRING_IN} {id}"):
            cause = f"machine {there or self.name} of this fleet has a session of that name"
            raise Refused(f"cannot {doing}: {cause}", field="id", code="exists")
        if self.halted or not self.view.revision:
            raise self._not_sure(doing)
        if self.drained and not own:  # what was given to it before that comes, and goes on
            raise Refused(f"cannot {doing}: {self.name} is drained; ask another machine")
        if id not in self.here():  # what a deleted session of that name had
            self._orders = {it: known for it, known in self._orders.items() if it != id}

    async def made(self, id: InstanceId, doing: str) -> None:
        if (facts := self.here().get(id)) is None:  # a backend's
            return
        await self._written_down(id)
        if self.elsewhere(id):  # it was first
            await self._give_up(facts, "deleted", "another machine made a session of that name")
            self.may_make(id, doing)
        if self._owes(id):
            raise self._not_sure(LASTS)

    async def find(self, id: str) -> None:
        """It may be one of another machine's that this one has not heard of, or be on its way
        here. A backend's needs no etcd."""
        if id in self._registry.facts:
            return
        pairs = (await self.reached().read(Get(self.keys.session(id)))).found[0]
        record = records.decoded(pairs[0].value, records.Session) if pairs else None
        if record is None or record.deleted:
            return
        if record.machine == self.name:
            cause = self.unsettled.get(id) or "its files are brought in, or its end is written down"
            raise TryLater(f"cannot find {id} now: {cause}", code="owner_changed")
        self.view.sessions[id] = taking.Seen(record, pairs[0].revision, boot_now())

    def lacks(self, id: str, doing: str) -> NotFound:
        other = id in self._registry.facts and id not in self.here()
        why = "a backend's session is no part of it" if other else "it has no session of that name"
        return NotFound(f"cannot {doing} {id} in the fleet: {why}", field="id")

    async def kept(self, id: InstanceId) -> None:
        if id not in self.here() and (record := self.view.owned(self.name).get(id)):
            self._deleted_here[id] = record.epoch
        await self._written_down(id)
        if self._owes(id) or not self._registry.stopping:
            await self.be_sure(LASTS, id, deletes=False)

    async def _written_down(self, id: InstanceId) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSHES):
                while self._owes(id):
                    self.started.set()
                    await asyncio.sleep(LOOKS)
                if self.copies is not None:
                    await self.copies.flush(id)

    def _owes(self, id: InstanceId) -> bool:
        """True if the record does not have an order that was carried out here."""
        record = self.view.owned(self.name).get(id)
        if (facts := self.here().get(id)) is not None:
            return self._newer(id, facts) is not None
        return record is not None and self.settled(id, record)

    async def be_sure(self, doing: str, id: str, *, deletes: bool) -> None:
        """Return when an order would last: this machine holds its lease, and keeps the session."""
        ends = boot_now() + FLUSHES
        # Until the store hears of an order another machine would go on without it.
        while self._registry.stopping or (deletes if self.halted else not self._may_write()):
            starts = (self.keeper and self.keeper.starts_at) or 0.0
            if self._registry.stopping or boot_now() > max(ends, starts + LOOKS):
                raise self._not_sure(doing)
            await asyncio.sleep(LOOKS)
        # The lease may be the first one after the loss of the session, as after a freeze.
        if not self.is_sure_of(id):
            why, what = self.why(id) or "it changes its machine", id or "a new session"
            raise TryLater(f"cannot {doing} for {what}: {why}; try again", code="owner_changed")

    def is_sure_of(self, id: str) -> bool:
        """False if another machine has the session, or may have it soon, with its messages."""
        leaves = self.keeper is not None and id in self.keeper.leaving
        return not (leaves or self.elsewhere(id)) and boot_now() < self._until

    def _may_write(self) -> bool:
        return self.keeper is not None and self.keeper.may_start() and not self.problem

    def _not_sure(self, doing: str) -> TryLater:
        why = "the agent stops" if self._registry.stopping else self.problem or "it has ended"
        words = f"machine {self.name} has no lease to write with: {why}"
        return TryLater(f"cannot {doing}: {words}", code="unsure" if doing is LASTS else "no_lease")

    def why(self, id: str) -> str:
        if there := self.elsewhere(id):
            return f"it is a session of machine {there}"
        if self.problem:
            return f"machine {self.name} has no place in its fleet: {self.problem}"
        return self.unsettled.get(id, "")

    # Records of the sessions here. An order is either this machine's or in the record already.

    async def keep_records(self) -> None:
        while True:
            await self.clock.wait(self.started, LOOK_EVERY)
            self.started.clear()
            if self.keeper is not None and self.view.revision:
                with going_on("cannot bring the records of the fleet up to date", self.told):
                    least = self._supervisor.settings.config.start.disk_free
                    room = partial(folders.has_room, self._supervisor.root, least)
                    self._has_room = await asyncio.to_thread(room)
                    if self.copies is not None:
                        await self._miss(self.copies)
                    await self._settle(self.keeper)
                    await self._carry_out()
                    await self._change(self.keeper)

    def settled(self, id: str, record: records.Session) -> bool:
        return id in self._orders and self._orders[id][1] == record.epoch

    async def _miss(self, copies: Copies) -> None:
        """A session whose files are lost goes on with a copy in sync, or the newest of all. Where
        all folders are away that this agent has never seen, their disk may come yet."""
        away, rows, root = copies.away, copies.rows, self._supervisor.root
        seen = [it for it in away if rows[it].changed.as_of or (root / it).exists()]
        for id in away if len(away) < len(rows) else seen:
            async with copies.peers.lock(id):  # it is of an earlier loss
                await asyncio.to_thread(copies.standby.forget, id)
            if (facts := self.here().get(id)) is None:  # it was deleted meanwhile
                continue
            record = self.view.sessions[id].record
            silent = await copies.fetch_newer(id, record.copies or self.view.machines)
            found = (copies.standby.newest(id) or (-1, 0))[0] == record.epoch
            files = (await asyncio.to_thread(tree.inspect, root / id, facts.instance.engine)).files
            # A worker may write damaged ones again. After a logout there is a word of WhatsApp's.
            damaged = files is SessionFiles.DAMAGED and not facts.verdict.healthy
            unpaired = files is SessionFiles.UNPAIRED and facts.verdict.reason == SUSPECT
            lost = damaged or unpaired or files is SessionFiles.ABSENT
            if found and lost and not facts.busy.locked() and (record.copies or not silent):
                await self._write({id: (record.wanted, -1)})
                rows.pop(id, None)

    async def _settle(self, keeper: Keeper) -> None:
        """Bring in the files of what this machine took over, and retire those of what went on
        elsewhere."""
        owned = self.view.owned(self.name)
        new = [(InstanceId(id), it) for id, it in owned.items() if not self.settled(id, it)]
        self.unsettled = {id: self.unsettled.get(id, "") for id, _ in new}
        for at in range(0, len(new) if self._may_write() else 0, AT_ONCE):
            batch = new[at : at + AT_ONCE]
            came = await asyncio.gather(*(self._arrive(*each) for each in batch))
            known = {str(id): (self._done(id, it), it.epoch) for id, it in batch if id in came}
            if known:  # written before one of them starts: its copy is older from then on
                await self._write(known)
                keeper.wake()
        for id, facts in self.here().items():
            owned = self.view.owned(self.name)  # it may have come back in the meantime
            if id not in owned and not keeper.halted and (why := self._went_on(id)):
                with going_on(f"the old folder of {id} stays", self.told):
                    await self._give_up(facts, *why)
        for id in self._senders.keys() - self._registry.facts.keys() if self.copies else ():
            if self.elsewhere(id) and not keeper.halted:
                with going_on(f"messages of {id} stay", self.told):
                    await self._let_go(id, moved=True)

    async def _give_up(self, facts: Facts, kind: str, why: str) -> None:
        await self._pass_on(facts.id)
        await self._arriving.retire(facts, kind, why)
        await self._let_go(facts.id, moved=kind == "moved")

    async def _let_go(self, id: InstanceId, *, moved: bool) -> None:
        """Bring messages accepted since the folder began to go to the new machine; delete them."""
        await self._pass_on(id)
        if not moved or (self.copies and self.elsewhere(id)):
            await self._arriving.let_go(id, moved=moved)

    def _done(self, id: str, record: records.Session) -> str:
        """`wanted` as carried out here: nothing yet, unless no other machine had it since this one
        did. Then an order of this machine that the record does not have yet counts."""
        return record.wanted if record.epoch == self._orders.get(id, ("", 0))[1] + 1 else ""

    async def _arrive(self, id: InstanceId, record: records.Session) -> str:
        """The id, once its newest files are here: the copy, if that is of a later epoch than the
        folder."""
        epoch, copies, cause = self._orders.get(id, ("", 0))[1], self.copies, ""
        try:
            if copies is not None:
                silent = await copies.fetch_newer(id, record.copies)
                newest = copies.standby.newest(id) or (-2, 0)
                # Who takes it over has a copy in sync; an older disk must hear of each.
                if silent and (newest[0] <= epoch or record.epoch == epoch + 1):
                    raise TryLater(f"newer files of it may be elsewhere: {silent}")
                if newest[0] > epoch:
                    async with copies.peers.lock(id):
                        files = await asyncio.to_thread(copies.standby.build, id)
                    why = f"machine {self.name} goes on with it, from its copy {newest}"
                    await self._arriving.bring_in(id, files, why)
                    epoch = newest[0]
            if id in self.here():
                if record.epoch > epoch + 1:  # another machine had it, and its files are nowhere
                    await self._arriving.lacks_newest(id)
                return id
            cause = f"its folder is not on {self.name}, nor a copy that opens: restore or delete it"
        except (WaError, OSError) as error:
            cause = str(error)
            if copies is not None and getattr(error, "code", "") == "damaged":
                async with copies.peers.lock(id):
                    await asyncio.to_thread(copies.standby.set_aside, id)
        if cause != self.unsettled[id]:
            log.error("cannot go on with it: %s", cause, extra=about(id))
        self.unsettled[id] = cause
        return ""

    def _went_on(self, id: str) -> tuple[str, str] | None:
        """How the trash and the journal call it that the session went on without this folder;
        None: it did not, or no other machine has a copy of its newer files yet."""
        seen, known = self.view.sessions.get(id), self._orders.get(id)
        if seen is None or known is None or seen.record.epoch < known[1]:
            return None
        if (last := seen.record).deleted:
            return "deleted", f"it was deleted on machine {last.machine}"
        newest = self.copies.standby.newest(id) if self.copies else None
        here = self.name not in last.copies or (newest is not None and newest[0] >= last.epoch)
        safe = here and last.epoch > known[1] and (last.copies or last.failover == "wait")
        return ("moved", f"it goes on on machine {last.machine}") if safe else None

    async def _pass_on(self, id: InstanceId) -> None:
        """Send the messages that were only accepted here to the machine that has the session
        now."""
        if (there := self.elsewhere(id)) and self.copies is not None:
            files = await asyncio.to_thread(self._arriving.messages, id)
            await self.copies.peers.pass_on(self.copies.address(there), there, id, files)

    async def take_messages(self, id: InstanceId, files: arriving.Files) -> None:
        if id not in self.engines():
            raise TryLater(f"cannot take messages of {id}: it is not here", code="not_owner")
        await self._arriving.take_over(id, files)

    async def keep_drained(self) -> None:
        """Give sessions away, one after the other, while an operator's order says so. One that
        cannot be moved was ended for the try: the next try of it is later."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            for id in sorted(self.engines()) if self.drained else ():
                due = self.drained and boot_now() >= self._tried.get(id, 0.0)
                may = due and self._may_write() and not self._registry.stopping
                if may and (target := self.place_for(id)[0]):
                    with going_on(f"{id} stays here", self.told):
                        await self.move(id, target)

    async def drain(self, on: bool) -> dict[str, str]:
        """An order that lasts, whatever becomes of the agent. Returns sessions that stay, and why,
        until a machine can take them."""
        path = self.folder / DRAINED
        work = partial(write_whole, path, b"") if on else partial(path.unlink, missing_ok=True)
        await asyncio.to_thread(work)
        self.drained = on
        self._tried.clear()
        if self.keeper is not None:  # other machines hear of it at once
            self.keeper.wake()
        found = {id: self.place_for(id) for id in self.view.owned(self.name) if on}
        return {id: why for id, (there, why) in found.items() if not there}

    def place_for(self, id: str) -> tuple[str, str]:
        """Return a machine for the session; none that its copies do not reach now."""
        lines = self.copies.lines if self.copies else {}
        return self.view.place_for(id, {name: it.cause for name, it in lines.items()})

    def part(self, doing: str) -> tuple[Keeper, Copies]:
        """Return the keeper and the copies; TryLater: this machine takes no part now."""
        if self.keeper is None or self.copies is None:
            words = f"machine {self.name} has no part in the fleet: {self.problem or shown.NO_PART}"
            raise TryLater(f"cannot {doing}: {words}", code="no_part")
        return self.keeper, self.copies

    async def move(self, id: str, target: str) -> None:
        """End the session here and let `target` go on with it."""
        keeper, copies = self.part(f"move {id}")
        if not self.has(id):
            raise self.lacks(id, "move")
        if target not in self.view.machines:
            raise NotFound(f"cannot move {id}: the fleet has no machine {target}", field="id")
        if target == (there := self.elsewhere(id) or self.name):
            raise Refused(f"cannot move {id}: machine {target} has it already")
        if id not in self.engines():  # an older folder may lie here
            raise Refused(f"cannot move {id}: it is a session of machine {there}; ask there")
        # The session ends here for no machine that does not answer.
        await copies.peers.send(copies.address(target), target, ())
        self._tried[id] = boot_now() + MOVES_AGAIN
        push = partial(copies.push, InstanceId(id), target)
        if (there := await keeper.hand_over(id, target, push)) != target:
            raise TryLater(f"cannot move {id}: machine {there} has it; try again")

    async def drop(self, id: str) -> None:
        """Delete a session that no machine has, unless a copy may still be somewhere."""
        keeper, copies = self.part(f"delete {id}")
        it = self.view.sessions[id].record
        silent = await copies.fetch_newer(InstanceId(id), it.copies)
        kept = silent or (copies.standby.newest(id) and f"a copy of it is on {self.name}")
        if kept or not await keeper.change({id: replace(it, deleted=True)}):
            raise TryLater(f"cannot delete {id} now: {kept or self.why(id)}", code="owner_changed")

    async def _carry_out(self) -> None:
        """Carry out each order of another machine once: the order is written down first."""
        do, orders = list[InstanceId](), self._supervisor.orders
        owned, here = self.view.owned(self.name), self.here()
        gone = {id: it.record for id, it in self.view.sessions.items() if it.record.deleted}
        known = {id: (GONE, it.epoch + 1) for id, it in gone.items()}
        # Under a halt the view may be of an older store, which knows of no deletion since.
        stay = {*owned, *here, *(self._orders if self.halted else ())}
        self._orders = known | {id: it for id, it in self._orders.items() if id in stay}
        changes = Orders()
        for id in self.engines():
            record = owned[id]
            if record.wanted not in (self._orders[id][0], wanted_of(here[id])):
                do.append(id)
            changes[id] = record.wanted, record.epoch
        await self._write(changes)
        for id in do:
            log.info("another machine's order: %s", changes[id][0], extra=about(id))
            with going_on():
                await (orders.start if changes[id][0] == "running" else orders.stop)(id)

    def has_copy(self, id: InstanceId) -> bool:
        return id in self.view.sessions and bool(self.view.sessions[id].record.copies)

    def copied(self) -> Container[str]:
        """Sessions here as a copy, or as the folder of one given away that ran nowhere else."""
        went = filter(self.elsewhere, self.here().keys() & self._orders.keys())
        left = {id for id in went if self.view.sessions[id].record.epoch == self._orders[id][1] + 1}
        return left.union(self.copies.standby.rows if self.copies and self._has_room else ())

    async def distrust(self) -> None:
        """This disk is an older image: prefer copies to its folders, also those of the same epoch,
        and take no session over with a copy that is on it."""
        await self._write({id: (wanted, epoch - 1) for id, (wanted, epoch) in self._orders.items()})
        if self.copies is not None:
            await asyncio.to_thread(self.copies.standby.set_aside)

    async def _write(self, changes: Orders) -> None:
        """Write orders: they count once they are on the disk; `may_make` may forget one."""
        if (known := self._orders | changes) != self._written:
            await asyncio.to_thread(write_whole, self._path, records.encoded(known))
        self._written, self._orders = known, self._orders | changes

    async def _change(self, keeper: Keeper) -> None:
        """Change records that do not say what this machine knows of its sessions."""
        found = {id: self._newer(id, facts) for id, facts in self.here().items()}
        every = [*found.items(), *(await self._deleted()).items()]
        if not (due := dict([(id, it) for id, it in every if it is not None][: taking.BATCH])):
            return
        with suppress(TryLater):  # the next renewal says what became of it
            if await keeper.change(due):
                done = {id: (it.wanted, it.epoch) for id, it in due.items() if not it.deleted}
                await self._write(done)
            keeper.wake()

    def _newer(self, id: str, facts: Facts) -> records.Session | None:
        record = self.view.sessions[id].record if id in self.view.sessions else None
        if record and (known := self._orders.get(id)) and record.epoch + record.deleted > known[1]:
            return None  # its folder is an older one
        wanted, engine = wanted_of(facts), facts.instance.engine
        how = "newest" if engine in records.COPIED_LIVE else "wait"
        program = facts.instance.settings.get("program", "") if engine == "program" else ""
        own: Any = {"engine": engine, "failover": how, "wanted": wanted, "program": program}
        if record is None or record.deleted:
            return records.Session(self.name, record.epoch + 1 if record else 1, **own)
        copies = record.copies if engine in records.COPIED_LIVE else ()  # it has its files itself
        # After `accept` neither is in a record that the store did not know.
        now = replace(record, copies=copies, **own)
        return now if record.machine == self.name and now != record else None

    async def _deleted(self) -> dict[str, records.Session]:
        """Sessions that were here and are in the trash now. One whose folder has not come yet was
        not here, unless `accept` found it nowhere."""
        owned, root = self.view.owned(self.name), self._supervisor.root
        copied = self.copies.standby.rows if self.copies else {}
        bare = ((id, it) for id, it in owned.items() if not (it.copies or id in copied))
        unclaimed = {id for id, it in bare if it.wanted == "stopped"}
        gone = {id for id, it in owned.items() if self.settled(id, it)} | unclaimed
        if not (gone := gone - self.here().keys()):
            return {}
        trash = await asyncio.to_thread(folders.list_trash, root)
        known = {it.id for it in trash if it.why == "deleted" and not (root / it.id).exists()}
        gone &= known | {id for id in gone if self._deleted_here.get(id) == owned[id].epoch}
        return {id: replace(owned[id], deleted=True) for id in gone}

    def describe(self) -> records.Machine:
        """Return this machine's record, to which the keeper adds agent, n and word."""
        known, each = self._supervisor.settings, self._supervisor.settings.config.memory.instance
        room = (known.memory_budget() or MANY * each) // each if each else MANY
        mine = [(id, why) for machine, id, why in self.troubles() if id and machine == self.name]
        return records.Machine(
            address=self.settings.address,
            version=VERSION,
            capacity=room if self._has_room else 0,
            closed=not self._has_room,
            used=len(self.running()),
            engines=tuple(it for it in engine_names() if it not in remote_engines()),
            programs=tuple(it.name for it in known.config.rows.get("program", ())),
            drained=self._registry.stopping or self.drained,
            lacks=dict(mine[:20]),
            key=self.copies.mark if self.copies else "",
        )

    def held(self) -> dict[str, records.Held]:
        """Return sessions whose files this machine has: as their owner, or as a copy."""
        runs, known = self.running(), self._orders
        held = {id: (epoch, -1, 0) for id, (wanted, epoch) in known.items() if wanted == GONE}
        held |= {id: (known[id][1], int(id in runs), OWN) for id in self.here() if id in known}
        for id, rows in self.copies.standby.rows.items() if self.copies else ():
            held[id] = max(held.get(id, (0, 0, 0)), (rows[-1].epoch, 0, rows[-1].number))
        return held

    def reached(self) -> etcd.Etcd:
        """Return the store, for decisions and views of an operator."""
        if self._store is None or self.keeper is None:
            raise TryLater(f"cannot reach the fleet: {self.problem}")
        return self._store
