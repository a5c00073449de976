"""The sessions of a real Evolution API 2.x as a fleet of `scripts/bench density`: one server with a
PostgreSQL, which has its pairings. What PostgreSQL itself uses is left out."""

import asyncio
from pathlib import Path

import aiohttp

from scripts.benches.baileys import WITHIN, account
from scripts.benches.peers import NotHere
from scripts.benches.processes import tree
from scripts.real_evolution.bed import until
from scripts.real_evolution.server import RealServer, why_not
from tests.standin.baileys.run import WhatsApp
from tests.standin.postgres import Postgres


class EvolutionSessions:
    """All of them start and end with the server."""

    def __init__(self, source: Path | None, root: Path, count: int, whatsapp: WhatsApp) -> None:
        if source is None:
            raise NotHere("no --server FOLDER was given")
        if reason := why_not(source):
            raise NotHere(reason)
        root.chmod(0o711)  # PostgreSQL runs as a user of its own
        self._root, self._count, self._whatsapp = root, count, whatsapp
        self._server = RealServer(source, root / "server", whatsapp.socket)
        self._database: Postgres | None = None

    async def begin(self) -> None:
        self._database = await asyncio.to_thread(Postgres, self._root / "pg")
        await asyncio.to_thread(self._server.use, self._database)
        await self._server.start()

    async def pair(self, number: int) -> None:
        name = f"i{number}"
        await until(lambda: self._server.make(name), WITHIN)
        code = await until(lambda: self._server.code(name), WITHIN)
        await asyncio.to_thread(self._whatsapp.scan, code, account(number))

        async def is_open() -> bool:
            return await self._server.state(name) == "open"

        await until(is_open, WITHIN)

    async def kill(self) -> None:
        await self._server.kill()

    async def start_all(self) -> None:
        """As a supervisor without a delay starts it: until all sessions are connected."""
        await self._server.start()
        async with asyncio.timeout(WITHIN):
            while await self._open() < self._count:  # noqa: ASYNC110 - over its API
                await asyncio.sleep(0.2)

    async def _open(self) -> int:
        try:
            _, found = await self._server.ask("GET", "/instance/fetchInstances")
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return 0  # it starts
        return sum(each.get("connectionStatus") == "open" for each in found or [])

    def pids(self) -> list[int]:
        return list(tree(self._server.pid))

    async def close(self) -> None:
        await self._server.close()
        if self._database is not None:
            await asyncio.to_thread(self._database.end)
