"""An operator decides about the fleet's store: accept, forget."""

import asyncio
import subprocess
from collections import deque
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.errors import NotFound, Refused
from agent.fleet.etcd import MayHaveHappened, Pair, Put
from agent.fleet.operator import _decide, accept, forget
from agent.fleet.records import Fleet, Halt, Machine, Session, encoded
from agent.fleet.shown import certificates, explain
from agent.fleet.taking import Seen, View
from tests.conftest import Eventually
from tests.daemon.conftest import cli, done, make_agent
from tests.fleet.members import Members
from tests.fleet.nemesis import NAMES, Nemesis
from tests.fleet.test_agents import KEYS, MakeAgent, etcd, in_fleet, record, says, store_of
from tests.fleet.test_keeper import where
from tests.fleet.world import TTL, World, play, played, well

__all__ = ["etcd", "make_agent"]


class Restore(Nemesis):
    """Drawn faults; meanwhile the store goes back by up to 25 s; at their end all is accepted."""

    async def story(self, seconds: float) -> None:
        world, loop = self.world, asyncio.get_running_loop()
        await world.begin(NAMES, 8)
        older, end = deque([world.memory.snapshot()], 25), loop.time() + seconds
        haunts = [asyncio.create_task(self._haunt(name, end)) for name in NAMES]
        for _ in range(self.draw.randint(30, int(seconds) - 60)):
            await asyncio.sleep(1)
            older.append(world.memory.snapshot())
        world.copying.cancel()
        world.memory.off = True
        await asyncio.sleep(1.5 * TTL)  # until all leases have ended, as README says it
        world.memory.restore(self.draw.choice(older))
        world.memory.off = False
        await asyncio.gather(*haunts)
        await asyncio.sleep(TTL)
        await accept(world.hosts["a"].line, world.keys)
        await world.all_up(4 * TTL)
        await asyncio.sleep(TTL)


@pytest.mark.parametrize("seed", range(3))
def test_a_store_that_went_back_is_accepted_and_no_session_is_connected_twice(seed: int) -> None:
    well(play(lambda world: Restore(world).story(150), seed))


async def halted(world: World) -> None:
    """s0 moved to b since; c is off."""
    await world.begin("abc", 6)
    await asyncio.sleep(TTL)
    old = world.memory.snapshot()
    await world.hosts["a"].move("s0", "b")
    await asyncio.sleep(TTL)
    world.copying.cancel()
    await world.hosts["c"].kill()
    world.memory.restore(old)
    world.write("gone", Session("c", 1, deleted=True))
    await asyncio.sleep(TTL)


@played
async def test_a_machine_that_said_nothing_must_be_left_out_by_name(world: World) -> None:
    await halted(world)
    world.memory.cluster, line = "2", world.hosts["a"].line
    with pytest.raises(Refused, match="c did not say"):
        await accept(line, world.keys)
    with pytest.raises(NotFound, match="x: the fleet has no such machine"):
        await accept(line, world.keys, without=["c", "x"])
    assert world.keys.halt in world.memory.pairs
    assert (decided := await accept(line, world.keys, without=["c"]))["s0"].machine == "b"
    assert {id for id, it in decided.items() if it.wanted == "stopped"} == {"s2", "s5"}
    assert await accept(line, world.keys) == {}, "once"
    assert _decide(None, {"a": (1, 0, 1), "b": (2, 1, 1)}, off=["b"]).machine == "a"
    old, gone, copy = Session("a", 1), {"a": (2, -1, 0)}, {"b": (1, 0, 9)}
    assert _decide(old, gone | copy, ()).deleted and not _decide(old, copy, ()).deleted
    was = replace(old, deleted=True)
    assert [_decide(was, {"b": (at, 1, 9)}, ()).deleted for at in (1, 2)] == [True, False]
    world.hosts["c"].start_agent()
    for world.memory.cluster in "23":  # one that was off halts nothing, nor does one that is up
        await asyncio.sleep(TTL)
        await accept(line, world.keys, without=["c"])
        await asyncio.sleep(3 * TTL)
        assert world.keys.halt not in world.memory.pairs
        assert where(world) == {"s0": "b", "s1": "b", "s3": "a", "s4": "b"}


@pytest.mark.parametrize("write", [1, 2])
def test_an_acceptance_that_was_cut_off_is_done_again(write: int) -> None:
    async def story(world: World) -> None:
        await halted(world)
        world.hosts["c"].start_agent()
        await asyncio.sleep(2 * TTL)
        line = (twin := world.twin("a", reboots=True)).line
        line.faults = {line.writes + write: 0.5}
        with pytest.raises(MayHaveHappened):
            await accept(line, world.keys)
        await asyncio.sleep(1)
        assert twin.in_doubt and "fleet rename" in twin.keeper.problem
        await accept(line, world.keys)
        await world.all_up(3 * TTL)
        assert world.keys.halt not in world.memory.pairs

    well(play(story))


@played
async def test_a_machine_that_was_switched_off_is_forgotten(world: World) -> None:
    await world.begin("abc", 6, copies=1)
    world.write("s0", replace(world.sessions()["s0"], failover="wait"))
    world.copying.cancel()
    world.write("s9", Session("a", 1))
    await world.hosts["a"].kill()
    line = world.hosts["b"].line
    with pytest.raises(Refused, match="not lost yet"):
        await forget(line, world.keys, "a")
    await world.until(lambda: world.machine("a").lost, 2 * TTL)
    with pytest.raises(NotFound, match="machine x"):
        await forget(line, world.keys, "x")
    assert await forget(line, world.keys, "a") == ["s0", "s9"]
    await world.until(lambda: world.down() == ["s0", "s9"], TTL)
    world.memory.put(Pair(world.keys.halt, b"", 1))
    with pytest.raises(Refused, match="or is halted"):
        await forget(line, world.keys, "a")


def test_a_session_goes_to_a_machine_with_a_copy_and_room() -> None:
    room = Machine(engines=("baileys",), capacity=5, used=1)
    machines = {
        **{"a": room, "b": room, "c": replace(room, used=5), "d": replace(room, used=0)},
        **{"e": replace(room, drained=True), "f": replace(room, engines=("web",))},
        **{"g": replace(room, lost=True), "h": replace(room, released=True)},
        **{"i": replace(room, used=0, key="x"), "j": replace(room, capacity=0, closed=True)},
        "k": replace(room, capacity=0),
    }
    view = View(machines={name: Seen(it, 1, 0.0) for name, it in machines.items()})

    def place(**more: object) -> str:
        view.sessions["s"] = Seen(Session("a", 1, engine="baileys", **more), 1, 0.0)
        return view.place_for("s", {})[0]

    assert (place(), place(copies=("c", "b", "e", "g"))) == ("d", "b"), "the most room"
    causes = view.place_for("s", dict.fromkeys("bd", "no answer"))
    assert causes[0] == "" and causes[1].startswith("b: no answer; c: it runs 5 sessions, and has")
    faults = [view.fault("s", it) for it in machines.values()]
    ends = ["", "", "for 5", "", "drained", "baileys", "run", "run", "one", "closed", "for 0"]
    assert [it[-len(end) :] for it, end in zip(faults, ends, strict=True)] == ends


def test_one_sentence_says_why_a_session_does_not_run() -> None:
    up, lost = Machine(), Machine(lost=True)
    view = View(machines={name: Seen(it, 1, 0.0) for name, it in {"a": up, "z": lost}.items()})

    def why(**more: object) -> str:
        view.sessions["s"] = Seen(Session(**{"machine": "z", "epoch": 1, **more}), 1, 0.0)
        return explain(view, "s")

    assert "waits for it (failover: newest; mach" in why()
    assert "failover: wait" in why(copies=("a",), failover="wait")
    assert "stopped" in why(machine="a", wanted="stopped") and "deleted" in why(deleted=True)
    assert ("x is not known" in why(machine="x"), why(machine="a")[-6:]) == (True, " why s")
    view.halt = Halt("b", "", "1")
    assert "halted by b" in why(machine="a") and "a takes it" in why(copies=("a", "z"))
    view.machines["a"] = Seen(lost, 2, 0.0)
    assert (view.to_take("a", TTL, TTL, "s"), view.to_take("a", TTL, TTL, "")) == (["s"], [])


def test_a_certificate_is_named_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    made += ["-nodes", "-subj", "/CN=a", "-keyout", "key", "-days"]
    for name, days in ("machine.pem", "20"), ("ca.pem", "40000"):
        subprocess.run([*made, days, "-out", name], cwd=tmp_path, check=True, capture_output=True)
    assert "pem of this machine ends in 20 days', False)]" in str([*certificates(tmp_path, "a")])
    monkeypatch.setattr("time.time", lambda: 4e9)
    found = dict(certificates(tmp_path, "b"))
    assert [*found.values()] == [True, True] and "[fleet] name is b, and its keys" in str(found)


async def test_orders_about_the_fleet_reach_its_agent(
    make_agent: MakeAgent, etcd: Members, eventually: Eventually
) -> None:
    agent = make_agent(name="a")
    in_fleet(agent, etcd, "a")
    async with store_of(etcd) as store:
        await store.commit([], [Put(KEYS.common, encoded(Fleet(ttl=6.0, margin=3.0, tables=9)))])
        await agent.start()
        await eventually(lambda: says(agent, "needs a newer wa-agent"))
        z = Put(KEYS.session("s"), encoded(Session("z", 1, "sandbox")))
        await store.commit([], [Put(KEYS.common, encoded(Fleet(ttl=6.0, margin=3.0))), z])
        await eventually(lambda: says(agent, "its machine z is not known"))
        assert "its machine z is not known" in await done(agent, "fleet", "why", "s")
        await agent.create("t")
        assert (await cli(agent, "fleet", "why", "u"))[0] == 3
        code, said = await cli(agent, "fleet", "drain")
        assert (code, "no other machine is known" in said) == (1, True)

        async def drained() -> bool:
            return bool((await record(store, KEYS.machine("a"), Machine)).drained)

        await eventually(drained)
        await agent.kill()
        await agent.start()
        await eventually(drained)
        await done(agent, "fleet", "undrain")
        command = ("fleet", "rename", "a=10.0.0.9", "--yes", "--config", agent.config)
        assert "its fleet has a machine a" in (await cli(agent, *command))[1]
        await eventually(drained, False)
        await store.members("add", {"peerURLs": ["http://127.0.0.1:1"]})
        await eventually(lambda: says(agent, "http://127.0.0.1:1", "systemctl start etcd"))
