"""Memory by the real agent: freed first, then restarted gracefully, once."""

import re
import signal

from tests.daemon.conftest import LOOKS_OFTEN, PATIENT
from tests.daemon.conftest import SETTINGS as BASE
from tests.world.test_turns import start_into_a_sync_that_does_not_end, turns_before

ONE_AT_A_TIME = BASE.replace(
    "stagger = 0\n", "stagger = 0.1\nparallel = 1\nreconnects = 1\nlogins = 1\n"
)

SETTINGS = """
[memory]
interval = 1
instance = 41943040
warn = 0.6
"""


async def test_a_leak_is_freed_first_and_then_restarted_gracefully_once(make_agent, eventually):
    agent = make_agent(SETTINGS)
    await agent.start(PATIENT)
    await agent.create("a")
    await agent.create("b", memory_limit=80 * 2**20, name="with its own limit")
    for id in ("a", "b"):
        await eventually(lambda id=id: agent.status(id), "CONNECTED")
    before, other = await agent.pid("a"), await agent.pid("b")
    codes = await agent.codes("a")
    await agent.fault("a", "leak", bytes_per_second=6 * 2**20)

    async def is_back():
        shown = await agent.show("a")
        return shown["connection_status"] == "CONNECTED" and shown["unit"]["main_pid"] != before

    await eventually(is_back, within=30)
    story = await agent.story("a")
    told = [one for kind, one in story if kind in ("memory", "action") and "memory" in one]
    assert re.match(r".*to free its caches: memory (warn|critical): \d+ of 40 MiB", told[0])
    assert re.match(r"restart: memory critical: \d+ of 40 MiB", told[-1])
    assert [one for one in told if one.startswith("restart")] == told[-1:]
    verdicts = [one for kind, one in story if kind == "verdict"]
    assert any(one.startswith("degraded: memory") for one in verdicts)
    shown = await agent.show("a")
    assert shown["restarts_by_reason"] == {
        "watchdog": 0, "oom": 0, "crash": 0, "agent": 1, "operator": 0,
    }  # fmt: skip
    assert (shown["paired"], shown["memory_limit_bytes"]) == (True, 40 * 2**20)
    assert await agent.codes("a") == codes
    assert (await agent.show("b"))["memory_limit_bytes"] == 80 * 2**20
    assert await agent.pid("b") == other, "its neighbour was left alone"
    metrics = await agent.do("GET", "/metrics")
    assert 'wa_session_memory_limit_bytes{session="a"} 41943040' in metrics


async def test_memory_is_measured_only_where_it_is_wanted_and_older_values_are_dropped(
    make_agent, eventually
):
    agent = make_agent("[memory]\ninterval = 1\n")
    await agent.start()
    await agent.create("a")

    async def measured():
        return (await agent.show("a"))["memory_bytes"] is not None

    await eventually(measured, within=30)
    agent.config.write_text(agent.config.read_text() + "measure = false\n")
    agent.process.send_signal(signal.SIGHUP)
    await eventually(measured, False)


async def story_has(agent, id, words):
    return [one for _, one in await agent.story(id) if words in one]


async def uses_more_than(agent, id, mebibytes):
    return ((await agent.show(id))["memory_bytes"] or 0) > mebibytes << 20


async def test_no_session_is_restarted_for_its_memory_during_an_incident(make_agent, eventually):
    trouble = "[phases]\nsync = 2\n[incident]\ncanary_first = 100\n"
    agent = make_agent(SETTINGS + "free_every = 0\n" + trouble)
    await agent.start({"WA_AGENT_WORKER__WATCHDOG": "10"})
    for id in "abcd":
        await agent.create(id)
    for id in "abcd":
        await eventually(lambda id=id: agent.status(id), "CONNECTED")
    for id in "abc":
        await agent.fault(id, "stuck-loading", 600)

    async def incidents():
        return len((await agent.do("GET", "/api/incidents"))["incidents"])

    await eventually(incidents, 1)
    await agent.fault("d", "leak", bytes_per_second=8 * 2**20)
    await eventually(lambda: uses_more_than(agent, "d", 60), within=30)
    assert not await story_has(agent, "d", "restart: memory"), "it would log in into the incident"
    for id in "abc":
        await agent.clear(id)
    await eventually(incidents, 0)  # all its members are well
    await eventually(lambda: story_has(agent, "d", "restart: memory"))


async def test_a_restart_for_memory_is_forgotten_when_its_worker_ended_before(
    make_agent, eventually
):
    agent = make_agent(SETTINGS + "[phases]\nsync = 600\n", base=ONE_AT_A_TIME)
    await agent.start({"WA_AGENT_WORKER__WATCHDOG": "10"})
    for id in "ab":
        await agent.create(id)
        await eventually(lambda id=id: agent.status(id), "CONNECTED")
    await start_into_a_sync_that_does_not_end(agent, eventually, "b")
    await agent.fault("a", "leak", bytes_per_second=8 * 2**20)
    await eventually(lambda: turns_before(agent, "a"), 0, within=30)
    await agent.clear("a")
    await agent.do("POST", "/api/instance/a/stop")
    await eventually(lambda: agent.status("a"), "DISCONNECTED")
    await agent.do("POST", "/api/instance/a/start")
    await agent.clear("b")
    await eventually(lambda: agent.status("a"), "CONNECTED")

    async def measured():
        return 0 < ((await agent.show("a"))["memory_bytes"] or 0) < 30 << 20

    await eventually(measured)
    assert not await story_has(agent, "a", "restart: memory"), "the new worker needs none"


async def test_the_memory_wall_holds_for_a_worker_that_a_new_agent_adopted(make_agent, eventually):
    """So does it for one that a repair or the host itself started: each run is held, once."""
    base = BASE.replace("[worker]\n", f"[worker]\nmemory_max = {96 << 20}\n")
    agent = make_agent("[memory]\ninstance = 0\n", base=base)
    agent.first = LOOKS_OFTEN
    await agent.start()
    await agent.create("a")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    pid = await agent.pid("a")
    await agent.kill()
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert await agent.pid("a") == pid
    await agent.fault("a", "leak", bytes_per_second=24 << 20)

    async def killed():
        return (await agent.show("a"))["restarts_by_reason"]["oom"]

    await eventually(killed, within=60)
    await eventually(lambda: agent.status("a"), "CONNECTED")
