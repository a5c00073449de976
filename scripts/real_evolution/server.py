"""Runs a real Evolution server in a folder of its own; the caller's folder stays as it is."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.ports import free_port
from tests.standin.postgres import Postgres

KEY = "key-of-a-real-server-4f1c9a"
UP_WITHIN = 180.0
PROGRAMS = {
    "1": ("node_modules/.bin/ts-node", "--files", "--transpile-only", "./src/main.ts"),
    "2": ("node", "--import", "tsx", "./src/main.ts"),
}
ITS_OWN = shutil.ignore_patterns("node_modules", "instances", "store", "pg", ".git", "*.log")


def why_not(folder: Path) -> str:
    """Why no server of this folder can run; "" when it can."""
    if not (folder / "package.json").is_file():
        return f"{folder} holds no Evolution API (no package.json)"
    if version_of(folder)[:1] not in PROGRAMS:
        return f"{folder} holds Evolution API {version_of(folder)}; known are 1.8 and 2.x"
    if not (folder / "node_modules/baileys").is_dir():
        return f"{folder} has no node_modules/baileys: run npm install there"
    if not any("process.env.WA_URL" in it.read_text() for it in folder.glob("src/api/**/*.ts")):
        return f"{folder}: no file of src/api gives Baileys `waWebSocketUrl: process.env.WA_URL`"
    return "" if shutil.which("node") else "node is not installed"


def version_of(folder: Path) -> str:
    return str(json.loads((folder / "package.json").read_text()).get("version"))


class RealServer:
    def __init__(self, source: Path, place: Path, whatsapp: str, certificate: Path) -> None:
        """`whatsapp`: the address that its sessions log in to; `certificate`: of where they bring
        files."""
        self.version, self.port = version_of(source), free_port()
        self.place = place
        self.env = {"WA_URL": whatsapp, "NODE_EXTRA_CA_CERTS": str(certificate)}
        self._process: asyncio.subprocess.Process | None = None
        self._client: aiohttp.ClientSession | None = None
        shutil.copytree(source, place, ignore=ITS_OWN, symlinks=True)
        (place / "node_modules").symlink_to(source.resolve() / "node_modules")
        for name in ("instances", "store"):
            (place / name).mkdir()
        if self.old:
            file = place / "src/env.yml"
            text = re.sub(r"(?m)^(  PORT:).*", rf"\1 {self.port}", file.read_text(), count=1)
            file.write_text(re.sub(r"(?m)^(    KEY:).*", rf"\1 {KEY}", text, count=1))

    @property
    def old(self) -> bool:
        return self.version.startswith("1.")

    def use(self, database: Postgres) -> None:
        """2.x: with its tables."""
        for file in sorted(self.place.glob("prisma/postgresql-migrations/2*/migration.sql")):
            database.sql(file.read_text())
        where = f"postgresql://owner@localhost/whatsapp?host={database.folder}"
        self.env |= {"SERVER_PORT": str(self.port), "AUTHENTICATION_API_KEY": KEY}
        self.env |= {"DATABASE_CONNECTION_URI": where}

    async def start(self) -> None:
        with (self.place / "server.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *PROGRAMS[self.version[0]],
                cwd=self.place,
                env={**os.environ, **self.env},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        async with asyncio.timeout(UP_WITHIN):
            while not await self.is_up():
                if self._process.returncode is not None:
                    raise RuntimeError(f"the server ended; see {self.place / 'server.log'}")
                await asyncio.sleep(0.5)

    async def is_up(self) -> bool:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, ValueError):
            # 1.8 answers 404 while it has no session.
            return (await self.ask("GET", "/instance/fetchInstances"))[0] in (200, 404)
        return False

    async def kill(self) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def close(self) -> None:
        if self._process is not None:
            await self.kill()
        if self._client is not None:
            await self._client.close()

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        self._client = self._client or aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=30)
        )
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self._client.request(method, url, json=body, headers={"apikey": KEY}) as answer:
            return answer.status, await answer.json(content_type=None)

    async def make(self, name: str) -> bool:
        """True if the instance is there now. 1.8 reads the files of all sessions first, and fails
        where it is writing one of them."""
        told = {"instanceName": name, "integration": "WHATSAPP-BAILEYS", "qrcode": False}
        status, answer = await self.ask("POST", "/instance/create", told)
        assert status < 500, answer
        return status < 300 or "already in use" in str(answer)

    async def is_open(self, name: str) -> bool:
        _, answer = await self.ask("GET", f"/instance/connectionState/{name}")
        return (answer.get("instance") or {}).get("state") == "open"

    async def code(self, name: str) -> str:
        """A code to scan; "" = it shows none yet."""
        _, answer = await self.ask("GET", f"/instance/connect/{name}")
        return str(answer.get("code") or "")


@asynccontextmanager
async def real_server(
    source: Path, place: Path, whatsapp: str, certificate: Path
) -> AsyncIterator[RealServer]:
    server = await asyncio.to_thread(RealServer, source, place / "server", whatsapp, certificate)
    database = None
    try:
        if not server.old:
            database = await asyncio.to_thread(Postgres, place / "pg")
            await asyncio.to_thread(server.use, database)
        await server.start()
        yield server
    finally:
        await server.close()
        if database is not None:
            database.end()
