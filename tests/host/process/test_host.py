"""The process host with real processes: the words and the order that systemd has."""

import asyncio
import os
import shutil
import signal
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from agent.core.model import InstanceId
from agent.host.process import find_workers, spawn
from agent.log import open_log
from tests.host.contract import HostContract
from tests.host.short_limits import FAST, WATCHFUL


def own(habit: str) -> InstanceId:
    """No other worker on this machine has this name."""
    return InstanceId(f"{habit}-{os.getpid()}")


def alive(tag: str) -> list[int]:
    """Processes that carry this word on their command line, the stand-ins' children among them."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        if tag in (process.info["cmdline"] or []) and process.info["status"] != "zombie":
            found.append(process.info["pid"])
    return found


@pytest.fixture
def woken():
    return []


@pytest_asyncio.fixture
async def host(open_host, woken):
    return await open_host(wake=woken.append)


@pytest_asyncio.fixture
async def watching(open_host):
    return await open_host(WATCHFUL)


@pytest.fixture
def kill():
    return lambda pid: os.kill(pid, signal.SIGKILL)


class TestProcessHost(HostContract):
    BURST = FAST.burst


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_nothing_of_a_worker_is_left_not_even_in_sessions_of_its_own(
    open_host, eventually, end
):
    host = await open_host()
    tag = f"family-{end}-{os.getpid()}"
    await host.start(InstanceId(tag))
    await eventually(lambda: len(alive(tag)), 3)
    if end == "stop":
        await host.stop(InstanceId(tag))
        assert (alive(tag), await host.list()) == ([], {})
    else:
        before = set(alive(tag))
        os.kill((await host.status(InstanceId(tag))).main_pid, signal.SIGKILL)
        await eventually(lambda: len(set(alive(tag)) - before), 3)
        assert before.isdisjoint(alive(tag))


async def test_f01_a_killed_agents_workers_are_adopted_with_their_run(
    open_host, killed_agent, tmp_path
):
    id = own("good")
    await killed_agent(id)
    (pid,) = alive(id)
    host = await open_host()
    status = await host.status(id)
    assert (status.state, status.main_pid, len(status.run)) == ("active", pid, 32)
    await host.start(id)
    assert (await host.status(id)).run == status.run
    await host.stop(id)
    assert alive(id) == []
    assert not list(find_workers(tmp_path / "run"))


async def test_helpers_of_a_worker_that_died_without_an_agent_are_killed(
    open_host, killed_agent, eventually, tmp_path
):
    tag = f"family-orphans-{os.getpid()}"
    await killed_agent(tag)
    await eventually(lambda: len(alive(tag)), 3)
    ((_, leader),) = find_workers(tmp_path / "run")
    os.kill(leader, signal.SIGKILL)
    await eventually(Path(f"/proc/{leader}").exists, False)  # one that dies would be adopted
    host = await open_host()
    assert alive(tag) == []
    assert await host.list() == {}


@pytest.mark.parametrize("habit", ["mute", "good"])
async def test_a_worker_that_cannot_be_reached_is_killed_and_not_started_twice(
    open_host, killed_agent, tmp_path, habit
):
    """It listens nowhere yet, or its folder was moved away."""
    id = own(habit)
    await killed_agent(id)
    if habit == "good":
        (tmp_path / f"run/{id}").rename(tmp_path / "away")
    assert len(alive(id)) == 1
    host = await open_host()
    assert (alive(id), await host.list()) == ([], {})


async def test_what_is_no_worker_of_this_folder_is_not_adopted(open_host, killed_agent, tmp_path):
    """A copy of a state folder has the workers of the original."""
    (tmp_path / "run/Not An Id").mkdir(parents=True)
    await killed_agent("good")
    shutil.copytree(
        tmp_path / "run/good", tmp_path / "copy/good", ignore=lambda *_: ["notify", "link.sock"]
    )
    assert await (await open_host(run_dir=tmp_path / "copy")).list() == {}
    assert list(await (await open_host()).list()) == ["good"]


async def test_a_worker_of_a_renamed_state_folder_gives_way_to_another(
    open_host, killed_agent, tmp_path, state
):
    """It looks for its session where that was."""
    id, new = own("locker"), tmp_path / "new"
    (tmp_path / f"old/sessions/{id}").mkdir(parents=True)
    await killed_agent(id, place=tmp_path / "old")
    (before,) = alive(id)
    (tmp_path / "old").rename(new)
    host = await open_host(run_dir=new / "run", session_root=new / "sessions")
    status = await state(host, id, "active")
    assert status.main_pid != before
    assert status.restarts == 1
    assert alive(id) == [status.main_pid]


async def test_a_foreign_process_cannot_speak_for_a_worker(open_host, tmp_path):
    host = await open_host()
    await host.start(InstanceId("good"))
    before = await host.status(InstanceId("good"))
    program = "from agent.host.notify import Notifier; import sys; "
    program += "Notifier(sys.argv[1]).send('STATUS=lies', 'READY=1', 'WATCHDOG=trigger')"
    liar = await asyncio.create_subprocess_exec(
        os.sys.executable, "-c", program, str(tmp_path / "run/good/notify")
    )
    assert await liar.wait() == 0
    await asyncio.sleep(0.1)
    after = await host.status(InstanceId("good"))
    assert (after.status_text, after.run) == (before.status_text, before.run)


def test_a_module_in_the_agents_current_folder_is_not_run(tmp_path, monkeypatch):
    """Code of each user who may write there (/tmp, a bot's folder) would run as the agent's."""
    for name in ("json", "asyncio", "agent"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(99)\n")
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "out").open("wb") as out:
        _, status = os.waitpid(spawn(["-m", "agent.worker"], dict(os.environ), out.fileno()), 0)
    assert os.waitstatus_to_exitcode(status) == 78, (tmp_path / "out").read_text()
    assert "usage: python -m agent.worker ID" in (tmp_path / "out").read_text()


@pytest.mark.timeout(30)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_in_place_of_a_workers_log_is_replaced_by_a_file(tmp_path: Path, make) -> None:
    log = tmp_path / "worker.log"
    make(log)
    os.close(open_log(tmp_path))
    assert (log.is_file(), log.stat().st_mode & 0o777) == (True, 0o600)
