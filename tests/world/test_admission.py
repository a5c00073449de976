"""Memory for one more worker: what does not fit waits."""

from tests.waiting import connected

MIB = 1 << 20
SETTINGS = f"[memory]\ntotal = {150 * MIB}\nmachine_share = 0\n"
NUMBERS = "2 may use 128 MiB, this one 64 MiB, all together 150 MiB"


async def test_a_session_without_room_waits_with_a_reason_and_starts_when_another_stops(
    make_agent, eventually
):
    agent = make_agent(SETTINGS)
    await agent.start()
    await connected(agent, eventually, *"ab")
    made = {"id": "c", "engine": "sandbox", "settings": {"scan": "auto", "scan_after": 0.05}}
    answer = await agent.do("POST", "/api/instance", made)
    assert answer["wait_reason"] == "memory_full", "told at once"
    assert NUMBERS in answer["wait_sentence"]

    async def held():
        shown = await agent.show("c")
        return shown["reason"] == "memory_full" and NUMBERS in shown["health"]["sentence"]

    await eventually(held)
    assert (await agent.show("c"))["unit"]["state"] == "inactive"
    status, refused = await agent.ask(
        "POST",
        "/api/v1/whatsapp/setup?wait=120",
        {"name": "d", "instanceName": "d", "engine": "sandbox"},
    )
    assert (status, refused["error"]) == (503, "memory_full"), refused

    before = await agent.run_of("a")
    await agent.do("POST", "/api/instance/a/restart")
    await eventually(lambda: agent.is_back("a", before))
    assert await agent.hold("a") == "", "who runs keeps its room"

    await agent.do("DELETE", "/api/instance/d")
    await agent.do("POST", "/api/instance/a/stop")
    await eventually(lambda: agent.status("c"), "CONNECTED")
    await agent.do("POST", "/api/instance/a/start")
    await eventually(lambda: agent.hold("a"), "memory_full")
    assert await agent.hold("b") == ""
