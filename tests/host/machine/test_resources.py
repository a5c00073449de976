"""A worker's memory and processor time are measured over its whole tree, and never guessed."""

import asyncio
import os
import sys

from agent.core.model import InstanceId
from agent.host import units
from agent.host.machine import UNSEEN, measure

ME = InstanceId("me")
CHILD = "import time; hoard = bytearray(48 << 20); hoard[::4096] = b'x' * len(hoard[::4096])"
PARENT = """
import subprocess, sys
print("alone", flush=True)
sys.stdin.readline()
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True)
print(child.pid, flush=True)
sys.stdin.readline()
child.kill()
child.wait()
"""


async def test_children_count_wherever_they_went(eventually):
    """Those of a process of its own: this one has children of other tests."""
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, CHILD + "; time.sleep(60)"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert await parent.stdout.readline() == b"alone\n"
        before = measure({ME: parent.pid})[ME]
        assert before.memory_bytes and before.processes == 1 and before.cpu_seconds is not None
        parent.stdin.write(b"\n")
        child = int(await parent.stdout.readline())

        async def grown():
            usage = measure({ME: parent.pid})[ME]
            assert usage.memory_bytes is not None and before.memory_bytes is not None
            return usage.memory_bytes - before.memory_bytes > 40 << 20

        await eventually(grown)
        assert measure({ME: parent.pid})[ME].processes == 2
        both = measure({ME: parent.pid, InstanceId("child"): child})
        assert (both[InstanceId("child")].processes, both[ME].processes) == (1, 1)
    finally:
        await parent.communicate(b"\n")


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
