"""One run: sessions of one agent, the load in both directions, the faults, and the wait until all
of it has arrived."""

import asyncio
import random
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from scripts.messages.agent_settings import SETTINGS
from scripts.messages.beds import CONTACTS, BaileysBed, Bed, NotNow, ask
from scripts.messages.consumers import Target, read_on
from scripts.messages.faults import Faults
from scripts.messages.plain import PlainBot
from scripts.messages.tally import Tally
from tests.daemon.conftest import RunningAgent
from tests.waiting import GrowingLog

AGAIN = 0.2
STILL = 180.0
"""Seconds without anything new, all sessions connected, after which what is missing is lost."""
PLAIN_STILL = 40.0
"""The same where the plain bot alone misses something."""
PLAIN = "plain bot"
LONGEST = 1200.0
"""Seconds after the last fault: a session may be in a back-off of minutes."""
LOOK = 2.0

Say = Callable[[str], None]


class Run:
    """`ours` tells what became of the messages; `all` has the plain bot's beside them."""

    def __init__(self, root: Path, bed: Bed, options: Namespace, *, say: Say) -> None:
        self._root, self._bed, self._say = root, bed, say
        self._pack = options.pack
        self._chance = random.Random(options.seed)
        self.ours = {f"s{n}": Tally(f"s{n}") for n in range(1, options.sessions + 1)}
        self.all = dict(self.ours)
        self.bot: PlainBot | None = None
        self._number = 0
        self.codes: list[str] = []  # of sessions that lost their pairing

    async def play(self, messages: int, rate: float, every: float) -> None:
        """`messages` in each direction; `rate` a second in all, and a fault `every` seconds."""
        async with AsyncExitStack() as stack:
            await self._open(stack)
            self._say(f"{len(self.ours)} sessions are connected")
            readers = [
                asyncio.create_task(read_on(self.agent, id, tally), name=f"reader of {id}")
                for id, tally in self.ours.items()
            ]
            stack.callback(lambda: [task.cancel() for task in readers])
            async with self._under_faults(every):
                await self._talk(messages, rate)
            self._say(f"all is said after {self.faults.done.total()} faults; reading to the end")
            await self._until_done()
            for task in readers:
                if task.done():
                    task.result()

    async def _open(self, stack: AsyncExitStack) -> None:
        await self._bed.open(stack)
        self.target = Target(self._root)
        self.target.process.begin()
        stack.push_async_callback(self.target.process.end)
        config = self._root / "agent.toml"
        settings = SETTINGS.format(port=self.target.port, pack=self._pack)
        config.write_text(settings, encoding="utf-8")
        self.agent = RunningAgent(self._root / "state", config)
        self.agent.log = GrowingLog(self._root / "agent.log")
        self.agent.connections = 32 + 2 * len(self.ours)
        stack.push_async_callback(self.agent.close)
        self.agent.state.mkdir(mode=0o700)
        if (cache := getattr(self._bed, "cache", None)) is not None:
            (self.agent.state / "cache").symlink_to(cache)
        await self.agent.start(self._bed.environment)
        for id in self.ours:
            await self._bed.add(self.agent, id)
        if isinstance(self._bed, BaileysBed):
            self.bot = PlainBot(self._root, self._bed, PLAIN)
            self.all[PLAIN] = self.bot.tally
            stack.push_async_callback(self.bot.process.end)
            await self.bot.begin()
        self.faults = Faults(
            bed=self._bed,
            agent=self.agent,
            ids=[*self.ours],
            packed=self._pack > 1,
            target=self.target.process,
            bot=self.bot.process if self.bot else None,
            chance=self._chance,
        )

    @asynccontextmanager
    async def _under_faults(self, every: float) -> AsyncIterator[None]:
        task = asyncio.create_task(self.faults.go_on(every), name="faults")
        try:
            yield
            if task.done():
                task.result()
        finally:
            task.cancel()
            await asyncio.wait({task})
            await self.faults.start_agent()

    async def _talk(self, messages: int, rate: float) -> None:
        share = -(-messages // len(self.ours))
        pause = len(self.ours) / rate
        telling = asyncio.create_task(self._tell(), name="progress")
        try:
            async with asyncio.TaskGroup() as tasks:
                for id, tally in self.all.items():
                    tasks.create_task(self._both_ways(id, tally, share, pause), name=id)
        finally:
            telling.cancel()
            await asyncio.wait({telling})

    async def _both_ways(self, id: str, tally: Tally, count: int, pause: float) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write(id, tally, count, pause), name=f"contacts of {id}")
            tasks.create_task(self._send(id, tally, count, pause), name=f"sender of {id}")

    async def _write(self, id: str, tally: Tally, count: int, pause: float) -> None:
        for n in range(count):
            self._number += 1
            text, number = f"in {id} {n}", self._number
            while True:
                try:
                    contact = CONTACTS[n % len(CONTACTS)]
                    tally.said[text] = await self._bed.say(id, contact, text, number)
                    break
                except NotNow:
                    await asyncio.sleep(AGAIN)
            await asyncio.sleep(self._chance.uniform(0.0, 2 * pause))

    async def _send(self, id: str, tally: Tally, count: int, pause: float) -> None:
        for n in range(count):
            text, to = f"out {id} {n}", CONTACTS[n % len(CONTACTS)]
            while True:
                try:
                    if self.bot and id == PLAIN:
                        await self.bot.send(to, text)
                        break
                    path, body = f"/api/instance/{id}/messages", {"to": to, "text": text}
                    await ask(self.agent, "POST", path, body, **{"Idempotency-Key": text})
                    break
                except NotNow:
                    await asyncio.sleep(AGAIN)
            tally.accepted.add(text)
            await asyncio.sleep(self._chance.uniform(0.0, 2 * pause))

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(30.0)
            said = sum(len(tally.said) for tally in self.ours.values())
            out = sum(len(tally.accepted) for tally in self.ours.values())
            self._say(f"{said} written, {out} accepted, {self.faults.done.total()} faults")

    def broke(self) -> list[str]:
        """Return the messages that the sessions lost or doubled."""
        lost = [f"{id}: its pairing is lost" for id in self.codes]
        return lost + [line for tally in self.ours.values() for line in tally.broke()]

    async def _until_done(self) -> None:
        """Until all has arrived, or nothing more comes to sessions that are all connected."""
        begun = changed = time.monotonic()
        before: object = None
        while True:
            await self._count()
            seen = [[len(t.read), len(t.posted), len(t.got)] for t in self.all.values()]
            now = time.monotonic()
            if seen != before:
                before, changed = seen, now
            missing = [tally for tally in self.all.values() if not tally.is_done()]
            alone = missing == [self.all.get(PLAIN)]
            still = not missing or now - changed > (PLAIN_STILL if alone else STILL)
            if still and await self._all_connected():
                return
            if now - begun > LONGEST:
                self._say(f"not all was read to the end within {LONGEST:.0f} s")
                return
            await asyncio.sleep(LOOK)

    async def _count(self) -> None:
        self.target.count(self.ours)
        if self.bot:
            self.bot.count()
        for id, tally in self.all.items():
            try:
                for text, whatsapps in await self._bed.got(id):
                    if text.startswith("out "):
                        tally.got[text].add(whatsapps)
            except NotNow:
                pass

    async def _all_connected(self) -> bool:
        """True if all sessions are connected, but for those whose pairing is lost."""
        try:
            found = {id: await ask(self.agent, "GET", f"/api/instance/{id}") for id in self.ours}
        except NotNow:
            return False
        self.codes = [id for id, seen in found.items() if not seen["paired"]]
        return all(
            each["connection_status"] == "CONNECTED" or not each["paired"]
            for each in found.values()
        )
