"""An agent's life: what was ordered, and its sessions, outlive its restarts."""

import asyncio
import shutil
from unittest.mock import Mock

import pytest

from agent.clock import boot_now
from agent.errors import LinkError, VaultError
from agent.link.client import Link
from agent.supervise import observe
from agent.supervise.gate import Alone
from agent.vault import identity
from tests.waiting import connected
from tests.world.test_lost_folder import reason


async def checks(agent):
    return (await agent.do("GET", "/api/repairs/statistics"))["checked"]


async def test_an_answer_while_the_sessions_close_says_that_its_connection_ends(
    agent, eventually, caplog
):
    """Then the stop waits for no client at its end."""
    caplog.set_level("INFO")
    await connected(agent, eventually, "a", save_seconds=5.0)
    reader, writer = await asyncio.open_unix_connection(str(agent.state / "api.sock"))
    ask = b"GET /api/instances HTTP/1.1\r\nHost: localhost\r\n\r\n"
    writer.write(ask)
    assert b"connection: close" not in (await reader.readuntil(b"}\n")).lower()
    stop = asyncio.create_task(agent.stop())
    await eventually(lambda: "schedules stopped" in caplog.text)
    writer.write(ask)
    answer = (await reader.read()).lower()
    assert b" 200 " in answer.splitlines()[0] and b"connection: close" in answer
    assert "save 1 session" not in caplog.text, "the answer came while the session closed"
    writer.close()
    assert await stop == 0


async def test_the_history_tells_since_when_a_session_was_away_with_its_agent(agent, eventually):
    """The page counts that time neither as connected nor as down."""
    await connected(agent, eventually, "a")
    await agent.stop()
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")
    [stopped] = (await agent.do("GET", "/api/events?kind=agent_stopped"))["events"]
    told = (await agent.do("GET", "/api/instance/a/events?kind=status"))["events"]
    [away] = [it["detail"] for it in told if "unknown_since" in it["detail"]]
    assert (away["before"], away["unknown_since"]) == ("CONNECTED", stopped["time"])


async def test_f34_a_damaged_database_is_rebuilt_from_the_session_folders(agent, eventually):
    await connected(agent, eventually, "a", "b")
    await agent.do("POST", "/api/instance/b/disable")
    await agent.stop()
    database = agent.state / "agent.db"
    database.write_bytes(b"\0" * 4096 + database.read_bytes()[4096:])
    await agent.start()
    assert (await agent.do("GET", "/readyz"))["restoring"]["total"] == 2, "ready once all are"
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert (await agent.show("b"))["enabled"] is False
    assert list(agent.state.glob("agent.db.damaged-*"))


async def test_no_worker_starts_before_its_lease_is_written_down(agent, eventually, monkeypatch):
    monkeypatch.setattr(Alone, "leased", True)
    await agent.create("a")
    await agent.do("POST", "/api/instance/a/stop")
    full = Mock(side_effect=VaultError("the disk is full"))
    monkeypatch.setattr(identity, "replace_identity", full)
    await agent.do("POST", "/api/instance/a/start")

    words = "cannot start a: cannot write its identity file: the disk is full"

    async def told():
        return words in str(await agent.story("a"))

    await eventually(told)
    assert not agent.machine.worker("a").status.runs


async def test_a_worker_at_rest_is_left_alone_until_it_finds_its_session_dead(agent, eventually):
    await connected(agent, eventually, "a")
    await asyncio.sleep(120)
    passes = await checks(agent)
    await asyncio.sleep(930)
    assert await checks(agent) - passes <= 16, "each for a fresh proof"
    await agent.fault("a", "zombie")
    await eventually(lambda: reason(agent), "ping_failed", within=35)


async def test_a_ping_that_is_lost_at_rest_costs_no_login(agent, eventually, monkeypatch):
    call, lost = Link.call, []

    async def asked(link, do, *args, **more):
        if do == "probe" and not lost:
            lost.append(await asyncio.sleep(10))
            raise LinkError("no answer in 10 s")
        return await call(link, do, *args, **more)

    await connected(agent, eventually, "a")
    await asyncio.sleep(120)
    monkeypatch.setattr(Link, "call", asked)
    for _ in range(200):
        await asyncio.sleep(1)
        assert (await agent.show("a"))["proof_age_seconds"] < 90
    assert lost and not [words for _, words in await agent.story("a") if "reconnect" in words]


async def test_sessions_that_were_held_up_together_part_again(agent, eventually, monkeypatch):
    looks, ask = {}, observe.probe

    async def noted(means, facts, **how):
        looks[facts.id] = boot_now()
        await ask(means, facts, **how)

    monkeypatch.setattr(observe, "probe", noted)
    await connected(agent, eventually, *"abcde")
    await agent.do("POST", "/api/health/check")
    assert max(looks.values()) - min(looks.values()) < 1
    await asyncio.sleep(900)
    assert max(looks.values()) - min(looks.values()) > 1


async def test_a_restart_is_on_the_disk_until_it_is_carried_out(make_agent, eventually):
    agent = make_agent()
    await agent.start("action_begun:kill:2")  # the first is its start
    await connected(agent, eventually, "a")
    before = await agent.run_of("a")
    await agent.dies(agent.do("POST", "/api/instance/a/restart"))
    await agent.start()
    await eventually(lambda: agent.is_back("a", before))


async def test_of_two_folders_with_one_device_one_logs_in(agent, eventually):
    await connected(agent, eventually, "a")
    await agent.stop()
    sessions = agent.state / "sessions"
    copy = shutil.copytree(sessions / "a", sessions / "b") / "instance.json"
    copy.write_text(copy.read_text().replace('"a"', '"b"'))
    await agent.start()
    await eventually(lambda: reason(agent, "b"), "same_device")
    told, shown = await agent.ask("POST", "/api/instance/b/enable"), await agent.show("b")
    assert (shown["unit"]["run"], told[1]["message"]) == ("", shown["wait_sentence"])
    await agent.do("DELETE", "/api/instance/a")
    await agent.do("POST", "/api/instance/b/enable")
    await eventually(lambda: agent.status("b"), "CONNECTED")


@pytest.mark.parametrize("how", ["restart", "conflict"])
async def test_a_device_copied_over_a_session_that_runs_logs_in_once(agent, eventually, how):
    await connected(agent, eventually, "a", "b")
    before, sessions = await agent.run_of("a"), agent.state / "sessions"
    shutil.copytree(sessions / "a/session", sessions / "b/session", dirs_exist_ok=True)
    if how == "restart":
        await agent.do("POST", "/api/instance/b/restart")
    else:
        await agent.fault("b", "conflict")
    await eventually(lambda: reason(agent, "b"), "same_device")
    await eventually(lambda: agent.unit_state("b"), "inactive")
    assert (await agent.run_of("a"), await agent.status("a")) == (before, "CONNECTED")
    await agent.do("POST", "/api/instance/a/disable")
    assert (await agent.ask("POST", "/api/instance/b/start"))[0] == 202


async def test_a_start_that_fails_leaves_the_sessions_connected(agent, eventually):
    await connected(agent, eventually, "a")
    run = await agent.run_of("a")
    await agent.kill()
    (socket := agent.state / "api.sock").unlink()
    socket.mkdir()
    with pytest.raises(AssertionError):
        await agent.start()
    socket.rmdir()
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert await agent.run_of("a") == run
