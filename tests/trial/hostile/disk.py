"""Hostile cases of a disk: what keeps messages (messages.db, the outbox) writes, reads and is
opened again, and one of its operations, or some in a row, fail with ENOSPC, EIO or EROFS, or it is
killed at one. What it acknowledged must be there, once; a refusal has a reason; and afterwards it
goes on."""

import asyncio
import errno
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

from tests.standin.failing_operations import KILL, FailingOperations, Fault
from tests.trial.hostile.filling.oracle import Disk

CASES = 10
TOP = Path(__file__).parents[3]
KEEPERS = ("incoming", "outbox")
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, KILL)
RUN_LIMIT = 60.0
PLAIN: Sequence[Sequence[Any]] = [["append", 1, 3]]


def draw(chance: Random) -> list[Any]:
    what = chance.choice(KEEPERS)
    return [_run(chance, what) for _ in range(chance.randint(1, 4))]


def _run(chance: Random, what: str) -> dict[str, Any]:
    words = ("settle", "mark", "page", "trim")
    ops = [
        ["append", chance.choice((1, 1, 3, 12)), chance.choice((1, 10, 300))]
        if chance.random() < 0.7
        else [chance.choice(words)]
        for _ in range(chance.randint(1, 30))
    ]
    fault = [chance.randrange(80), chance.choice((1, 1, 2, 5, 1000)), chance.choice(ERRORS)]
    return {"what": what, "ops": ops, "fault": fault}


class Keepers:
    """The program that keeps, and the folder in which its operations fail."""

    def __init__(self, folder: Path, disk: FailingOperations, process: Any) -> None:
        self._folder, self._disk, self._process = folder, disk, process

    def begin(self) -> Disk:
        if self._folder.exists():
            shutil.rmtree(self._folder)
        self._folder.mkdir(mode=0o700)
        return Disk(self._folder)

    async def run(
        self, disk: Disk, what: str, ops: Sequence[Any], fault: Fault | None
    ) -> tuple[int, int]:
        """How many operations there were, and how it ended."""
        self._disk.begin(fault)
        run = {"what": what, "ops": ops, "folder": str(self._folder), "mark": disk.mark}
        line = json.dumps({**run, "number": disk.number, "waiting": disk.waiting})
        self._process.stdin.write(line.encode() + b"\n")
        # A kill takes with it what it was given and did not acknowledge: WhatsApp gives it again.
        given = sum(op[1] for op in ops if op[0] == "append" and what == "incoming")
        coming = [*disk.waiting, *range(disk.number, disk.number + given)]
        async with asyncio.timeout(RUN_LIMIT):
            while "status" not in (told := json.loads(await self._process.stdout.readline())):
                disk.note(told)
        if told["status"]:
            disk.number += given if what == "incoming" else len(ops)
            disk.waiting = [each for each in coming if each not in disk.kept]
        count = self._disk.count
        self._disk.begin(None)
        return count, told["status"]


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[Keepers]:
    disk = FailingOperations(folder, folder / "disk")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.trial.hostile.filling.keeper"),
        cwd=TOP,
        env={**os.environ, **disk.environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Keepers(folder / "disk", disk, process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def play(world: Keepers, case: list[Any]) -> None:
    disk = world.begin()
    for run in case:
        await _play_run(world, disk, run["what"], run["ops"], Fault(*run["fault"]))


async def _play_run(world: Keepers, disk: Disk, what: str, ops: Sequence[Any], fault: Fault) -> int:
    """How many operations there were. Afterwards it goes on."""
    count, status = await world.run(disk, what, ops, fault)
    assert status in (0, -9 if fault.error == KILL else 0), f"it ended with {status}"
    await disk.check(what)
    done = len(disk.kept) + len(disk.taken)
    _, status = await world.run(disk, what, PLAIN, None)
    assert status == 0, f"without a fault it ended with {status}"
    assert len(disk.kept) + len(disk.taken) > done, "it does not go on"
    await disk.check(what)
    return count


async def sweep(world: Keepers, what: str, ops: Sequence[Any], error: int, many: int) -> int:
    """The same run with its first, its second, … operation failing, each time on a new disk; how
    many operations it has."""
    first = 0
    while True:
        disk = world.begin()
        count = await _play_run(world, disk, what, ops, Fault(first, many, error))
        if count <= first:
            return first
        first += 1
