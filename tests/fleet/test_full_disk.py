"""A machine whose state disk takes no writes: others run its sessions, and the cause is told."""

import errno
from pathlib import Path

import pytest

from agent.clock import boot_now
from agent.fleet import fleet_file
from tests.conftest import Eventually
from tests.fleet.test_keeper import (
    POLICY,
    Three,
    all_run,
    fleet,
    knows_two,
    nowhere_twice,
    server,
    three,
)

__all__ = ["fleet", "server", "three"]


async def test_a_machine_that_cannot_write_its_memory_renews_no_lease(
    three: Three, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = nodes = await three()
    await eventually(lambda: all_run(nodes) and all(map(knows_two, nodes)), within=30)
    write = fleet_file.write_whole

    def full(path: Path, content: bytes) -> None:
        if path == c.path:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    with monkeypatch.context() as filled:
        filled.setattr(fleet_file, "write_whole", full)
        await eventually(lambda: "No space left" in c.keeper.takeovers.memory.trouble, within=20)
        renewals = c.keeper.counts.renewals["renewed"]
        await eventually(lambda: all_run([a, b]), within=10 * POLICY.ttl)
        assert not c.running and nowhere_twice(nodes)
        assert c.keeper.counts.renewals["renewed"] == renewals
    await eventually(lambda: c.keeper.lease.holds(boot_now()), within=30)
    assert c.keeper.takeovers.memory.trouble == ""
    assert all_run(nodes) and not c.running
