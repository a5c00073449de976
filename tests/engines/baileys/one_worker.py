"""A worker of one session, as small as it can be, for tests that kill it: FOLDER SERVER FILE.

Each record is a line of FILE, on the disk before the client hears of it. It always connects again.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.core.words import Claim, ConnectionStatus
from agent.engines.baileys.engine import open_engine
from tests.engines.baileys.conftest import Heard


class OnDisk(Heard):
    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.ended = asyncio.Event()

    @property
    def keeps(self) -> bool:
        return True

    async def keep(self, records: Sequence[Mapping[str, Any]]) -> None:
        await asyncio.sleep(0.05)  # a slow disk: at each kill some messages are under way
        os.write(self._file, b"".join(json.dumps(record).encode() + b"\n" for record in records))
        os.fdatasync(self._file)

    def claim(self, claim: Claim) -> None:
        print(claim.status, claim.reason, flush=True)
        if claim.status is ConnectionStatus.DISCONNECTED:
            self.ended.set()


async def main(folder: Path, server: str, file: Path) -> None:
    heard = OnDisk(file)
    engine = open_engine(folder, {"url": server, "client_starts": 100}, heard)
    while True:
        heard.ended.clear()
        await engine.connect()
        await heard.ended.wait()
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
