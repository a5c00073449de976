"""Copies between machines of a fleet over a line with faults: no machine of a session's `copies`
lacks more than may be lacking. Virtual time, real HTTP, real files."""

import asyncio
import random
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import pytest
from aiohttp import web

from agent.clock import boot_now
from agent.core.model import Instance, InstanceId
from agent.errors import TryLater, VaultError
from agent.fleet.copies.change import LARGEST, FleetKey, Sealed
from agent.fleet.copies.sender import AWAY, FORGETS, OLDEST, Copies
from agent.fleet.copies.standby import Standby
from agent.fleet.etcd import StoreAway
from agent.fleet.joined import Joined
from agent.fleet.peers import Taken
from agent.fleet.records import Machine, Session
from agent.fleet.taking import Seen, View
from agent.vault.identity import create
from tests.fleet import world as worlds
from tests.ports import free_port
from tests.world.virtual import PatientLoop

ID = InstanceId("shop")
SOON = 8.0
"""Seconds in which machines are in sync: asked, a base, a record; or a change of them."""


class Host:
    """A machine; `Joined`, its settings and `Keeper` of its copies. All share one view."""

    halted, until, leaving = False, 1e9, frozenset[str]()
    elsewhere, has, api = Joined.elsewhere, Joined.has, web.Application
    here = dict[str, Mock]

    def __init__(self, world: "World", name: str) -> None:
        self.world, self.name, self.view = world, name, world.view
        self.keeper = self.settings = self
        self.folder, self.root = (world.root / name / it for it in ("fleet", "sessions"))
        self.root.mkdir(parents=True)
        self.address = f"127.0.0.1:{free_port()}"
        it = Machine(address=self.address, engines=("sandbox",), key=world.key.mark)
        self.view.machines[name] = Seen(it, 1, 0)
        self.etcd_away = self.cut = self.full = False
        self.silent: float | None = None
        """Seconds after which a request to it fails; None: it answers."""
        self.lossy, self.late = 0.0, list[tuple[str, str, Sequence[Sealed]]]()
        self.start()

    def start(self) -> None:
        self.copies = Copies(self, self.root, self.world.key)
        self._send, self.copies.peers.send = self.copies.peers.send, self.send
        self._take, self.copies.standby.take = self.copies.standby.take, self.take
        self.tasks = [*map(asyncio.create_task, (self.copies.run(), self.copies.peers.run()))]

    async def kill(self) -> None:
        """Kill the host's agent."""
        for task in self.tasks:
            task.cancel()
        for result in await asyncio.gather(*self.tasks, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError), result
        await self.copies.peers.close()

    async def send(self, address: str, name: str, changes: Sequence[Sealed]) -> list[Taken]:
        draw, target = self.world.draw, self.world.hosts[name]
        if self.cut or target.cut or target.silent is not None:
            await asyncio.sleep(5 if target.silent is None else target.silent)
            raise TryLater("cut off")
        if draw.random() >= self.lossy:
            return await self._send(address, name, changes)
        self.late.append((address, name, list(changes)))
        if draw.random() < 0.5:
            await self._send(*self.late[-1])
        raise TryLater("no answer")

    async def deliver_late(self) -> None:
        """One of the requests that were given up, perhaps for the second time."""
        if self.late:
            with suppress(TryLater):
                await self._send(*self.late.pop(self.world.draw.randrange(len(self.late))))

    def take(self, sealed: Sealed) -> None:
        if self.full and sealed.content:
            raise VaultError("cannot write", code="disk_full")
        self._take(sealed)

    # Questions of the copies to their machine and its keeper

    def engines(self) -> dict[InstanceId, str]:
        return {InstanceId(id): it.engine for id, it in self.view.owned(self.name).items()}

    def wake(self) -> None: ...

    async def change(self, records: dict[str, Session]) -> bool:
        if self.etcd_away:
            await asyncio.sleep(1)
            raise StoreAway("away")
        for id, it in records.items():
            assert it.machine == self.view.sessions[id].record.machine == self.name
            self.world.check(it)
            self.view.sessions[id] = Seen(it, self.view.sessions[id].revision + 1, 0)
        return True


class World:
    loop, logins = PatientLoop, worlds.Logins()

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.draw, self.view = root, random.Random(seed), View()
        self.key = FleetKey(b"k" * 32)
        self.hosts = {name: Host(self, name) for name in "abc"}
        self.view.machines["d"] = Seen(Machine(engines=("sandbox",), key="another"), 1, 0)
        self.wiped = set[str]()
        """Machines whose disk has lost the copy: their owner hears of it with the next question."""
        self.back = 0.0
        """Time at which the owner could write to etcd again."""
        self.written: list[tuple[float, int]] = []
        """Time of each write of the session, oldest first, and what it wrote."""
        create(self.hosts["a"].root, Instance(ID, "sandbox", True))
        self.folder = self.hosts["a"].root / ID / "session"
        self.own(Session("a", 1, "sandbox"))
        self.write()

    def own(self, record: Session) -> None:
        self.view.sessions[ID] = Seen(record, 1, 0)

    @property
    def record(self) -> Session:
        return self.view.sessions[ID].record

    def write(self) -> None:
        n = len(self.written)
        (self.folder / "new").write_bytes(b"%d" % n)
        (self.folder / "new").replace(self.folder / "n")
        (self.folder / f"file{n % 7}").write_bytes(self.draw.randbytes(200))
        self.written.append((boot_now(), n))

    def lacks(self, name: str) -> float:
        """Seconds for which this machine's copy lacked a change while the owner had its lease."""
        try:
            has = int(Standby(self.hosts[name].folder / "standby", self.key).build(ID)["session/n"])
        except (VaultError, KeyError):
            has = -1
        missing = [at for at, n in self.written if n > has]
        return min(boot_now(), self.hosts["a"].until) - missing[0] if missing else 0.0

    def check(self, record: Session) -> None:
        """Oracle. An owner that cannot write to etcd ends with its lease."""
        if not (away := self.hosts["a"].etcd_away) and boot_now() < self.back + 1:
            return  # it ran nothing meanwhile
        self.wiped = {it for it in self.wiped if it in record.copies and self.lacks(it)}
        for name in {*record.copies} - self.wiped:
            assert self.lacks(name) < OLDEST + 20 * away, (boot_now(), name, record)

    async def until(self, holds: Callable[[], object], within: float = SOON) -> None:
        end = boot_now() + within
        while not holds():
            assert boot_now() < end, (self.record, self.hosts["a"].copies.rows)
            await self.sleep(0.1)

    async def end(self) -> None:
        for host in self.hosts.values():
            await host.kill()

    async def sleep(self, seconds: float) -> None:
        end = boot_now() + seconds
        while boot_now() < end:
            self.check(self.record)
            await asyncio.sleep(0.1)

    def in_sync(self, names: str = "bc") -> Callable[[], bool]:
        return lambda: {*self.record.copies} == {*names} and not any(map(self.lacks, names))


play, played = (partial(it, kind=World) for it in (worlds.play, worlds.played))


@pytest.mark.parametrize("seed", range(8))
def test_a_machine_of_the_record_never_lacks_much(seed: int) -> None:
    async def story(world: World) -> None:
        draw, a = world.draw, world.hosts["a"]
        for _ in range(60):
            match draw.randrange(9):
                case 0:
                    a.lossy = draw.choice((0.0, 0.0, 0.3, 1.0))
                case 1:
                    it = world.hosts[draw.choice("abc")]
                    it.cut = not it.cut
                case 2:
                    world.back = boot_now() if a.etcd_away else world.back
                    a.etcd_away = draw.random() < 0.3
                case 3:
                    it = world.hosts[draw.choice("bc" if a.etcd_away else "abc")]
                    await it.kill()
                    if draw.random() < 0.3:
                        shutil.rmtree(it.folder / "standby")
                        world.wiped.add(it.name)
                    it.start()
                case 4:
                    world.hosts[draw.choice("bc")].full ^= True
                case 5 | 6:
                    await a.deliver_late()
                case _ if boot_now() < a.until:
                    world.write()
            a.until = 1e9 if not a.etcd_away else min(a.until, boot_now() + 16)
            await world.sleep(draw.expovariate(0.5))
        world.back = boot_now()
        a.lossy, a.etcd_away, a.until = 0.0, False, 1e9
        for it in world.hosts.values():
            it.cut = it.full = False
        world.write()
        await world.until(world.in_sync(), within=AWAY + 3 * SOON)

    play(story, seed)


@pytest.mark.parametrize("after", [0.0, 60.0])
def test_a_machine_that_answers_nothing_leaves_in_time_and_holds_up_no_other(after: float) -> None:
    async def story(world: World) -> None:
        await world.until(world.in_sync())
        world.hosts["b"].silent = after
        for _ in range(30):
            world.write()
            await world.sleep(1)
            assert (world.lacks("c") <= 1, "c" in world.record.copies) == (True, True)
        assert world.record.copies == ("c",)
        assert after or world.hosts["a"].copies.lines["b"].cause == "cut off"
        world.hosts["b"].silent = None
        await world.until(world.in_sync(), within=60 + AWAY + SOON)
        assert not world.hosts["a"].copies.lines["b"].cause

    play(story)


@played
async def test_an_owner_cut_from_etcd_copies_to_the_end_of_its_lease(world: World) -> None:
    a = world.hosts["a"]
    await world.until(world.in_sync())
    a.etcd_away, a.until = True, boot_now() + 10
    await world.sleep(5)
    world.write()
    await world.until(lambda: not any(map(world.lacks, "bc")), within=2)
    await world.sleep(6)
    world.write()
    await world.sleep(5)
    assert all(map(world.lacks, "bc"))


@played
async def test_a_flush_waits_for_the_machines_with_copies(world: World) -> None:
    a = world.hosts["a"]
    await world.until(world.in_sync())
    for _ in range(3):
        world.write()
        await a.copies.flush(ID)
        assert not any(map(world.lacks, "bc"))
    # The run of the copies ends in the middle of a look, as at a stop.
    look = a.copies._look

    def cancelled(*given: Any) -> Any:
        a.tasks[0].cancel()
        a.copies._look = look
        return look(*given)

    a.copies._look = cancelled
    world.write()
    await asyncio.sleep(2)
    assert all(map(world.lacks, "bc"))
    a.tasks[0] = asyncio.create_task(a.copies.run())
    await a.copies.flush()
    assert not any(map(world.lacks, "bc"))
    a.cut = True
    world.write()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3):
            await a.copies.flush(ID)


@played
async def test_a_push_ends_with_the_same_bytes_there_or_an_error(world: World) -> None:
    a = world.hosts["a"]
    await world.until(world.in_sync())
    for name in "bcbc":
        world.write()
        await a.copies.push(ID, name)
        assert not world.lacks(name)
        await world.sleep(world.draw.random())
    # Changes that are still on their way must not come instead of the next push.
    await world.until(world.in_sync())
    a.lossy = 1.0
    world.write()
    await world.sleep(2)
    a.lossy = 0.0
    world.write()
    await a.copies.push(ID, "b")
    assert any(it.content for _, _, changes in a.late for it in changes)
    while a.late:
        await a.deliver_late()
    assert not world.lacks("b")
    a.lossy = 1.0
    with pytest.raises(TryLater):
        await a.copies.push(ID, "b")
    a.lossy = 0.0
    await world.until(world.in_sync())
    world.hosts["b"].full = True
    with pytest.raises(TryLater, match="disk_full"):
        await a.copies.push(ID, "b")


@played
async def test_a_session_that_is_too_large_keeps_no_other_from_its_copies(world: World) -> None:
    a, other = world.hosts["a"], InstanceId("other")
    create(a.root, Instance(other, "sandbox", True))
    world.view.sessions[other] = Seen(Session("a", 1, "sandbox"), 1, 0)
    with (a.root / other / "session/large").open("wb") as file:
        file.truncate(LARGEST + 1)
    # A file that goes while it is looked at is no fault of its session.
    with patch("agent.fleet.copies.changed.walk", side_effect=VaultError("gone", code="absent")):
        await world.sleep(SOON)
    # As a folder that is root's, one with this name refuses to be looked at.
    with patch("agent.fleet.copies.sender.folder.SESSION", "s" * 256):
        await world.until(world.in_sync())
    assert "more than" in a.copies.rows[other].cause
    assert not world.view.sessions[other].record.copies
    (a.root / other / "session/large").unlink()
    await world.until(lambda: world.view.sessions[other].record.copies, within=AWAY + SOON)
    a.here = lambda: {other: Mock()}
    (a.root / other / "session/sandbox.json").touch()
    await world.until(lambda: a.copies.away == [other])
    await world.sleep(OLDEST)
    assert world.view.sessions[other].record.copies, "they have what it has lost"
    a.here, copied = dict, world.hosts["b"].copies.standby
    await world.until(lambda: copied.build(other).get("session/sandbox.json") == b"")
    a.here = lambda: {other: Mock()}
    with pytest.raises(VaultError, match="damaged"):
        await a.copies.push(other, "b")
    # The host's agent begins again, and no other machine is there.
    await a.kill()
    world.hosts["b"].cut = world.hosts["c"].cut = True
    (a.root / other / "session").rename(a.root / "aside")
    a.start()
    await world.until(lambda: a.copies.away == [other])


@played
async def test_a_copy_goes_once_its_session_is_deleted_or_has_others_for_sure(world: World) -> None:
    await world.until(world.in_sync())
    b, c = (world.hosts[name].copies.standby for name in "bc")
    await world.sleep(3 * FORGETS)
    world.hosts["a"].until, world.view.machines["x"] = 0.0, Seen(Machine(lost=True), 1, 0)
    for machine, copies, has in (
        *(("a", ("b", "c"), True), ("a", (), True), ("x", ("c",), True)),
        *(("a", ("x",), True), ("a", ("c",), False)),
    ):
        world.own(Session(machine, 1, copies=copies))
        await asyncio.sleep(3 * FORGETS)
        assert (b.newest(ID) is not None) is has, (machine, copies)
    del world.view.sessions[ID]
    await asyncio.sleep(3 * FORGETS)
    assert c.newest(ID), "its record cannot have gone so soon"
    world.own(Session("a", 1, deleted=True))
    await asyncio.sleep(3 * FORGETS)
    assert c.newest(ID) is None


@played
async def test_a_taker_gets_the_newer_copy_of_another_machine(world: World) -> None:
    a, b = world.hosts["a"], world.hosts["b"]
    await world.until(world.in_sync())
    b.cut = True
    world.write()
    await world.until(world.in_sync("c"), within=20)
    await a.kill()
    a.tasks, b.cut = [], False
    assert world.lacks("b") and not world.lacks("c")
    await b.copies.fetch_newer(ID, ["b", "c", "not known"])
    assert not world.lacks("b")
