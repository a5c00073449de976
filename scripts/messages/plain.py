"""A Baileys bot as its users write one: the same load and the same kills, in the same table."""

import asyncio
import json
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

from agent.engines.baileys.node import find_packages
from scripts.messages.beds import CONNECTED, BaileysBed, NotNow
from scripts.messages.supervised import Supervised
from scripts.messages.tally import Tally
from tests.ports import free_port
from tests.standin.baileys.run import call

PROGRAM = Path(__file__).with_name("plain_bot.mjs")


class PlainBot:
    def __init__(self, root: Path, bed: BaileysBed, name: str) -> None:
        self.tally = Tally(name)
        self._folder, port = root / "bot", free_port()
        self._url = f"http://127.0.0.1:{port}/"
        self._folder.mkdir()
        to = [find_packages(bed.cache), self._folder, bed.url, bed.whatsapp.url]
        line = ["node", PROGRAM, *to, bed.new_account(name), port]
        self.process = Supervised([*map(str, line)], root / "bot.log")

    async def begin(self) -> None:
        self.process.begin()
        async with asyncio.timeout(CONNECTED):
            while not (self._folder / "status").exists():  # noqa: ASYNC110 - another program's
                await asyncio.sleep(0.2)

    async def send(self, to: str, text: str) -> None:
        """Send a text. Callers ask again when they got no answer, as they must of such a bot."""
        try:
            await asyncio.to_thread(call, self._url, {"to": to, "text": text}, within=30)
        except (OSError, ValueError, HTTPException) as error:
            raise NotNow(str(error)) from error

    def count(self) -> None:
        file = self._folder / "messages"
        for number, line in enumerate(file.read_bytes().splitlines() if file.exists() else []):
            with suppress(ValueError):  # torn by a kill
                message = json.loads(line)
                if message["text"].startswith("in "):
                    self.tally.read[message["text"]].add(number)
                    self.tally.posted[message["text"]][message["id"]] = 1
