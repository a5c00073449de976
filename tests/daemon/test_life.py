"""An agent's life on the process host: restarts, stops, kills; the sessions outlive them all."""

import asyncio
import shutil
import signal
import socket
from pathlib import Path

from tests.waiting import alive, connected


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


async def test_f11_a_second_signal_ends_no_saving(agent, eventually):
    await connected(agent, eventually, "a")
    await agent.fault("a", "slow", 20)
    agent.process.send_signal(signal.SIGINT)
    await eventually(lambda: "stopping in order" in agent.log.read_text())
    agent.process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(agent.process.wait(), 60) == 0
    assert "save 1 session" in agent.log.read_text()
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")


async def test_f20_a_bad_setting_spoils_no_reload(agent, eventually):
    good = agent.config.read_text()
    agent.config.write_text(good + "[health]\nintervall = 3\n")
    agent.process.send_signal(signal.SIGHUP)
    await eventually(lambda: "the old settings stay in force" in agent.log.read_text())
    assert (await agent.ask("GET", "/healthz"))[0] == 200


async def test_the_agent_tells_its_manager_that_it_is_ready_alive_and_stopping(
    make_agent, eventually, tmp_path: Path
):
    told: list[str] = []

    class Listener(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            told.append(data.decode())

    path = tmp_path / "notify"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.bind(str(path))
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Listener, sock=sock)
    agent = make_agent()
    await agent.start({"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "4000000"})
    await eventually(lambda: told.count("WATCHDOG=1") >= 3)
    await agent.stop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as after:
        after.sendto(b"the end", str(path))
    await eventually(lambda: told[-1] == "the end")
    transport.close()
    assert told[0] == "READY=1"
    assert told[-2] == "STOPPING=1"


async def test_a_run_folder_that_was_removed_comes_back_and_each_session_with_it(agent, eventually):
    await connected(agent, eventually, "a")
    shutil.rmtree(run := agent.state / "run")
    await connected(agent, eventually, "b")
    await eventually((run / "a" / "link.sock").exists, within=20)
    await eventually(lambda: agent.status("a"), "CONNECTED")
    causes = (await agent.show("a"))["restarts_by_reason"]
    assert {cause: times for cause, times in causes.items() if times} == {"agent": 1}, "in order"
