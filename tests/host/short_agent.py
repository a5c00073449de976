"""Opens the process host on a folder, starts workers, says so, waits to be killed."""

import asyncio
import sys
from pathlib import Path

from agent.core.model import InstanceId
from agent.host.process import Places, ProcessHost
from tests.host.short_limits import FAST, STANDIN


async def main(place: Path, ids: list[str]) -> None:
    places = Places(place / "run", place / "sessions")
    host = await ProcessHost.open(lambda _: None, places, FAST, [str(STANDIN)])
    for id in ids:
        start = asyncio.create_task(host.start(InstanceId(id)))
        if not id.startswith("mute"):
            await start
        for _ in range(3):  # until its process is begun
            await asyncio.sleep(0)
    print("started", flush=True)
    await asyncio.sleep(600)


asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
