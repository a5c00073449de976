"""Agents that tests fork: what reaches them, and how their end is heard of."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.forked import can_fork, fork_agent, started_by

STAYS = "import time; print('here', flush=True); time.sleep(600)"


async def test_a_forked_agent_has_its_own_environment_folder_and_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = "import os; print(os.environ['WA_ONE'], os.environ.get('HOME'), os.getcwd())"
    with (tmp_path / "out").open("wb") as out:
        process = fork_agent(["version", "--json"], {"WA_ONE": "1"}, out, first)
    assert await asyncio.wait_for(process.wait(), 60) == 0
    said, _, answer = (tmp_path / "out").read_text().partition("\n")
    assert said == f"1 None {tmp_path}"
    assert '"version"' in answer


SHOWS = "import sys; print(*sys.modules)"


async def test_what_an_agent_imports_is_there_when_it_is_forked(tmp_path: Path) -> None:
    """Or each of thousands imports it again, which is half of its processor time."""
    with (tmp_path / "out").open("wb") as out:
        process = fork_agent(["version"], os.environ, out, SHOWS)
    await asyncio.wait_for(process.wait(), 60)
    there = {"agent.cli.main", "agent.daemon.main", "agent.worker.__main__", "agent.api.app"}
    assert not there - set((tmp_path / "out").read_text().split())


async def test_its_end_is_heard_of_by_each_that_waits(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        wrong = fork_agent(["no-command"], os.environ, out)
        killed = fork_agent([], os.environ, out, STAYS)
    waiting = [asyncio.ensure_future(process.wait()) for process in (wrong, killed, killed)]
    assert await asyncio.wait_for(asyncio.shield(waiting[0]), 60) == 2
    assert killed.returncode is None
    killed.kill()
    async with asyncio.timeout(60):
        assert await asyncio.gather(*waiting) == [2, -signal.SIGKILL, -signal.SIGKILL]
    killed.terminate()  # nobody else is hit


async def test_the_test_that_started_it_is_known(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        process = fork_agent([], os.environ, out, STAYS)
    assert started_by(process.pid) == os.environ["WA_TESTS_TEST"]
    process.kill()
    assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL


def test_what_python_reads_before_main_needs_a_process_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert can_fork({**os.environ, "WA_FAILPOINT": "begun:kill"})
    assert not can_fork({**os.environ, "PYTHONPATH": "/another"})
    assert not can_fork({**os.environ, "LD_PRELOAD": "/a.so"})
    monkeypatch.setenv("PYTHONPATH", "/another")
    assert not can_fork(os.environ), "also where it is set for all that the test starts"


SPAWNS = """
import os, socket
from agent.host.process import launcher
read, write = os.pipe()
ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
its.set_inheritable(True)
environment = {**os.environ, "WA_WARM_FD": str(its.fileno())}
pid = launcher.spawn(["-m", "agent.worker", "--warm"], environment, write)
os.close(write)
shown = [open(f"/proc/{pid}/{name}").read().split(chr(0)) for name in ("cmdline", "environ")]
print(shown[0][1:4], f"WA_WARM_FD={its.fileno()}" in shown[1], os.getsid(pid) == pid)
its.close()
ours.send(b"[]")
print(ours.recv(1000)[:9], os.path.samestat(os.fstat(read), os.stat(f"/proc/{pid}/fd/2")))
ours.close()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), open(read).read(), flush=True)
os._exit(0)
"""


async def test_a_worker_of_a_forked_agent_is_forked_and_like_a_spawned_one(tmp_path: Path) -> None:
    """Its parent hears its status; it leads its session and has what was handed to it."""
    with (tmp_path / "out").open("wb") as out:
        process = fork_agent([], os.environ, out, SPAWNS)
    assert await asyncio.wait_for(process.wait(), 60) == 0
    assert (tmp_path / "out").read_text().splitlines() == [
        "['-m', 'agent.worker', '--warm'] True True",
        "b'{\"error\":' True",
        "0 ",
    ]
