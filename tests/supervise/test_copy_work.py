"""Copies whose disk does not answer: given up with a reason, and in nobody's way."""

import asyncio
import os
import threading
from collections.abc import Iterator

import pytest

from agent.core.words import InstanceId
from agent.errors import TryLater
from agent.supervise import snapshots as work_module
from agent.supervise.snapshots import CopyWork, Ticking
from agent.vault.tree import Tick

A, B, C = (InstanceId(id) for id in "abc")


class Disk:
    """A read of it waits in the kernel until `answer`, as one of a file system that hangs."""

    def __init__(self) -> None:
        self._reads, self._writes = os.pipe()
        self.ended = threading.Event()
        self.finished = False

    def read(self, *, tick: Tick) -> str:
        try:
            tick(5)
            os.read(self._reads, 1)
            tick(0)  # before the copy becomes visible
            self.finished = True
            return "read"
        finally:
            self.ended.set()

    def answer(self) -> None:
        os.write(self._writes, b"x")


@pytest.fixture
def disk() -> Iterator[Disk]:
    made = Disk()
    yield made
    made.answer()
    assert made.ended.wait(60)


def done(*, tick: Tick) -> str:
    tick(1)
    return "done"


async def given_up(work: CopyWork, id: InstanceId, doing: Ticking[str]) -> TryLater:
    with pytest.raises(TryLater) as refused:
        await work.run(id, "snapshot", doing)
    return refused.value


async def test_a_copy_whose_disk_does_not_answer_is_given_up_and_holds_nobody_up(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_module, "STANDS_STILL", 0.3)
    work, other = CopyWork(), Disk()
    error, _ = await asyncio.gather(given_up(work, A, disk.read), given_up(work, B, other.read))
    monkeypatch.setattr(work_module, "STANDS_STILL", 60.0)
    assert error.code == "copy_stands_still"
    assert "the snapshot of a: its disk has not answered for" in str(error)
    assert work.under_way == {}
    assert await work.run(C, "export", done) == "done", "both places are free again"
    again = await given_up(work, A, done)
    assert again.code == "copy_stands_still"
    assert "the snapshot of before still waits for its disk" in str(again)

    other.answer()
    assert await asyncio.to_thread(other.ended.wait, 60)
    assert not other.finished, "what was given up makes nothing visible"
    async with asyncio.timeout(60):
        while True:
            try:
                assert await work.run(B, "snapshot", done) == "done"
                break
            except TryLater:
                await asyncio.sleep(0.01)


def test_an_agent_ends_though_a_copy_hangs(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's end waits for the threads of its pool: a copy is in none of them."""
    monkeypatch.setattr(work_module, "STANDS_STILL", 0.1)
    asyncio.run(given_up_in_a_loop(disk))
    assert not disk.ended.is_set()


async def given_up_in_a_loop(disk: Disk) -> None:
    await given_up(CopyWork(), A, disk.read)
