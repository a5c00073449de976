"""What an operator decides about the fleet's store: accept, forget."""

import asyncio
from collections import deque

import pytest
from msgspec.structs import replace

from agent.errors import NotFound, Refused
from agent.fleet.operator import accept, forget
from agent.fleet.records import Failover, Machine, Session
from agent.fleet.store import MayHaveHappened
from agent.fleet.taking import Seen, View
from tests.fleet.nemesis import NAMES, Nemesis
from tests.fleet.test_keeper import well, where
from tests.fleet.world import TTL, World, play

OFF = 1.5 * TTL
"""A restored store begins when all leases have ended: so README says it."""


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
        await asyncio.sleep(OFF)
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
    await asyncio.sleep(TTL)
    assert world.keys.halt in world.memory.pairs


def test_a_machine_that_said_nothing_must_be_left_out_by_name() -> None:
    async def story(world: World) -> None:
        await halted(world)
        line = world.hosts["a"].line
        with pytest.raises(Refused, match="c did not say"):
            await accept(line, world.keys)
        assert world.keys.halt in world.memory.pairs
        decided = await accept(line, world.keys, without=["c"])
        assert decided["s0"].machine == "b"
        assert {id for id, it in decided.items() if it.wanted == "stopped"} == {"s2", "s5"}
        assert await accept(line, world.keys) == {}, "once"
        await asyncio.sleep(3 * TTL)
        assert where(world) == {"s0": "b", "s1": "b", "s3": "a", "s4": "b"}

    well(play(story))


@pytest.mark.parametrize("write", [1, 2])
def test_an_acceptance_that_was_cut_off_is_done_again(write: int) -> None:
    async def story(world: World) -> None:
        await halted(world)
        world.hosts["c"].start_agent()
        await asyncio.sleep(2 * TTL)
        line = world.twin("a", reboots=True).line
        line.faults = {line.writes + write: 0.5}
        with pytest.raises(MayHaveHappened):
            await accept(line, world.keys)
        await asyncio.sleep(1)
        await accept(line, world.keys)
        await world.all_up(3 * TTL)
        assert world.keys.halt not in world.memory.pairs

    well(play(story))


def test_a_machine_that_was_switched_off_is_forgotten() -> None:
    async def story(world: World) -> None:
        await world.begin("abc", 6, copies=1)
        for id, failover in (("s0", Failover.MANUAL), ("s3", Failover.WAIT)):
            record = replace(world.sessions()[id], failover=failover)
            await world.write(id, record, world.memory.revision_of(world.keys.session(id)))
        world.copying.cancel()
        await world.write("s9", Session("a", 1))
        await world.hosts["a"].kill()
        await asyncio.sleep(3)
        line = world.hosts["b"].line
        with pytest.raises(NotFound, match="machine x"):
            await forget(line, world.keys, "x")
        world.memory.written = lambda _: None  # sessions that no machine may take by itself
        assert await forget(line, world.keys, "a") == {"s0": "b", "s3": "b", "s9": ""}
        await world.until(lambda: world.down() == ["s9"], TTL)

    well(play(story))


def test_a_session_goes_to_a_machine_with_a_copy_and_room() -> None:
    room = Machine(engines=("baileys",), capacity=5, used=1)
    machines = {
        **{"a": room, "b": room, "c": replace(room, used=5), "d": replace(room, used=0)},
        **{"e": replace(room, drained=True), "f": replace(room, engines=("web",))},
        **{"g": replace(room, lost=True), "h": replace(room, released=True)},
    }
    view = View(machines={name: Seen(it, 1, 0.0) for name, it in machines.items()})

    def place(**more: object) -> str:
        view.sessions["s"] = Seen(Session("a", 1, engine="baileys", **more), 1, 0.0)
        return view.place_for("s")

    assert place() == "d", "the most room"
    assert place(copies=("c", "b", "e", "g")) == "b"
    assert place(on="b", copies=("d",)) == "b"
    assert place(on="h") == ""
