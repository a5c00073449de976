"""A Baileys bot as its users write one, with the same load, killed as often as a session."""

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.error import URLError

from agent.engines.baileys.packages import packages_folder
from agent.errors import HostError
from scripts.messages.beds import CONNECTED, BaileysBed, Bed, NotNow
from scripts.messages.supervised import Supervised
from scripts.messages.tally import Tally
from tests.ports import free_port
from tests.standin.baileys.run import call


class PlainBot:
    def __init__(self, folder: Path, bed: Bed) -> None:
        assert isinstance(bed, BaileysBed)
        self._folder, self._bed = folder, bed
        self._port = free_port()
        folder.mkdir()
        program = Path(__file__).with_name("plain_bot.mjs")
        packages = packages_folder(bed.cache)
        command: list[str | Path] = ["node", program, packages, folder, bed.url, str(self._port)]
        self.process = Supervised(command, folder.with_suffix(".log"))
        self._scanner: asyncio.Task[None] | None = None
        self._read = 0
        self.codes = 0
        """Pairings: each code after the first is one that was lost."""

    async def open(self, id: str) -> None:
        self.process.begin()
        self._scanner = asyncio.create_task(
            self._scan(self._bed.new_account(id)), name=f"phone of {id}"
        )
        async with asyncio.timeout(CONNECTED):
            while not self._events("open"):  # noqa: ASYNC110 - another program's file
                await asyncio.sleep(0.2)

    async def send(self, to: str, text: str) -> None:
        """As a caller of such a bot does it: again, when it got no answer."""
        url = f"http://127.0.0.1:{self._port}/"
        try:
            await asyncio.to_thread(call, url, {"to": to, "text": text}, within=30)
        except (URLError, OSError, ValueError) as error:
            raise NotNow(str(error)) from error

    async def count(self, tally: Tally) -> None:
        file = self._folder / "messages.jsonl"
        for number, line in enumerate(file.read_bytes().splitlines() if file.exists() else []):
            try:
                message = json.loads(line)
            except ValueError:
                continue  # torn by a kill
            text = str(message.get("text", ""))
            if text.startswith("in "):
                tally.read[text].add(number)
                tally.posted[text][message["id"]] = 1

    async def _scan(self, account: str) -> None:
        """Its phone: scans each new code, also after a pairing that was lost."""
        done = 0
        while True:
            codes = self._events("qr")
            if len(codes) > done:
                done = len(codes)
                try:
                    await asyncio.to_thread(self._bed.whatsapp.scan, codes[-1]["qr"], account)
                    self.codes += 1
                except (URLError, OSError):
                    pass
            await asyncio.sleep(0.3)

    def _events(self, name: str) -> list[dict[str, Any]]:
        file = self._folder / "status.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [each for each in map(_parse, lines) if name in each]

    async def end(self) -> None:
        if self._scanner is not None:
            self._scanner.cancel()
        await self.process.end()


def _parse(line: str) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except ValueError as error:
        raise HostError(f"cannot read what the bot says: {error}") from error
