"""Memory: freed first, then a graceful restart, once, and none into an incident."""

from tests.waiting import connected
from tests.world.test_turns import ONE_AT_A_TIME, start_into_a_sync_that_does_not_end, turns_before
from tests.world.virtual import memory_of

MIB = 1 << 20
SETTINGS = f"[memory]\ninstance = {40 * MIB}\nwarn = 0.6\n"


async def story_has(agent, id, words):
    return [one for _, one in await agent.story(id) if words in one]


async def test_a_leak_is_freed_first_and_then_restarted_gracefully_once(make_agent, eventually):
    agent = make_agent(SETTINGS)
    await agent.start()
    await connected(agent, eventually, *"ab")
    runs = {id: await agent.run_of(id) for id in "ab"}
    codes = await agent.codes("a")
    memory_of["a"] = 30 * MIB
    await eventually(lambda: story_has(agent, "a", "caches: memory warn: 30 of 40 MiB"))
    assert await agent.run_of("a") == runs["a"]
    memory_of["a"] = 39 * MIB
    await eventually(lambda: story_has(agent, "a", "restart: memory critical: 39 of 40 MiB"))
    del memory_of["a"]
    await eventually(lambda: agent.is_back("a", runs["a"]))
    verdicts = [one for kind, one in await agent.story("a") if kind == "verdict"]
    assert any(one.startswith("degraded: memory") for one in verdicts)
    shown = await agent.show("a")
    assert shown["restarts_by_reason"] == {
        "watchdog": 0, "oom": 0, "crash": 0, "agent": 1, "operator": 0,
    }  # fmt: skip
    assert (shown["paired"], shown["memory_limit_bytes"]) == (True, 40 * MIB)
    assert await agent.codes("a") == codes
    assert await agent.run_of("b") == runs["b"], "its neighbour was left alone"


async def memory_is(agent, id, used):
    return (await agent.show(id))["memory_bytes"] == used


async def test_a_restart_for_memory_is_forgotten_when_its_worker_ended_before(
    make_agent, eventually
):
    agent = make_agent(SETTINGS + ONE_AT_A_TIME)
    await agent.start()
    await connected(agent, eventually, *"ab")
    await start_into_a_sync_that_does_not_end(agent, eventually, "b")
    memory_of["a"] = 39 * MIB
    await eventually(lambda: turns_before(agent, "a"), 0)
    del memory_of["a"]
    await agent.do("POST", "/api/instance/a/stop")
    await eventually(lambda: agent.status("a"), "DISCONNECTED")
    await agent.do("POST", "/api/instance/a/start")
    await agent.fault("b", "clear")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    await eventually(lambda: memory_is(agent, "a", 12 * MIB))
    assert not await story_has(agent, "a", "restart: memory"), "the new worker needs none"
