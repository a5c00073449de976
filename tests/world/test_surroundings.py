"""The machine around an agent has a disk without room, and clocks that jump."""

import asyncio

import pytest

from tests.clocks import stopped
from tests.full import fill
from tests.waiting import connected

YEAR = 365 * 86400.0


async def test_no_worker_starts_on_a_full_disk_and_running_ones_go_on(
    make_agent, eventually, small_disk
):
    agent = make_agent(f"[start]\ndisk_free = {16 << 20}\n")
    disk = small_disk("size=40m,mode=0700")
    agent.move_to(disk / "state")
    await agent.start()
    await connected(agent, eventually, "a", "b")
    run = await agent.run_of("a")
    await agent.do("POST", "/api/instance/b/stop")
    await eventually(lambda: agent.status("b"), "DISCONNECTED")
    (disk / "filler").write_bytes(bytes(30 << 20))
    await agent.do("POST", "/api/instance/b/start")

    async def held() -> bool:
        shown = await agent.show("b")
        words = "MiB free, 16 MiB must be ([start] disk_free)"
        return shown["wait_reason"] == "disk_full" and words in shown["health"]["sentence"]

    await eventually(held)
    shown = await agent.show("b")
    assert (shown["unit"]["state"], shown["attempts"]) == ("inactive", 0)
    assert (await agent.status("a"), await agent.run_of("a")) == ("CONNECTED", run)
    await agent.do("POST", "/api/instance/a/restart")
    await eventually(lambda: agent.is_back("a", run))
    (disk / "filler").unlink()
    await eventually(lambda: agent.status("b"), "CONNECTED")
    assert (await agent.show("b"))["wait_reason"] == ""


async def test_f31_a_full_disk_costs_no_session(make_agent, eventually, small_disk):
    agent = make_agent("[start]\ndisk_free = 0\n")
    disk = small_disk("size=8m,mode=0700")
    agent.move_to(disk / "state")
    await agent.start()
    await connected(agent, eventually, "a")
    run = await agent.run_of("a")
    filler = fill(disk)

    async def refused():
        return (await agent.ask("POST", "/api/instance/a/enable"))[0] >= 500

    await eventually(refused)
    assert (await agent.status("a"), await agent.run_of("a")) == ("CONNECTED", run)
    await agent.fault("a", "drop")  # passes must write now, and cannot
    assert (await agent.ask("GET", "/healthz"))[0] == 200
    await asyncio.sleep(120)
    filler.unlink()

    async def taken():
        return (await agent.ask("POST", "/api/instance/a/enable"))[0] == 202

    await eventually(taken)
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert await agent.run_of("a") == run
    await agent.stop()
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert not list(agent.state.glob("*damaged*"))


@pytest.mark.parametrize(
    ("clock", "seconds"),
    [
        pytest.param("wall", 10 * YEAR, id="set 10 years ahead"),
        pytest.param("wall", -20 * YEAR, id="set 20 years back"),
        pytest.param("boot", 4 * 3600.0, id="the machine slept for hours"),
    ],
)
async def test_f51_f52_a_clock_that_jumps_moves_nothing(agent, eventually, clock, seconds):
    await connected(agent, eventually, "a", "b")
    runs = {id: await agent.run_of(id) for id in ("a", "b")}
    was = getattr(stopped(), clock)
    setattr(stopped(), clock, was + seconds)
    await asyncio.sleep(300)
    assert {id: await agent.run_of(id) for id in runs} == runs
    assert [await agent.status(id) for id in runs] == ["CONNECTED", "CONNECTED"]

    await agent.fault("a", "drop")

    async def reconnected():
        shown = await agent.show("a")
        return shown["reconnects_by_reason"] and shown["connection_status"] == "CONNECTED"

    await eventually(reconnected)
    assert await agent.run_of("a") == runs["a"]

    await agent.kill()
    if clock == "wall":
        stopped().wall = was
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert {id: await agent.run_of(id) for id in runs} == runs, "adopted over the jump back"


async def test_f55_at_a_stop_all_save_at_the_same_time(agent, eventually):
    ids = [f"i{number}" for number in range(8)]
    await connected(agent, eventually, *ids, save_seconds=2.0)
    codes = {id: await agent.codes(id) for id in ids}
    begun = asyncio.get_running_loop().time()
    assert await agent.stop() == 0
    lasted = asyncio.get_running_loop().time() - begun
    assert 4 <= lasted < 5, "all save, and then all save once more as they close"
    await agent.start()
    for id in ids:
        await eventually(lambda id=id: agent.status(id), "CONNECTED")
        assert await agent.codes(id) == codes[id]
