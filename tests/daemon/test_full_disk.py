"""A disk without a free byte ends no agent that runs; the next one starts on the reserve."""

import asyncio
import contextlib
from typing import Any

import pytest

from agent.daemon.main import keep_up
from agent.errors import HostError, StoreError
from tests.full import fill

from .conftest import SETTINGS

ANY_ROOM = SETTINGS.replace("[start]\n", "[start]\ndisk_free = 0\n")


async def test_f31_an_agent_killed_on_a_full_disk_says_so_and_starts_with_room_again(
    make_agent: Any, eventually: Any, small_disk: Any
) -> None:
    agent = make_agent(base=ANY_ROOM)
    disk = small_disk("size=64m,mode=0700")
    agent.state = disk / "state"
    await agent.start()
    await agent.create("a")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    await agent.kill()
    (agent.state / "lock").unlink()
    fill(disk)
    await agent.start(ready=False)
    assert await asyncio.wait_for(agent.process.wait(), 60) == 75
    assert "make room there, then start it again" in agent.log.read_text()
    (disk / "filler").unlink()
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")


@pytest.mark.parametrize("nested", [False, True], ids=["itself", "in a group of its own"])
@pytest.mark.parametrize(
    "error",
    [
        HostError("too many open files"),
        RuntimeError("can't start new thread"),
        StoreError("x", code="disk_full"),
    ],
)
async def test_f16_f31_a_task_without_descriptor_thread_or_room_begins_again(
    error: Exception, *, nested: bool
) -> None:
    failures = [error]

    async def work() -> None:
        if failures:
            raise failures.pop()

    async def work_in_a_group() -> None:
        with contextlib.suppress(TimeoutError):  # also once a group of this task has failed
            async with asyncio.timeout(0):
                await asyncio.sleep(1)
        async with asyncio.TaskGroup() as group:
            group.create_task(work())

    await keep_up("work", work_in_a_group if nested else work, again=0)
    assert not failures


async def test_a_damaged_database_ends_the_agent_whose_next_start_sets_it_aside() -> None:
    async def fails() -> None:
        raise ExceptionGroup("both", [StoreError("x", code="damaged"), ValueError("its own")])

    with pytest.raises(ExceptionGroup):
        await keep_up("notes", fails, again=0)
