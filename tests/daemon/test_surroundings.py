"""The machine around a running agent has no descriptors, tasks, memory or disk left."""

import contextlib
import os
import resource
import socket
import time
from pathlib import Path

import pytest

from tests.lacking import not_lent
from tests.waiting import connected

from .conftest import LOOKS_OFTEN


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def test_f17_without_descriptors_the_agent_waits_and_does_not_spin(agent, eventually):
    await connected(agent, eventually, "a")
    agent_pid, worker = agent.process.pid, await agent.pid("a")
    limit = descriptors(agent_pid) + 4
    resource.prlimit(agent_pid, resource.RLIMIT_NOFILE, (limit, limit))
    held = []
    for _ in range(20):
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(1)
        one.connect(str(agent.state / "api.sock"))
        held.append(one)
    await eventually(lambda: descriptors(agent_pid), limit)
    await eventually(lambda: "Too many open files" in agent.log.read_text())
    before, begun = cpu_seconds(agent_pid), time.monotonic()
    await eventually(lambda: time.monotonic() - begun > 1.5)
    assert cpu_seconds(agent_pid) - before < 0.75, "it spins"
    assert agent.log.read_text().count("out of system resource") < 10
    assert agent.process.returncode is None
    for one in held:
        one.close()
    await eventually(lambda: agent.pid("a"), worker)
    await eventually(lambda: agent.status("a"), "CONNECTED")

    async def created() -> bool:
        """As soon as it has closed its ends of those connections."""
        body = {"id": "b", "engine": "sandbox", "settings": {}}
        return (await agent.ask("POST", "/api/instance", body))[0] < 300

    await eventually(created)
    assert sum((await agent.show("a"))["restarts_by_reason"].values()) == 0


@pytest.fixture
def task_group():
    """A control group for pids, as TasksMax= makes one: (set its limit, put a process in)."""
    root = Path("/sys/fs/cgroup/pids")
    root = root if root.is_dir() else Path("/sys/fs/cgroup")
    folder = root / f"wa-agent-test-{os.getpid()}"
    try:
        folder.mkdir()
        limit = folder / "pids.max"
        limit.write_text("max")
    except OSError as error:
        if folder.is_dir():
            folder.rmdir()
        not_lent(f"this machine lends no control group: {error}")

    def hold(pid):
        (folder / "cgroup.procs").write_text(str(pid))

    def allow(more):
        here = int((folder / "pids.current").read_text())
        limit.write_text("max" if more is None else str(here + more))

    yield hold, allow
    while inside := (folder / "cgroup.procs").read_text().split():
        for pid in inside:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                (root / "cgroup.procs").write_text(pid)
    folder.rmdir()


async def test_f16_without_tasks_a_start_fails_in_words_and_nothing_hangs(
    agent, eventually, task_group
):
    hold, allow = task_group
    hold(agent.process.pid)
    await connected(agent, eventually, "a")
    worker = await agent.pid("a")
    allow(0)
    try:
        await agent.create("b")
        await eventually(lambda: "cannot start a worker for b: Resource" in agent.log.read_text())
        assert (await agent.ask("GET", "/healthz"))[0] == 200
        assert (await agent.status("a"), await agent.pid("a")) == ("CONNECTED", worker)
        assert agent.process.returncode is None
    finally:
        allow(None)
    await eventually(lambda: agent.status("b"), "CONNECTED")
    assert "Traceback" not in agent.log.read_text()


async def test_the_memory_wall_holds_for_a_worker_that_a_new_agent_adopted(make_agent, eventually):
    """So does it for one that a repair or the host itself started: each run is held, once."""
    agent = make_agent(f"[memory]\ninstance = 0\n[worker]\nmemory_max = {96 << 20}\n")
    agent.first = LOOKS_OFTEN
    await agent.start()
    await connected(agent, eventually, "a")
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
