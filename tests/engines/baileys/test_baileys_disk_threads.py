"""The disk operations of many sessions in one Node: those of one wait for no other's."""

import asyncio
import json
import os
from pathlib import Path

from agent.engines.baileys.node import ENVIRONMENT, FLAGS, find_node
from agent.errors import ConfigError
from tests.lacking import lacks

SCRIPT = Path(__file__).with_name("disk_stands_still.mjs")
HELD = 8
"""Sessions that wait for the disk at the same time."""
WITHIN = 30.0


async def test_sessions_that_wait_for_the_disk_hold_up_no_other_one(tmp_path: Path) -> None:
    try:
        node = find_node()
    except ConfigError as error:
        lacks(str(error))
    folder, pipe = tmp_path / "session", tmp_path / "pipe"
    folder.mkdir()
    os.mkfifo(pipe)
    client = await asyncio.create_subprocess_exec(
        *(str(node), *FLAGS, str(SCRIPT), str(folder), str(pipe), str(HELD)),
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **ENVIRONMENT},
    )
    try:
        assert client.stdout is not None
        async with asyncio.timeout(WITHIN):
            assert await client.stdout.readline() == b"stored\n"
    finally:
        client.kill()
        await client.wait()
    assert json.loads((folder / "creds.json").read_text()) == {"registrationId": 7}
