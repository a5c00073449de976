"""A worker that is killed while it loads a file gives no part of it, then or later."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from tests.wings.messages.media.test_session_media import Session

REPOSITORY = Path(__file__).parents[4]
CONTENT = bytes(range(256)) * 1024


async def load(folder: Path, point: str) -> None:
    session = Session(folder)
    id = await session.arrive(1, CONTENT)
    if point == "between two pieces":

        async def pieces(_record: Any) -> AsyncGenerator[bytes, None]:
            yield CONTENT[:100_000]
            await session.part.works["messages_state"]({})  # the piece is on its way to the disk
            os.kill(os.getpid(), signal.SIGKILL)

        session.engine.load_media = pieces  # type: ignore[method-assign]
    await session.open(id)


@pytest.mark.parametrize("point", ["media_loaded", "between two pieces"])
async def test_what_a_kill_left_by_half_is_never_given(tmp_path: Path, point: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.wings.messages.media.test_killed_media", tmp_path, point),
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            **({"WA_FAILPOINT": f"{point}:kill"} if point == "media_loaded" else {}),
        },
        cwd=REPOSITORY,
    )
    async with asyncio.timeout(60):
        assert await process.wait() == -signal.SIGKILL
    session = Session(tmp_path)
    assert [path.suffix for path in session.folder.iterdir()] == [".part"]
    id = await session.arrive(1, CONTENT)
    assert (await session.part.works["messages_state"]({}))["media_files"] == 0
    assert await session.read(id) == CONTENT
    assert [path.suffix for path in session.folder.iterdir()] == [""]
    await session.part.close()


if __name__ == "__main__":
    asyncio.run(load(Path(sys.argv[1]), sys.argv[2]))
