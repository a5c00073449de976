"""Run the stand-in alone: python -m tests.standin.whaticket --folder /tmp/x --sessions 3"""

import argparse
import asyncio
from pathlib import Path

from tests.standin.whaticket.server import PASSWORD, USER, StandIn
from tests.standin.whaticket.session import Pace


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--preset", default="spec")
    parser.add_argument("--sessions", type=int, default=1)
    parser.add_argument("--peers", type=int, default=3)
    parser.add_argument("--code-every", type=float, default=20.0)
    told = parser.parse_args()
    pace = Pace(code_every=told.code_every)
    async with StandIn.opened(
        told.folder, port=told.port, preset=told.preset, pace=pace
    ) as stand_in:
        for number in range(1, told.sessions + 1):
            session = stand_in.add(str(number))
            peers = [f"55119999{number:04d}{peer:02d}" for peer in range(told.peers)]
            await session.pair(f"55110000{number:04d}", peers, {peers[0]: f"9876543{number:06d}"})
            session.start()
        print(f"{stand_in.url} user {USER} password {PASSWORD}", flush=True)
        print(f"auth {told.folder}/auth/{{id}} log {stand_in.log.path}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
