"""What the agent writes and counts about what happens to a session: true, and under its name."""

import os
import signal


async def lines(agent, text):
    return [line for line in agent.log.read_text().splitlines() if text in line]


async def test_a_worker_that_hangs_or_dies_is_told_under_its_session(agent, eventually):
    await agent.create("a")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    before = await agent.pid("a")
    os.kill(before, signal.SIGKILL)

    async def restarted():
        return await agent.pid("a") not in (before, 0) and await agent.status("a") == "CONNECTED"

    await eventually(restarted)
    (line,) = await lines(agent, "a ended (")
    assert "[WARN] [SESSION] [a]" in line
    os.kill(await agent.pid("a"), signal.SIGSTOP)

    async def told():
        return bool(await lines(agent, "gave no sign of life"))

    await eventually(told, within=20)
    (line,) = await lines(agent, "gave no sign of life")
    assert "[WARN] [SESSION] [a]" in line


async def test_going_down_is_a_warning_and_each_try_names_its_number(agent, eventually):
    await agent.create("a")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    await agent.fault("a", "drop", 0.5)

    async def tried():
        return bool(await lines(agent, "(attempt 1 of 20)"))

    await eventually(tried)
    down = await lines(agent, "] CONNECTED → RECONNECTING")
    assert down
    assert all("[WARN] [SESSION] [a]" in line for line in down)
    assert all("[RECONNECT] [a]" in line for line in await lines(agent, "(attempt "))


async def test_a_logout_that_an_operator_asked_for_is_no_error_of_whatsapp(agent, eventually):
    await agent.create("a", scan="manual")
    await eventually(lambda: agent.status("a"), "QR_REQUIRED")
    await agent.do("POST", "/api/instance/a/sandbox/scan")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    await agent.do("POST", "/api/instance/a/logout")
    await eventually(lambda: agent.status("a"), "QR_REQUIRED")
    assert (await agent.show("a"))["errors"].get("logout", 0) == 0
    # The phone's own is one.
    await agent.do("POST", "/api/instance/a/sandbox/scan")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    await agent.fault("a", "logout")

    async def counted():
        return (await agent.show("a"))["errors"].get("logout", 0) == 1

    await eventually(counted)
