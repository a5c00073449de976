"""Opens the process host on a folder, starts workers, says so, waits to be killed."""

import asyncio
import sys
from pathlib import Path

from agent.core.model import InstanceId
from agent.host.process.host import ProcessHost
from agent.host.process.launch import Places
from tests.host.short_limits import FAST, STANDIN


async def main(place: Path, ids: list[str]) -> None:
    places = Places(place / "run", place / "sessions")
    host = await ProcessHost.open(lambda _: None, places, FAST, [str(STANDIN)])
    for id in ids:
        await host.start(InstanceId(id))
    print("started", flush=True)
    await asyncio.sleep(600)


asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
