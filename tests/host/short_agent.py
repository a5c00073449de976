"""Opens the process host on a folder, starts workers, says so, waits to be killed."""

import asyncio
import sys
from pathlib import Path

from agent.core.model import InstanceId
from agent.host.process.host import ProcessHost
from tests.host.short_limits import FAST, STANDIN


async def main(place: Path, ids: list[str]) -> None:
    host = await ProcessHost.open(
        lambda _: None, place / "run", place / "sessions", FAST, program=[str(STANDIN)]
    )
    for id in ids:
        await host.start(InstanceId(id))
    print("started", flush=True)
    await asyncio.sleep(600)


asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
