"""Messages both ways through a real Evolution server, while it, our worker and our agent are
killed: how many are lost and how many come twice, here and at a plain receiver of its webhook."""

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from scripts.outages.beds import running_agent
from scripts.real_evolution.bed import Bed, open_bed, until
from scripts.real_evolution.server import KEY
from tests.daemon.conftest import RunningAgent
from tests.ports import free_port

PEER = "5511988880001"
BACK_WITHIN = 120.0
SETTLED_WITHIN = 240.0
APART = 0.25
"""Seconds between two messages of a direction."""
PLAIN_WAIT = 10.0
"""Seconds that a program waits for an answer: one of a session that logs in may never come."""
KILLS = ("server", "worker", "agent")


@dataclass(slots=True)
class Count:
    """Of one direction and one way."""

    way: str
    sent: int = 0
    lost: int = 0
    stored: int = 0
    """Of the lost ones: those that the server has in its own store."""
    doubled: int = 0
    unknown: int = 0
    """The sender was told that nobody knows; it counts as lost only where it did not arrive."""

    @property
    def row(self) -> list[str]:
        numbers = (self.sent, self.lost, self.stored, self.doubled, self.unknown)
        return [self.way, *map(str, numbers)]


class PlainReceiver:
    """What a program beside its webhook has: each POST is written down, nothing else is done. It is
    killed with our agent, for as long."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/plain"
        self.texts: Counter[str] = Counter()
        self._port = port
        self._runner: web.AppRunner | None = None

    async def begin(self) -> None:
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/plain", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()

    async def end(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.Response:
        told = await request.json()
        message = (told.get("data") or {}).get("message") or {}
        text = message.get("conversation") or (message.get("extendedTextMessage") or {}).get("text")
        if told.get("event") == "messages.upsert" and str(text).startswith("in "):
            self.texts[str(text)] += 1
        return web.Response()


@dataclass(slots=True)
class Walk:
    bed: Bed
    agent: RunningAgent
    ours: str
    """The session that our agent has; another one tells the plain receiver."""
    plain: str
    receiver: PlainReceiver
    kills: Counter[str] = field(default_factory=Counter)

    async def is_well(self) -> bool:
        states = [await self.bed.server.state(name) for name in (self.ours, self.plain)]
        return states == ["open", "open"] and await self.agent.status(self.ours) == "CONNECTED"

    async def run(self, count: int, out: int, kills: int, seed: int) -> list[Count]:
        lucky = random.Random(seed)
        sending = asyncio.gather(
            self._say(self.ours, count),
            self._say(self.plain, count),
            self._post(out),
            self._post_plainly(out),
        )
        for number in range(kills):
            await asyncio.sleep(count * APART / (kills + 1) * lucky.uniform(0.6, 1.4))
            await self._kill(KILLS[number % len(KILLS)])
        ids = (await sending)[2]
        await until(self.is_well, BACK_WITHIN)
        return await self._count(count, out, ids)

    # the load

    async def _say(self, name: str, count: int) -> None:
        """A contact writes; WhatsApp holds what it cannot give yet."""
        for number in range(count):
            account = self.bed.paired[name]
            text = f"in {name} {number:04}"
            await asyncio.to_thread(self.bed.whatsapp.say, PEER, account, text)
            await asyncio.sleep(APART)

    async def _post(self, count: int) -> list[str]:
        """To our API, again with the same key until it has taken the message."""
        ids = []
        for number in range(count):
            body = {"to": PEER, "text": f"out {self.ours} {number:04}"}
            headers = {"Idempotency-Key": f"out-{number}"}
            path = f"/api/instance/{self.ours}/messages"
            ids.append(await self._taken(path, body, headers))
            await asyncio.sleep(APART)
        return ids

    async def _taken(self, path: str, body: Any, headers: dict[str, str]) -> str:
        async with asyncio.timeout(BACK_WITHIN):
            while True:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    status, answer = await self.agent.ask("POST", path, body, headers)
                    if status in (200, 202):
                        return str(answer["id"])
                await asyncio.sleep(0.3)

    async def _post_plainly(self, count: int) -> None:
        """As programs do it: once more after a failure, at most three times."""
        server = self.bed.server
        for number in range(count):
            text = f"out {self.plain} {number:04}"
            body: dict[str, Any] = {"number": PEER, "text": text}
            if server.old:
                body = {"number": PEER, "options": {}, "textMessage": {"text": text}}
            for _ in range(3):
                with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
                    async with asyncio.timeout(PLAIN_WAIT):
                        path = f"/message/sendText/{self.plain}"
                        status, _ = await server.ask("POST", path, body)
                    if status < 300:
                        break
                await asyncio.sleep(2.0)
            await asyncio.sleep(APART)

    # the kills

    async def _kill(self, what: str) -> None:
        self.kills[what] += 1
        if what == "server":
            await self.bed.server.kill()
            await self.bed.server.start()
        elif what == "agent":
            await asyncio.gather(self.agent.kill(), self.receiver.end())
            await asyncio.gather(self.agent.start(), self.receiver.begin())
        else:
            with contextlib.suppress(aiohttp.ClientError, OSError, AssertionError):
                shown = await self.agent.do("GET", "/api/backends/evo")
                if shown["pid"]:
                    os.kill(int(shown["pid"]), signal.SIGKILL)

    # what came

    async def _count(self, count: int, out: int, ids: list[str]) -> list[Count]:
        await self._until_settled(ids)
        ours, doubled = await self._kept()
        lost = await self._stored(self.ours) - ours
        lost_plainly = await self._stored(self.plain) - set(self.receiver.texts)
        heard = await asyncio.to_thread(self._heard)
        states = Counter([(await self._row(id))["reason"] for id in ids])
        return [
            Count("in, through wa-agent", count, count - len(ours), len(lost), doubled),
            _count("in, its webhook alone", count, self.receiver.texts, stored=len(lost_plainly)),
            _count("out, through wa-agent", out, heard[self.ours], unknown=states["unknown"]),
            _count("out, its API alone", out, heard[self.plain]),
        ]

    async def _until_settled(self, ids: list[str]) -> None:
        """Nothing waits, WhatsApp holds nothing back, and all that the server has is here."""

        async def settled() -> bool:
            if any([(await self._row(id))["state"] == "accepted" for id in ids]):
                return False
            devices = await asyncio.to_thread(self.bed.whatsapp.devices)
            if any(device["unconfirmed"] for device in devices):
                return False
            return await self._stored(self.ours) <= (await self._kept())[0]

        with contextlib.suppress(TimeoutError):
            await until(settled, SETTLED_WITHIN)

    async def _stored(self, name: str) -> set[str]:
        """What arrived, as the server's own store has it."""
        asked = {"limit": 20_000} if self.bed.server.old else {"page": 1, "offset": 20_000}
        _, body = await self.bed.server.ask("POST", f"/chat/findMessages/{name}", asked)
        rows = body if self.bed.server.old else body["messages"]["records"]
        texts = ((row.get("message") or {}).get("conversation") or "" for row in rows)
        return {text for text in texts if text.startswith("in ")}

    async def _row(self, id: str) -> dict[str, Any]:
        return dict(await self.agent.do("GET", f"/api/instance/{self.ours}/outbox/{id}"))

    async def _kept(self) -> tuple[set[str], int]:
        """The texts, and how many records told one again."""
        texts: Counter[str] = Counter()
        after, more = 0, True
        while more:
            path = f"/api/instance/{self.ours}/messages?after={after}&limit=500"
            page = await self.agent.do("GET", path)
            own = (it["text"] for it in page["records"] if it["kind"] == "message")
            texts.update(text for text in own if text.startswith("in "))
            after, more = page["next"], page["more"]
        return set(texts), texts.total() - len(texts)

    def _heard(self) -> dict[str, Counter[str]]:
        """By session; the contact's phone shows a message of the same id once."""
        heard = {(it["id"], it["text"]) for it in self.bed.whatsapp.person(PEER)["heard"]}
        found: dict[str, Counter[str]] = {self.ours: Counter(), self.plain: Counter()}
        for _, text in heard:
            if text and text.startswith("out "):
                found[text.split()[1]][text] += 1
        return found


def _count(
    way: str, count: int, texts: Counter[str], *, stored: int = 0, unknown: int = 0
) -> Count:
    doubled = texts.total() - len(texts)
    return Count(way, count, count - len(texts), stored, doubled, unknown)


@asynccontextmanager
async def open_messages(source: Path, place: Path) -> AsyncIterator[Walk]:
    async with open_bed(source, place, 3) as bed:
        ours, plain = list(bed.paired)[:2]
        bed.whatsapp.asks_again(PEER)
        listen, receiver = f"127.0.0.1:{free_port()}", PlainReceiver(free_port())
        await receiver.begin()
        await _tell(bed, plain, receiver.url)
        declared = f'\n[[backend]]\nname = "evo"\nengine = "evolution"\nkey = "{KEY}"\n'
        declared += f'url = "http://127.0.0.1:{bed.server.port}"\nadopt = ["{ours}"]\n'
        declared += f'webhook = true\nwebhook_url = "http://{listen}"\n'
        (place / "agent").mkdir()
        try:
            async with running_agent(place / "agent", declared, listen) as agent:
                walk = Walk(bed, agent, ours, plain, receiver)
                await until(_knows(agent, ours), BACK_WITHIN)
                await _login_again(bed)
                await until(walk.is_well, BACK_WITHIN)
                await until(_hooked(bed, ours, listen), BACK_WITHIN)
                yield walk
        finally:
            await receiver.end()


def _knows(agent: RunningAgent, name: str) -> Callable[[], Awaitable[bool]]:
    return lambda: agent.knows(name)


def _hooked(bed: Bed, name: str, listen: str) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return listen in str((await bed.server.ask("GET", f"/webhook/find/{name}"))[1])

    return look


async def _tell(bed: Bed, name: str, url: str) -> None:
    told: dict[str, Any] = {"enabled": True, "url": url, "events": ["MESSAGES_UPSERT"]}
    if bed.server.old:
        told |= {"webhook_by_events": False, "webhook_base64": False}
    else:
        told = {"webhook": {**told, "headers": {}, "byEvents": False, "base64": False}}
    status, answer = await bed.server.ask("POST", f"/webhook/set/{name}", told)
    assert status < 300, answer


async def _login_again(bed: Bed) -> None:
    """The Baileys of 1.8 holds all that arrives in its first connection until a phone has given it
    a key, which the stand-in's gives before it asks."""
    if bed.server.old:
        await bed.server.kill()
        await bed.server.start()
