"""How long a message takes through one session on the unmodified library, and through a plain bot
of it: accepted, sent, received. One after the other, all in turn, before the same stand-in."""

import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from agent.errors import HostError
from scripts.benches.report import OURS, Row
from scripts.limits.bed import ID, PEOPLE, Bed, one_session
from scripts.messages.plain import PlainBot
from tests.standin.baileys.run import WhatsApp

PLAIN = "plain bot"
NAMES = ("accept", "send", "receive")
MEASURES = {
    "accept": "a message is accepted: answer of the HTTP request, ours on the disk, the bot's sent",
    "send": "a message is sent: until WhatsApp's server has it",
    "receive": "a message is received: from the contact to the webhook; of the bot: to its file",
}
WITHIN = 60.0

Figures = Mapping[str, Mapping[str, list[float]]]
"""Milliseconds, by measure and by who was measured."""


async def measure_paths(root: Path, count: int) -> list[Row]:
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    async with one_session(root, "baileys") as bed:
        assert bed.baileys is not None
        bot = PlainBot(root / "bot", bed.baileys)
        try:
            await bot.open("bot")
            await bed.target.open()
            whatsapp, accounts = bed.baileys.whatsapp, bed.baileys.accounts
            # The first of each person makes its keys.
            for number in range(-len(PEOPLE), count):
                who, text = PEOPLE[number % len(PEOPLE)], f"bench {number}"
                each = {
                    ("accept", OURS): _post(bed, who, text, 0),
                    ("send", OURS): _post(bed, who, f"{text} waited for", 30),
                    ("accept", PLAIN): bot.send(who, text),
                    ("receive", OURS): _arrive(whatsapp, who, accounts[ID], text, _posted(bed)),
                    ("receive", PLAIN): _arrive(
                        whatsapp, who, accounts["bot"], text, _written(root / "bot")
                    ),
                }
                for (measure, name), path in each.items():
                    begun = time.perf_counter()
                    await path
                    if number >= 0:
                        found[measure][name].append((time.perf_counter() - begun) * 1000)
        finally:
            await bot.end()
    return [*_rows(found)]


def _rows(found: Figures) -> Iterator[Row]:
    for measure in NAMES:
        figures = found[measure]
        yield Row(MEASURES[measure], "ms", figures)
        slow = {name: [statistics.quantiles(all, n=100)[98]] for name, all in figures.items()}
        yield Row(f"{MEASURES[measure].partition(':')[0]}: 99 % within", "ms", slow)


async def _post(bed: Bed, to: str, text: str, wait: int) -> None:
    path = f"/api/instance/{ID}/messages" + (f"?wait={wait}" if wait else "")
    status, said = await bed.agent.ask("POST", path, {"to": to, "text": text})
    if status != (200 if wait else 202):
        raise HostError(f"POST {path} is answered with {status}: {said}")


def _posted(bed: Bed) -> Callable[[str], bool]:
    return lambda text: any(each["text"] == text for each in bed.target.got[-20:])


def _written(folder: Path) -> Callable[[str], bool]:
    file = folder / "messages.jsonl"
    return lambda text: file.exists() and f'"{text}"' in file.read_text(encoding="utf-8")


async def _arrive(
    whatsapp: WhatsApp, who: str, account: str, text: str, is_there: Callable[[str], bool]
) -> None:
    await asyncio.to_thread(whatsapp.say, who, account, text)
    async with asyncio.timeout(WITHIN):
        while not is_there(text):  # noqa: ASYNC110 - another program's file
            await asyncio.sleep(0.002)
