"""Starts, reconnects and repairs in their turns, by the real agent: none holds up the others."""

import json
import time

from tests.daemon.conftest import SETTINGS

ONE_AT_A_TIME = SETTINGS.replace(
    "stagger = 0\n", "stagger = 0.1\nparallel = 1\nreconnects = 1\nlogins = 1\n"
)
WATCHDOG = {"WA_AGENT_WORKER__WATCHDOG": "10"}
QUICK = """
[recovery]
first_delay = 0.1
settle = 0.5
settle_start = 0.3
"""


async def connected(agent, eventually, ids):
    for id in ids:
        await eventually(lambda id=id: agent.status(id), "CONNECTED", within=30)


async def start_into_a_sync_that_does_not_end(agent, eventually, id):
    await agent.do("POST", f"/api/instance/{id}/stop")
    await eventually(lambda: unit(agent, id), "inactive")
    (folder,) = agent.state.glob(f"sessions/{id}/session")
    stuck = {"stuck-loading": {"until_wall": time.time() + 3600, "arguments": {}}}
    (folder / "faults.json").write_text(json.dumps({"version": 1, "faults": stuck}))
    await agent.do("POST", f"/api/instance/{id}/start")
    await eventually(lambda: agent.status(id), "LOADING")


async def unit(agent, id):
    return (await agent.show(id))["unit"]["state"]


async def turns_before(agent, id):
    return (await agent.show(id))["turns_before"]


async def test_a_session_that_is_logged_out_while_it_waits_frees_its_turn(make_agent, eventually):
    settings = "\n[sessions]\non_logout = 'stop'\n[phases]\nsync = 60\n"
    agent = make_agent(settings, base=ONE_AT_A_TIME)
    await agent.start(WATCHDOG)
    for id in "abc":
        await agent.create(id)
    await connected(agent, eventually, "abc")
    await start_into_a_sync_that_does_not_end(agent, eventually, "a")
    await agent.fault("b", "drop")
    await eventually(lambda: turns_before(agent, "b"), 0)
    await agent.fault("c", "drop")
    await eventually(lambda: turns_before(agent, "c"), 1)
    await agent.fault("b", "logout")
    await eventually(lambda: turns_before(agent, "c"), 0)
    assert await turns_before(agent, "b") is None
    await agent.clear("a")
    await connected(agent, eventually, "ac")


async def test_a_start_that_is_stuck_frees_its_turn(make_agent, eventually):
    settings = f"{QUICK}tries = 1\nrounds = 1\nunpair = 'never'\n[phases]\nsync = 3\n"
    agent = make_agent(settings, base=ONE_AT_A_TIME)
    await agent.start(WATCHDOG)
    for id in "ab":
        await agent.create(id)
    await connected(agent, eventually, "ab")
    await start_into_a_sync_that_does_not_end(agent, eventually, "a")

    async def given_up():
        return "repair_over" in [kind for kind, _ in await agent.story("a")]

    await eventually(given_up, within=60)
    await agent.fault("b", "drop")

    async def reconnected():
        shown = await agent.show("b")
        return shown["reconnects_by_reason"] and shown["connection_status"] == "CONNECTED"

    await eventually(reconnected)


async def test_repairs_log_in_one_after_another_like_any_other_start(make_agent, eventually):
    spread = SETTINGS.replace(
        "stagger = 0\nlogin_every = 0\n", "stagger = 2\nparallel = 1\nlogins = 1\n"
    )
    agent = make_agent(QUICK, base=spread.replace("spread = 0\n", "spread = 0\nidle_load = 0\n"))
    await agent.start({"WA_AGENT_WORKER__WATCHDOG": "60"})
    ids = [f"i{number}" for number in range(3)]
    for id in ids:
        await agent.create(id)
    await connected(agent, eventually, ids)
    for id in ids:
        await agent.fault(id, "zombie", 300)

    async def restarts():
        found = (await agent.do("GET", "/api/events?limit=500&kind=repair&kind=repaired"))["events"]
        ours = [one for one in reversed(found) if one["detail"].get("step") == "restart"]
        return [(one["kind"], one["instance"]) for one in ours]

    async def two_restarts():
        return [kind for kind, _ in await restarts()].count("repaired") >= 2

    await eventually(two_restarts, within=60)
    told = (await restarts())[:4]
    assert [kind for kind, _ in told] == ["repair", "repaired"] * 2, told
    assert told[0][1] == told[1][1] != told[2][1] == told[3][1], "one after another"


async def test_a_start_waits_only_until_the_one_before_logs_in(make_agent, eventually):
    """However long `stagger` is: each worker reports that the heavy part of its start is over."""
    settings = "stagger = 300\nparallel = 9\nlogin_every = 0\nidle_load = 0\n"
    agent = make_agent(base=SETTINGS.replace("stagger = 0\nlogin_every = 0\n", settings))
    await agent.start()
    for number in range(3):
        await agent.create(f"i{number}")
    await connected(agent, eventually, [f"i{number}" for number in range(3)])


async def test_a_slow_login_keeps_no_other_session_from_its_start(make_agent, eventually):
    """One worker starts at a time; each login takes longer than all the starts together."""
    settings = "stagger = 300\nparallel = 1\nlogin_every = 0\nidle_load = 0\n"
    agent = make_agent(base=SETTINGS.replace("stagger = 0\nlogin_every = 0\n", settings))
    await agent.start()
    ids = [f"i{number}" for number in range(4)]
    for id in ids:
        await agent.create(id, login_seconds=8)

    async def beside_each_other():
        shown = [await agent.show(id) for id in ids]
        return [(its["unit"]["state"], its["connection_status"]) for its in shown]

    await eventually(beside_each_other, [("active", "INITIALIZING")] * len(ids), within=30)
    await connected(agent, eventually, ids)
