"""Each operation of what keeps messages fails once, and it is killed at each."""

import errno

import pytest

from tests.in_memory import folder_in_memory
from tests.standin.failing_operations import KILL
from tests.trial.hostile import disk

OPS = [
    *(["append", 1, 10], ["append", 12, 11], ["append", 1, 11], ["settle"], ["mark"]),
    *(["append", 1, 3], ["page"], ["append", 3, 3], ["trim"]),
]
LEAST = {"incoming": 30, "outbox": 30}
"""Operations of that run."""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("error", "many"),
    [(errno.ENOSPC, 2), (errno.EIO, 1), (errno.EROFS, 1000), (KILL, 1)],
    ids=["full for two", "one fails", "read-only from there on", "kill"],
)
@pytest.mark.parametrize("what", disk.KEEPERS)
async def test_whichever_operation_fails_nothing_is_lost_or_doubled_and_it_goes_on(
    what: str, error: int, many: int
) -> None:
    # The operations fail in the program that calls them, whatever is below.
    with folder_in_memory() as folder:
        async with disk.world(folder) as world:
            ops = OPS[:6]  # each of them is some operations of SQLite
            assert await disk.sweep(world, what, ops, error, many) >= LEAST[what]
