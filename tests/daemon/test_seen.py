"""What the agent writes and counts about what happens to a session: true, and under its name."""

import os
import signal


async def lines(agent, text):
    return [line for line in agent.log.read_text().splitlines() if text in line]


async def test_lines_about_a_worker_that_hangs_or_dies_carry_its_session(impatient, eventually):
    agent = impatient
    await agent.create("a")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    before = await agent.pid("a")
    os.kill(before, signal.SIGKILL)

    async def restarted():
        return await agent.pid("a") not in (before, 0) and await agent.status("a") == "CONNECTED"

    await eventually(restarted)
    ended = await lines(agent, "a ended (")
    assert ended and all("[WARN] [SESSION] [a]" in line for line in ended)
    os.kill(await agent.pid("a"), signal.SIGSTOP)

    silent = await eventually(lambda: lines(agent, "sent no watchdog ping"))
    assert all("[WARN] [SESSION] [a]" in line for line in silent)


async def test_going_down_is_a_warning_and_each_try_names_its_number(agent, eventually):
    await agent.create("a")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    await agent.fault("a", "drop", 0.5)

    async def tried():
        return bool(await lines(agent, "(attempt 1 of 20)"))

    await eventually(tried)
    down = await lines(agent, "] CONNECTED → RECONNECTING")
    assert all("reconnect" in line for line in down), "as `grep` looks for it"
    assert down
    assert all("[WARN] [SESSION] [a]" in line for line in down)
    assert all("[RECONNECT] [a]" in line for line in await lines(agent, "(attempt "))


async def test_a_logout_that_an_operator_asked_for_is_no_error_of_whatsapp(agent, eventually):
    await agent.create("a", scan="manual")
    await eventually(lambda: agent.status("a"), "QR_REQUIRED")
    await agent.do("POST", "/api/instance/a/sandbox/scan")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    await agent.do("POST", "/api/instance/a/logout", {"confirm": True})
    await eventually(lambda: agent.status("a"), "QR_REQUIRED")
    assert (await agent.show("a"))["errors"].get("logout", 0) == 0
    # The phone's own is one.
    await agent.do("POST", "/api/instance/a/sandbox/scan")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    await agent.fault("a", "logout")

    async def counted():
        return (await agent.show("a"))["errors"].get("logout", 0) == 1

    await eventually(counted)


async def figure(agent, name):
    text = await agent.do("GET", "/metrics")
    return sum(
        float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name + " ")
    )


async def test_how_long_things_took_is_counted_by_what_really_happened(agent, eventually):
    await agent.create("a")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert await figure(agent, "wa_agent_session_reconnect_seconds_count") == 0
    await agent.do(
        "POST", "/api/instance/a/messages?wait=30", {"to": "4915112345678", "text": "hello"}
    )
    await agent.fault("a", "drop", 2)

    async def all_counted():
        names = ("reconnect", "response", "acknowledgement")
        counts = [await figure(agent, f"wa_agent_session_{one}_seconds_count") for one in names]
        return all(counts)

    await eventually(all_counted)
    # The fault lasts two seconds, also for an agent that saw it late.
    assert 0.3 < await figure(agent, "wa_agent_session_reconnect_seconds_sum") < 20
    assert await figure(agent, "wa_agent_db_size_bytes") > 4096
    assert await figure(agent, "wa_agent_log_lines_lost_total") == 0
    # What a person stopped was not lost.
    before = await figure(agent, "wa_agent_session_reconnect_seconds_count")
    await agent.do("POST", "/api/instance/a/stop")
    await eventually(lambda: agent.status("a"), "DISCONNECTED")
    await agent.do("POST", "/api/instance/a/start")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert await figure(agent, "wa_agent_session_reconnect_seconds_count") == before
