"""What a worker uses is measured over its whole tree, and never guessed."""

import asyncio
import os
import sys

from agent.core.model import InstanceId
from agent.host import units
from agent.host.machine.proc_table import is_alive, read_process, run_of
from agent.host.machine.process_tree import UNSEEN
from agent.host.machine.resources import measure

ME = InstanceId("me")
CHILD = "import time; hoard = bytearray(48 << 20); hoard[::4096] = b'x' * len(hoard[::4096])"


async def test_children_count_wherever_they_went(eventually):
    before = measure({ME: os.getpid()})[ME]
    assert before.memory_bytes and before.processes and before.cpu_seconds is not None
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD + "; time.sleep(60)", start_new_session=True
    )
    try:

        async def grown():
            usage = measure({ME: os.getpid()})[ME]
            assert usage.memory_bytes is not None and before.memory_bytes is not None
            return usage.memory_bytes - before.memory_bytes > 40 << 20

        await eventually(grown)
        assert measure({ME: os.getpid()})[ME].processes == before.processes + 1
        both = measure({ME: os.getpid(), InstanceId("child"): child.pid})
        assert both[InstanceId("child")].processes == 1
        assert both[ME].processes == before.processes
    finally:
        child.kill()
        await child.wait()


def test_a_process_that_is_gone_is_unseen():
    assert measure({ME: 1 << 22})[ME] == UNSEEN
    assert measure({}) == {}


def test_a_control_group_is_the_kernels_own_account(tmp_path, monkeypatch):
    group = tmp_path / "group"
    group.mkdir()
    (group / "cgroup.procs").write_text(f"{os.getpid()}\n77\n")
    (group / "memory.current").write_text("5000\n")
    (group / "memory.stat").write_text("anon 1\ninactive_file 1000\n")
    (group / "cpu.stat").write_text("usage_usec 2500000\n")
    monkeypatch.setattr(units, "control_group", lambda unit: group)
    usage = measure({ME: os.getpid()})[ME]
    assert (usage.memory_bytes, usage.cpu_seconds, usage.processes) == (4000, 2.5, 2)
    (group / "memory.current").unlink()  # no memory controller here: the walk fills the gap
    usage = measure({ME: os.getpid()})[ME]
    assert usage.memory_bytes and usage.memory_bytes > 5000
    assert usage.cpu_seconds == 2.5
    (group / "cgroup.procs").write_text("77\n")  # another's worker of the same name
    assert measure({ME: os.getpid()})[ME].cpu_seconds != 2.5


def test_a_process_is_known_by_its_start_too():
    mine = read_process(os.getpid())
    assert mine is not None
    assert is_alive(mine.pid, mine.start_ticks)
    assert not is_alive(mine.pid, mine.start_ticks - 1)
    assert read_process(1 << 22) is None


async def test_a_process_carries_the_run_that_it_was_started_in(eventually):
    names = {name: value for name, value in os.environ.items() if name != "INVOCATION_ID"}
    for run in ("f" * 32, ""):
        env = {**names, "INVOCATION_ID": run} if run else names
        process = await asyncio.create_subprocess_exec("sleep", "60", env=env)
        try:
            await eventually(lambda pid=process.pid: run_of(pid), run)
        finally:
            process.kill()
            await process.wait()
    assert run_of(1 << 22) == ""
