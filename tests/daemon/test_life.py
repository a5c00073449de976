"""An agent's life on the process host: restarts, stops, kills; the sessions outlive them all."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import time
from pathlib import Path

from tests.waiting import alive

from .conftest import IMPATIENT, SETTINGS


async def connected(agent, eventually, *ids):
    for id in ids:
        await agent.create(id)
    for id in ids:
        await eventually(lambda id=id: agent.status(id), "CONNECTED")


async def test_f01_a_killed_agent_changes_nothing_for_the_sessions(agent, eventually):
    await connected(agent, eventually, "a", "b")
    before = {id: await agent.pid(id) for id in ("a", "b")}
    await agent.kill()
    assert all(alive(pid) for pid in before.values())
    await agent.start()
    for id, pid in before.items():
        # A worker that is slow to speak is adopted all the same.
        await eventually(lambda id=id: agent.status(id), "CONNECTED")
        shown = await agent.show(id)
        assert shown["unit"]["main_pid"] == pid, "it was restarted, not adopted"
        assert sum(shown["restarts_by_reason"].values()) == 0


async def test_an_adopted_worker_is_watched_like_any_other(agent, eventually):
    await connected(agent, eventually, "a")
    pid = await agent.pid("a")
    await agent.kill()
    await agent.start(IMPATIENT)
    os.kill(pid, signal.SIGSTOP)

    async def is_back():
        shown = await agent.show("a")
        return shown["connection_status"] == "CONNECTED" and shown["unit"]["main_pid"] != pid

    await eventually(is_back)


async def test_a_worker_that_died_without_an_agent_is_started_again(agent, eventually):
    await connected(agent, eventually, "a")
    pid = await agent.pid("a")
    await agent.kill()
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: alive(pid), False)
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")


async def test_a_stop_saves_and_closes_in_order_and_a_start_restores_without_a_qr(
    agent, eventually
):
    await connected(agent, eventually, "a", "b")
    pids = agent.worker_pids()
    before = {id: len(await agent.story(id)) for id in ("a", "b")}
    assert await agent.stop() == 0
    assert not any(alive(pid) for pid in pids)
    log = agent.log.read_text()
    steps = ["schedules stopped", "to prepare", "save 2 sessions", "closed 2 workers", "database"]
    at = [log.index(step) for step in steps]
    assert at == sorted(at)
    await agent.start()
    for id in ("a", "b"):
        await eventually(lambda id=id: agent.status(id), "CONNECTED")
        assert "QR_REQUIRED" not in str((await agent.story(id))[before[id] :])
    assert (await agent.show("a"))["reconnects_by_reason"] == {}, "no connection was lost"


async def test_f11_a_second_signal_skips_the_waiting_not_the_saving(agent, eventually):
    await connected(agent, eventually, "a")
    await agent.fault("a", "slow", 20)
    agent.process.send_signal(signal.SIGINT)
    await eventually(lambda: "stopping in order" in agent.log.read_text())
    agent.process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(agent.process.wait(), 30) == 0
    assert "save 1 sessions" in agent.log.read_text()
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED", within=30)


async def test_an_answer_while_the_sessions_close_says_that_its_connection_ends(
    make_agent, eventually
):
    """Then the stop waits for no client at its end."""
    agent = make_agent(base=SETTINGS.replace("save = 3", "save = 3\nprepare = 60"))
    await agent.start()
    await connected(agent, eventually, "a")
    reader, writer = await asyncio.open_unix_connection(str(agent.state / "api.sock"))
    ask = b"GET /api/instances HTTP/1.1\r\nHost: localhost\r\n\r\n"
    writer.write(ask)
    assert b"connection: close" not in (await reader.readuntil(b"}\n")).lower()
    await agent.fault("a", "slow", 60)
    agent.process.send_signal(signal.SIGINT)
    await eventually(lambda: "schedules stopped" in agent.log.read_text())
    writer.write(ask)
    answer = (await asyncio.wait_for(reader.read(), 30)).lower()
    assert b" 200 " in answer.splitlines()[0] and b"connection: close" in answer
    assert agent.process.returncode is None, "the answer came while the session closed"
    writer.close()
    agent.process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(agent.process.wait(), 30) == 0


async def test_f18_a_second_agent_on_the_same_state_is_refused(agent, make_agent):
    other = make_agent()
    await other.start(ready=False)
    assert await other.process.wait() == 75
    assert "another agent runs on it" in other.log.read_text()


async def test_an_operators_stop_holds_over_a_restart_of_the_agent(agent, eventually):
    await connected(agent, eventually, "a")
    await agent.do("POST", "/api/instance/a/stop")
    await eventually(lambda: agent.pid("a"), 0)
    await agent.stop()
    await agent.start()
    await agent.do("POST", "/api/health/check")
    assert await agent.pid("a") == 0
    await agent.do("POST", "/api/instance/a/start")
    await eventually(lambda: agent.status("a"), "CONNECTED")


async def test_disabled_is_remembered_and_enabling_starts_it(agent, eventually):
    await connected(agent, eventually, "a")
    await agent.do("POST", "/api/instance/a/disable")
    await eventually(lambda: agent.pid("a"), 0)
    await agent.kill()
    await agent.start()
    assert (await agent.show("a"))["enabled"] is False
    await agent.do("POST", "/api/instance/a/enable")
    await eventually(lambda: agent.status("a"), "CONNECTED")


async def test_a_restart_by_an_operator_gives_a_new_worker_once(agent, eventually):
    await connected(agent, eventually, "a")
    before = await agent.pid("a")
    await agent.do("POST", "/api/instance/a/restart")

    async def is_back():
        shown = await agent.show("a")
        return shown["connection_status"] == "CONNECTED" and shown["unit"]["main_pid"] != before

    await eventually(is_back)
    assert (await agent.show("a"))["restarts_by_reason"]["operator"] == 1


async def test_a_stop_interrupts_a_start_that_takes_long(agent, eventually):
    await connected(agent, eventually, "a")
    pid = await agent.pid("a")
    os.kill(pid, signal.SIGSTOP)  # it will not answer its SIGTERM either
    await agent.do("POST", "/api/instance/a/restart")
    await agent.do("POST", "/api/instance/a/stop")
    await eventually(lambda: agent.pid("a"), 0)
    assert (await agent.show("a"))["override"] == "stopped"


async def test_a_deleted_session_can_be_restored_and_needs_no_new_scan(agent, eventually):
    await connected(agent, eventually, "a")
    codes = await agent.codes("a")
    answer = await agent.do("DELETE", "/api/instance/a")
    assert (await agent.ask("GET", "/api/instance/a"))[0] == 404
    assert not (agent.state / "sessions" / "a").exists()
    name = (await agent.do("GET", "/api/trash"))["trash"][0]["name"]
    assert name in str(answer)
    await agent.do("POST", f"/api/trash/{name}/restore")
    await agent.do("POST", "/api/instance/a/enable")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert await agent.codes("a") == codes


async def test_f40_a_power_cut_at_any_moment_loses_no_acknowledged_change(agent, eventually):
    acknowledged: dict[str, bool] = {}
    for round in range(4):
        ids = [f"r{round}-{number}" for number in range(6)]

        async def change(id):
            await agent.create(id)
            acknowledged[id] = True
            await agent.do("POST", f"/api/instance/{id}/disable")
            acknowledged[id] = False

        changes = [asyncio.create_task(change(id)) for id in ids]
        wanted = len(acknowledged) + round + 1
        await eventually(lambda wanted=wanted: len(acknowledged) >= wanted)
        workers = agent.worker_pids()
        agent.process.kill()
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):  # one that was disabled
                os.kill(pid, signal.SIGKILL)
        await agent.process.wait()
        await asyncio.gather(*changes, return_exceptions=True)
        known = dict(acknowledged)
        await agent.start()
        for id, enabled in known.items():
            # What was not acknowledged any more may have happened; what was, must have.
            shown = await agent.show(id)
            assert shown["enabled"] in ((True, False) if enabled else (False,)), id
        acknowledged.update({id: (await agent.show(id))["enabled"] for id in known})


async def test_f34_a_damaged_database_is_rebuilt_from_the_session_folders(agent, eventually):
    await connected(agent, eventually, "a", "b")
    await agent.do("POST", "/api/instance/b/disable")
    await agent.stop()
    database = agent.state / "agent.db"
    database.write_bytes(b"\0" * 4096 + database.read_bytes()[4096:])
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert (await agent.show("b"))["enabled"] is False
    assert list(agent.state.glob("agent.db.damaged-*"))


async def test_f42_a_paired_instance_never_starts_on_an_empty_folder(agent, eventually):
    await connected(agent, eventually, "a")
    await agent.stop()
    folder = agent.state / "sessions" / "a"
    folder.rename(agent.state / "elsewhere")
    await agent.start()
    shown = await agent.show("a")
    assert shown["connection_status"] == "AUTH_FAILURE"
    assert shown["health"]["verdict"] == "corrupted"
    assert shown["unit"]["main_pid"] == 0
    assert not folder.exists(), "an empty folder would soon be a new QR"


async def test_f13_f20_a_bad_setting_stops_a_start_and_spoils_no_reload(agent, make_agent):
    good = agent.config.read_text()
    agent.config.write_text(good + "[health]\nintervall = 3\n")
    agent.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 60
    while "the old settings stay in force" not in agent.log.read_text():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert (await agent.ask("GET", "/healthz"))[0] == 200
    await agent.stop()
    await agent.start(ready=False)
    assert await agent.process.wait() == 78
    assert str(agent.config) in agent.log.read_text()


async def test_f79_other_users_may_not_open_the_socket_or_the_state(agent):
    assert (agent.state / "api.sock").stat().st_mode & 0o777 == 0o660
    assert agent.state.stat().st_mode & 0o077 == 0
    for file in (agent.state / "agent.db", agent.state / "sessions"):
        assert file.stat().st_mode & 0o007 == 0


async def test_the_agent_tells_its_manager_that_it_is_ready_alive_and_stopping(
    make_agent, eventually, tmp_path: Path
):
    told: list[str] = []

    class Listener(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            told.append(data.decode())

    path = tmp_path / "notify"
    loop = asyncio.get_running_loop()
    import socket

    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.bind(str(path))
    transport, _ = await loop.create_datagram_endpoint(Listener, sock=sock)
    agent = make_agent()
    await agent.start({"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "1000000"})
    await eventually(lambda: told.count("WATCHDOG=1") >= 3)
    await agent.stop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as after:
        after.sendto(b"the end", str(path))
    await eventually(lambda: told[-1] == "the end")
    transport.close()
    assert told[0] == "READY=1"
    assert told[-2] == "STOPPING=1"


async def test_a_wrong_setting_is_tried_again_when_a_person_says_so(agent, eventually):
    await agent.create("a", scan="manual")
    await eventually(lambda: agent.status("a"), "QR_REQUIRED")
    await agent.stop()
    # The API refuses such a setting; one of another version's engine may still be there.
    identity = agent.state / "sessions" / "a" / "instance.json"
    identity.write_text(identity.read_text().replace("manual", "never heard of"))
    with contextlib.closing(sqlite3.connect(agent.state / "agent.db")) as db, db:
        db.execute("update instances set settings = replace(settings, 'manual', 'never heard of')")
    await agent.start()

    async def is_told():
        return "cannot run with its configuration" in (await agent.show("a"))["sentence"]

    await eventually(is_told)
    tried = [one for one in await agent.story("a") if one[0] == "action"]
    await agent.do("POST", "/api/health/check")
    assert [one for one in await agent.story("a") if one[0] == "action"] == tried
    good = {"scan": "auto", "scan_after": 0.05}
    await agent.do("PATCH", "/api/instance/a", {"settings": good})
    await agent.do("POST", "/api/instance/a/start")
    await eventually(lambda: agent.status("a"), "CONNECTED")
