"""Keeper: holds this machine's place in the fleet, and with it the right to run its sessions.

A worker of a fenced session is connected only before a moment T of this machine's boot clock.
T is at most the begin of a committed renewal, and ttl less margin. A machine that declares another
lost saw that renewal, after its commit, stand still for ttl by its own clock, and its
compare-and-swap proves that no later one was committed. No clock but this machine's own is read.

Each write that moves a session names this machine's last renewal. So the next renewal makes void
what is still on its way, and its answer says what became of it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from agent.clock import boot_now
from agent.engines.tasks import until_set
from agent.errors import TryLater
from agent.files import write_whole
from agent.fleet.etcd import Delete, Etcd, Get, Pair, Put, Same, StoreAway
from agent.fleet.records import Claim, Fleet, Halt, Machine, Session, decoded, encoded, named
from agent.fleet.taking import BATCH, Seen, View, read_halt
from agent.log import log

if TYPE_CHECKING:
    from agent.fleet.joined import Joined

PAUSE = 0.1
"""Seconds between renewals at least, however often the keeper is woken."""
COMPACT_EVERY, KEPT = 600.0, 30 * 86400.0
"""Seconds between two compactions; and for which the first machine keeps the record of a deleted
session: its next agent counts them from its begin."""
NOTED = 20
"""Renewals after which the disk notes the last one."""


class BootClock:
    """This machine's boot clock, and waits by it."""

    def now(self) -> float:
        return boot_now()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def wait(self, woken: asyncio.Event, seconds: float) -> None:
        """Wait for the event, `seconds` at most."""
        await until_set(woken, seconds)


class Past(Struct, frozen=True):
    """Last begin that this disk knows of: the file agent.json."""

    agent: str
    boot_and_folder: str
    cluster: str
    revision: int = 0
    """Revision that the store had at that begin."""
    released: bool = False
    """True if that agent stopped in order: a disk without it is an older image."""
    n: int = 0
    """Number of the last renewal that was noted."""
    halted: bool = False
    """True if that one was under a halt; `revision` and `cluster` are of the store before it."""

    def is_halted(self, found: Machine) -> bool:
        """True if that agent itself went on in this store, under a halt."""
        return self.halted and found.agent == self.agent and found.n >= self.n

    def is_older(self, found: Machine) -> bool:
        """True if the store knows later renewals of this machine: the disk is an older image."""
        later = found.agent != self.agent or (found.released and not self.released)
        return later or found.n > self.n + 2 * NOTED


def how_to_begin(
    past: Past | None, found: Machine | None, here: str, stood: float, ttl: float
) -> bool | None:
    """True: nothing of this machine runs, it starts its sessions at once. False: workers of the
    last agent may run, it extends them and starts none for a ttl. None: wait, the record may be of
    a twin that lives. `here`: boot and folder. `stood`: seconds for which it did not change."""
    if stood >= ttl or (past is None and found is None):
        return True
    if past is None or found is None or found.agent != past.agent:
        return None
    if found.lost or (found.released and past.released):
        return True
    return False if past.boot_and_folder == here and not found.released else None


class Keeper:
    """One for each agent of a fleet. `run` ends only when it is cancelled.

    The agent holds the lock of its state folder: no other agent of this disk lives in this boot.
    """

    def __init__(
        self, store: Etcd, *, fleet: Fleet, runner: "Joined", boot_and_folder: str, draw: Random
    ) -> None:
        """`boot_and_folder`: ids of both, as one text."""
        self.store, self.keys, self.fleet, self.clock = store, runner.keys, fleet, runner.clock
        self.runner, self.name = runner, runner.name
        self._path, self._here, self._draw = runner.folder / "agent.json", boot_and_folder, draw
        self.view = View()
        self.until = 0.0
        """Boot time until which this machine may run its sessions."""
        self.problem = ""
        """Why this machine has no place in the fleet now, or why it changes nothing; "" if fine."""
        self._own = Pair(self.keys.machine(self.name), b"", 0)
        """This machine's record, as far as it is known."""
        self._agent, self._cluster = "", ""
        self._past: Past | None = None
        self._n = self._acknowledged = self._noted = 0
        self._last, self._unanswered = Machine(), dict[str, float]()
        """Begin of each renewal without an answer, by its word."""
        self._fresh = True
        self.starts_at: float | None = None
        """Boot time from which sessions may start here; None before the first renewal."""
        self._elsewhere = False
        """True if the store is another cluster than the one of agent.json."""
        self._ending: asyncio.Task[None] | None = None
        self._suspicion = ""
        """How the store went back; "" = it did not, as far as this machine knows."""
        self._claimed = ""
        """Id of the halt under which this machine said what it has."""
        self.leaving, self._settling = set[str](), set[str]()
        """Sessions that are handed over; those of them that the next renewal decides."""
        self._renewed, self._woken = asyncio.Event(), asyncio.Event()
        self.wake = self._woken.set
        self._compacts_at, self._compacts = 0.0, 0

    @property
    def halted(self) -> bool:
        """True if no session may start, end or change its machine."""
        return self.view.halt is not None or bool(self._suspicion)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(), name="watch of the fleet's store")
            while True:
                await self._begin_again()
                while await self._renew(group):
                    await self._take_over()
                    await self._compact()
                    await self.clock.sleep(PAUSE)
                    await self.clock.wait(self._woken, self._rest())
                if self._acknowledged:
                    self._note("its record is lost or another's: all its sessions end")
                    await self.runner.end_all()

    async def release(self) -> None:
        """Called after `run` was cancelled and the last worker has ended: the next begin need not
        wait."""
        if not self._acknowledged:
            return
        await asyncio.to_thread(self._write_past, self._own.revision, released=True)
        with suppress(StoreAway):
            put = Put(self._own.key, encoded(replace(self._last, released=True)))
            await self.store.commit([self._unchanged()], [put])

    async def hand_over(self, id: str, target: str, push: Callable[[], Awaitable[object]]) -> str:
        """End the session here and give it to `target`. Return the machine whose it is then: it
        runs here again, or this machine was lost meanwhile and another one took it. `push`: called
        once it has ended, brings its files there."""
        if id not in self.view.owned(self.name) or id in self.leaving or not self._may_move():
            why = self.problem or "this machine does not own it for sure now"
            raise TryLater(f"cannot hand over {id}: {why}")
        if fault := self.view.fault(id, self.view.machines[target].record):
            raise TryLater(f"cannot hand over {id} to machine {target}: {fault}")
        seen = self.view.sessions[id]
        self.leaving.add(id)
        try:
            await self.runner.end({id})
            await push()
            with suppress(StoreAway):
                while (it := self.view.owned(self.name).get(id)) and it.epoch == seen.record.epoch:
                    moved = replace(it.taken_by(target), copies=(self.name,))
                    if not self._may_move() or await self._move({id: moved}):
                        break
                    # A renewal or a change that was on its way came first: once more after it.
                    await until_set(self._renewed, self.fleet.ttl)
        finally:
            self._settling.add(id)
            self.wake()
        await until_set(renewed := self._renewed, self.fleet.ttl)
        if not renewed.is_set():
            raise TryLater(f"cannot know if {id} is {target}'s: {self.problem}", code="unsure")
        return self.view.sessions.get(id, seen).record.machine

    async def change(self, records: Mapping[str, Session]) -> bool:
        """Write sessions that stay, begin or end here, all or none, a BATCH at most. False: nothing
        is written, as this machine's view is old; StoreAway: the next renewal says if they are."""
        ended = [id for id in records if (old := self.view.sessions.get(id)) and old.record.deleted]
        for id, it in records.items():
            known = self.view.sessions.get(id, Seen(Session("", 0, deleted=True), 0, 0.0)).record
            mine, free = known.machine == self.name, known.deleted
            owner = self.view.machines.get(known.machine)
            if owner is not None and owner.record.forgotten and it == replace(known, deleted=True):
                continue
            fits = it.machine == self.name and it.epoch == known.epoch + free
            if not fits or not (mine or free) or id in self.leaving:
                raise TryLater(f"cannot change {id}: this machine does not own it for sure now")
        if not self._may_move():
            raise TryLater("cannot change a session: this machine has no place in the fleet now")
        if await self._move(records):
            return True
        for id in ended:  # its record may be gone by now: the next call makes it
            if not (await self.store.read(Get(self.keys.session(id)))).found[0]:
                self.view.forgotten(id)
        return False

    async def _begin_again(self) -> None:
        """Wait until this machine may write its record, and begin with it."""
        if self._acknowledged or not self._agent:
            self._past = decoded(self._path.read_bytes(), Past) if self._path.exists() else None
        if self._acknowledged and self._past:  # what has its agent's name now is its twin
            self._past = replace(self._past, boot_and_folder="")
        past, stood = self._past, None
        while True:
            try:
                answer = await self.store.read(Get(self._own.key))
                pair = next(iter(answer.found[0]), Pair(self._own.key, b"", 0))
                found = (decoded(pair.value, Machine) or Machine()) if pair.revision else None
                # The store went back, or on, without it; or had its word in the halt since.
                if past and found and (found.forgotten or past.is_halted(found)):
                    past, self._suspicion = replace(past, cluster=answer.cluster, revision=0), ""
                if past and answer.revision < past.revision:
                    self._suspect(f"it is older than the last begin of {self.name}")
                    await self._halt()  # before a machine starts whose disk went back with it
                now = self.clock.now()
                if stood is None or stood[0] != pair.revision:
                    stood = pair.revision, now
                fresh = how_to_begin(past, found, self._here, now - stood[1], self.fleet.ttl)
                self.runner.in_doubt = fresh is None
                if fresh is not None:
                    break
                self._note(f"{self.name} may still run: wait, correct the name, or `fleet rename`")
            except StoreAway as error:
                self._note(str(error))
            await self.clock.sleep(self.fleet.renew_every)
        if fresh:
            await self.runner.end_all()
        if fresh and past and found and past.is_older(found):
            log.warning("this disk is older than the store: each session waits for its copies")
            await self.runner.distrust()
        self.view, self.until, self._fresh, self.starts_at = View(), 0.0, fresh, None
        self._agent, self._n, self._acknowledged = f"{self._draw.getrandbits(128):032x}", 0, 0
        self._unanswered.clear()
        self._own, self._cluster = pair, past.cluster if past else answer.cluster
        await asyncio.to_thread(self._write_past, answer.revision)

    async def _renew(self, group: asyncio.TaskGroup) -> bool:
        """Renew once. False if the own record is lost, or another's."""
        self._woken.clear()
        begun = self.clock.now()
        self._n += 1
        word = f"{self._draw.getrandbits(64):016x}"
        mine = replace(self.runner.describe(), agent=self._agent, n=self._n, word=word)
        self._unanswered = dict([*self._unanswered.items(), (word, begun)][-1000:])
        since = self.view.revision + 1 if self.view.revision else 0
        put, keys = Put(self._own.key, encoded(mine)), self.keys
        reads = (Get(keys.machines), Get(keys.sessions, since), Get(keys.halt))
        refused = (Get(put.key), Get(keys.halt))
        try:
            answer = await self.store.commit([self._unchanged()], (put, *reads), refused)
        except StoreAway as error:
            self._note(str(error))
            return True
        self._elsewhere = answer.cluster != self._cluster
        if self._elsewhere:
            self._suspect("etcd is another cluster")
        if not answer.committed:
            self.view.halt = read_halt(answer.found[1]) or self.view.halt
            return await self._refused(next(iter(answer.found[0]), Pair(put.key, b"", 0)))
        self._own = Pair(put.key, put.value, answer.revision)
        self._last, self._acknowledged = mine, self._n
        self._unanswered.clear()  # those before it name an older revision: they are void
        now, halted = self.clock.now(), self.view.halt is not None
        if self.starts_at is None:
            self.starts_at = now + self.fleet.ttl * (not self._fresh)
        blind = now > self.until - self.fleet.usable + self.fleet.ttl / 2
        back = self.view.learn(answer.found, answer.revision, now, blind=blind)
        if back and not self.halted:
            self._suspect(back)
        if halted and self.view.halt is None:  # accepted: the records are the truth from now on
            self.view, self._suspicion, self._cluster = View(), "", answer.cluster
            # A session may have another owner than the machine that runs it, which may hear of it
            # at the end of its lease.
            self.starts_at = now + self.fleet.ttl
            await asyncio.to_thread(self._write_past, answer.revision)
            self.wake()
            return True
        if await self._halt():
            await self._claim()
        self.leaving -= self._settling
        self._settling.clear()
        self._hold(begun + self.fleet.usable, group)
        if self._n >= self._noted + NOTED:
            revision, halted = answer.revision, self.halted
            with suppress(OSError, TimeoutError):  # a disk that hangs holds up no renewal for long
                async with asyncio.timeout(PAUSE):
                    await asyncio.to_thread(self._write_past, revision, halted=halted)
        self._renewed.set()
        self._renewed = asyncio.Event()
        return True

    async def _refused(self, pair: Pair) -> bool:
        """Judge an own record that this machine did not know. False: it is lost, or a twin's."""
        found = decoded(pair.value, Machine)
        begun = self._unanswered.get(found.word) if found and not found.lost else None
        if found and found.agent == self._agent and begun is not None:
            self._own, self._acknowledged = pair, found.n
            self._unanswered.clear()
            self._extend(begun + self.fleet.usable)
        elif self._acknowledged and pair.revision < self._own.revision:
            self._suspect(f"the record of {self.name} is older than its last renewal")
            if await self._halt():
                self._own = pair
        else:
            return False  # lost, or a twin's
        self.wake()
        return True

    def _hold(self, until: float, group: asyncio.TaskGroup) -> None:
        halt = self.view.halt
        self._note(f"halted until `wa-agent fleet accept`: {halt.why}" if halt else self._suspicion)
        self._extend(until)
        if self.halted:
            return
        owned = self.view.owned(self.name)
        strays = set(self.runner.running()) - owned.keys() - self.leaving
        if strays and (self._ending is None or self._ending.done()):
            self._ending = group.create_task(self.runner.end(strays), name="end strays")
        if self.may_start():
            self.runner.start({id: it for id, it in owned.items() if id not in self.leaving})

    def _extend(self, until: float) -> None:
        """Extend leases, but not by a word of another cluster: the one before it may live."""
        if self._elsewhere:
            return
        self.until = max(self.until, until)
        if self.clock.now() < self.until:
            self.runner.extend(self.until)

    def _may_move(self) -> bool:
        """A clone that has just won this machine's record may not even give a session away: the
        original runs it for up to a renewal more."""
        return self.may_start() and not self.halted

    def may_start(self) -> bool:
        return self.starts_at is not None and self.starts_at <= self.clock.now() < self.until

    async def _take_over(self) -> None:
        """Declare lost what stood still, then take what this machine is the first for, in
        batches until the next renewal is due."""
        due = self.clock.now() + self.fleet.renew_every
        with suppress(StoreAway):
            still = self.view.standing_still(self.name, self.clock.now(), self.fleet.ttl)
            for name, seen in still.items():  # the view may have a newer one by its turn
                lost = replace(seen.record, lost=True)
                if not self._may_move():
                    return
                put = Put(self.keys.machine(name), encoded(lost))
                same = [*self._mine(), Same(put.key, seen.revision)]
                if (answer := await self.store.commit(same, [put])).committed:
                    log.warning("machine %s is lost: no renewal for %g s", name, self.fleet.ttl)
                    self.view.machines[name] = Seen(lost, answer.revision, self.clock.now())
            while self._may_move() and self.clock.now() < due:
                copied, now = self.runner.copied(), self.clock.now()
                ids = self.view.to_take(self.name, now, self.fleet.ttl, copied)
                taken = {id: self.view.sessions[id].record.taken_by(self.name) for id in ids}
                if self._last.drained or not ids or not await self._move(taken):
                    return
                log.warning("took over %s sessions", len(ids))
                self.wake()

    async def _move(self, records: Mapping[str, Session]) -> bool:
        """Write sessions with another owner, all or none: void if this machine, its view of one of
        them, or the machine that had them has changed."""
        known = {id: it for id, it in self.view.sessions.items() if id in records}
        had = {it.record.machine for it in known.values() if not it.record.deleted} - {self.name}
        same = [Same(self.keys.machine(it), self.view.machines[it].revision) for it in had]
        same += [Same(self.keys.session(id), 0) for id in records if id not in known]
        same += [Same(self.keys.session(id), it.revision) for id, it in known.items()]
        puts = [Put(self.keys.session(id), encoded(it)) for id, it in records.items()]
        answer = await self.store.commit([*self._mine(), *same], puts)
        if answer.committed and answer.revision > self.view.revision:  # else a renewal read it
            for id, it in records.items():
                self.view.sessions[id] = Seen(it, answer.revision, self.clock.now())
                self.view.written.add(id)
        return answer.committed

    def _mine(self) -> list[Same]:
        """Conditions: the own record is as of the last renewal, and the fleet is not halted."""
        return [self._unchanged(), Same(self.keys.halt, 0)]

    def _unchanged(self) -> Same:
        return Same(self._own.key, self._own.revision, self._own.value)

    def _rest(self) -> float:
        """Seconds until the next renewal, or until a machine has stood still for a ttl."""
        now, ttl = self.clock.now(), self.fleet.ttl
        living = (it for it in self.view.machines.values() if not it.record.lost)
        still = (left for it in living if (left := it.since + ttl - now) > 0)
        return min([self.fleet.renew_every - PAUSE, *still])

    def _suspect(self, why: str) -> None:
        if not self._suspicion:
            log.error("the store of the fleet went back: %s", why)
        self._suspicion = self._suspicion or f"the store went back: {why}"

    async def _halt(self) -> bool:
        """True if the store has the halt that this machine's suspicion asks for."""
        if self._suspicion and self.view.halt is None:
            halt = Halt(self.name, self._suspicion, f"{self._draw.getrandbits(64):016x}")
            with suppress(StoreAway):
                put = Put(self.keys.halt, encoded(halt))
                answer = await self.store.commit([Same(put.key, 0)], [put], [Get(put.key)])
                self.view.halt = halt if answer.committed else read_halt(answer.found[0])
        return self.view.halt is not None

    async def _claim(self) -> None:
        """Write once for each halt what this machine has, for the operator who accepts."""
        if (halt := self.view.halt) is None or halt.id == self._claimed:
            return
        with suppress(StoreAway):
            put = Put(self.keys.claims + self.name, encoded(Claim(halt.id, self.runner.held())))
            if (await self.store.commit([self._unchanged()], [put])).committed:
                self._claimed, self._noted = halt.id, -NOTED  # at once

    async def _watch(self) -> None:
        """Wake the keeper for what concerns this machine. A watch that breaks costs one renewal."""
        while True:
            with suppress(StoreAway):
                async for pair in self.store.watch(self.keys.all):
                    if self._concerns(pair):
                        self.wake()
            await self.clock.sleep(self.fleet.renew_every)

    def _concerns(self, pair: Pair) -> bool:
        """True if the pair needs a renewal here. A mere renewal of another machine must not cause
        one, or each would cause all others."""
        if pair.key.startswith(self.keys.machines):
            return self.view.hear(pair, self.clock.now())
        if pair.key.startswith(self.keys.sessions):
            known = self.view.sessions.get(named(pair.key))
            if known is not None and known.revision >= pair.revision:
                return False
            session = decoded(pair.value, Session) or Session(self.name, 0)
            mine = self.name in (session.machine, known.record.machine if known else "")
            return mine or session.deleted  # its name is free
        return pair.key == self.keys.halt

    async def _compact(self) -> None:
        """Every ten minutes the first machine by name lets the store forget older values."""
        now = self.clock.now()
        living = (name for name, it in self.view.machines.items() if not it.record.lost)
        if now < self._compacts_at or self.name != min(living, default=self.name):
            return
        old, self._compacts = self._compacts, self.view.revision
        self._compacts_at = now + COMPACT_EVERY
        with suppress(StoreAway):  # to compact fails where another machine did
            every = self.view.sessions.items()
            old_ones = (id for id, it in every if it.record.deleted and now - it.since >= KEPT)
            if ids := [*old_ones][:BATCH]:
                same = [Same(self.keys.session(it), self.view.sessions[it].revision) for it in ids]
                gone = [Delete(self.keys.session(it)) for it in ids]
                if (await self.store.commit([*self._mine(), *same], gone)).committed:
                    for id in ids:
                        self.view.forgotten(id)
            await self.store.compact(old or 1)

    def _write_past(self, revision: int, *, released: bool = False, halted: bool = False) -> None:
        """Note the begin on the disk; under a halt the disk still knows the store of before."""
        self._noted = self._n
        new = Past(self._agent, self._here, self._cluster, revision, released, self._n)
        self._past = replace(self._past, n=self._n, halted=True) if halted and self._past else new
        write_whole(self._path, encoded(self._past))

    def _note(self, problem: str) -> None:
        """Log a problem once, and once that it is over."""
        if problem and not self.problem:
            log.warning("fleet: %s", problem)
        elif self.problem and not problem:
            log.info("fleet: this machine has its place again")
        self.problem = problem
