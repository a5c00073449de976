"""The baileys engine on the real library, in front of the stand-in for WhatsApp's server."""

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.core.words import ConnectionStatus
from agent.engines.baileys.engine import BaileysEngine, open_engine
from agent.engines.baileys.node import LOADER, LOADER_TEXT, MARK, find_node, packages_folder
from tests.engines.heard import Heard
from tests.lacking import lacks
from tests.standin.baileys.run import HERE, WhatsApp, why_not
from tests.standin.baileys.shared import shared_whatsapp
from tests.waiting import pause

ACCOUNT, PEER, OTHER = "5511900000001", "5511900000002", "5511900000003"
NAME = "baileys-1"
"""Name of the pack."""


class Bench:
    """One session of the account, started and stopped at will."""

    def __init__(self, whatsapp: WhatsApp, folder: Path, account: str = ACCOUNT) -> None:
        self.whatsapp = whatsapp
        self.account = account
        self.folder = folder
        self.heard = Heard()
        self.hearing: Callable[[], Heard] = Heard
        """Makes who hears it, at each start."""
        self.opens: Callable[[Path, Mapping[str, Any], Any], BaileysEngine] = open_engine
        """On a Node of its own, or on a pack's."""
        self._engine: BaileysEngine | None = None

    @property
    def engine(self) -> BaileysEngine:
        assert self._engine is not None
        return self._engine

    async def start(self, **settings: Any) -> None:
        self.heard = self.hearing()
        self._engine = self.opens(
            self.folder, {"url": self.whatsapp.socket, **settings}, self.heard
        )
        await self.engine.connect()

    async def stop(self) -> None:
        if self._engine is not None:
            await self._engine.close()
            self._engine = None

    async def until(self, probe: Callable[[], Any], within: float = 60.0) -> Any:
        begun = asked = time.monotonic()
        while not (found := probe()):
            now = time.monotonic()
            assert now < begun + within, (self.heard.claims[-4:], self.heard.happenings[-4:])
            await asyncio.sleep(pause(now - begun, now - asked))
            asked = time.monotonic()
        return found

    async def is_now(self, status: str, reason: str = "", within: float = 60.0) -> None:
        wanted = (ConnectionStatus(status), reason)
        await self.until(lambda: (self.heard.last.status, self.heard.last.reason) == wanted, within)

    async def pair(self, **settings: Any) -> None:
        """Scan, follow the restart that WhatsApp asks for, be connected."""
        await self.start(**settings)
        await self.is_now("QR_REQUIRED")
        code = await self.engine.qr()
        assert code is not None
        await asyncio.to_thread(self.whatsapp.scan, code.text, self.account)
        await self.is_now("DISCONNECTED", "restart_required")
        await self.come_back()

    async def lay_paired(self) -> None:
        """The files of a paired session, and a server that knows it: of a pairing that the first
        such test has made. For a test that asks something else of a session, as its beginning."""
        kept = self.whatsapp.kept
        if not kept.exists():
            await self.pair()
            # The device has taken and saved what the phone gives to a new one.
            await self.until(lambda: "accountSyncCounter" in self.creds())
            await self.until(lambda: self.whatsapp.device(self.account)["unconfirmed"] == 0)
            await self.stop()
            self.whatsapp.keep()
            shutil.copytree(self.folder, kept)
        self.whatsapp.begin_anew(kept=True)
        shutil.copytree(kept, self.folder, dirs_exist_ok=True)

    async def come_paired(self, **settings: Any) -> None:
        """Connected, as after `pair`."""
        await self.lay_paired()
        await self.come_up(**settings)

    async def come_up(self, **settings: Any) -> None:
        await self.start(**settings)
        await self.is_now("CONNECTED")

    async def come_back(self) -> None:
        """By another try of the same engine."""
        await self.engine.connect()
        await self.is_now("CONNECTED")

    def creds(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "creds.json").read_bytes()))

    async def restart(self, **settings: Any) -> None:
        await self.stop()
        await self.come_up(**settings)

    async def hear(self, text: str, sender: str = PEER, within: float = 60.0) -> None:
        """A peer writes, and the session reads it."""
        id = await asyncio.to_thread(self.whatsapp.say, sender, self.account, text)
        await self.until(lambda: self.heard.count("message", direction="in", id=id), within)

    async def send(self, text: str, to: str = PEER) -> None:
        id = (await self.engine.send({"to": to, "type": "text", "text": text}))["id"]
        told = {"id": id, "text": text}.items()
        await self.until(
            lambda: any(told <= h.items() for h in self.whatsapp.person(to).get("heard", []))
        )

    async def talk(self, text: str, peer: str = PEER) -> None:
        await self.send(f"{text}?", peer)
        await self.hear(f"{text}!", peer)


def run_node(*words: str | Path, **environment: str) -> str:
    """Return the output of a script of Node, which must end well."""
    done = subprocess.run(
        [find_node(), *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache whose packages are those that the tests installed: the same version, unmodified."""
    return make_cache(tmp_path_factory.mktemp("cache"))


def make_cache(root: Path) -> Path:
    if reason := why_not("baileys"):
        lacks(reason)
    folder = packages_folder(root)
    folder.mkdir(parents=True)
    (folder / "node_modules").symlink_to(HERE / "node_modules")
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / LOADER).write_text(LOADER_TEXT)
    (folder / MARK).touch()
    return root


@pytest.fixture
def whatsapp(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> WhatsApp:
    if reason := why_not("baileys"):
        lacks(reason)
    return shared_whatsapp(request, tmp_path_factory)


@pytest.fixture
async def bench(
    whatsapp: WhatsApp, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    monkeypatch.setenv("WA_CACHE_PATH", str(cache))
    folder = tmp_path / "sales" / "session"
    folder.mkdir(parents=True)
    found = Bench(whatsapp, folder)
    yield found
    await found.stop()
