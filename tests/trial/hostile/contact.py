"""A contact → a Baileys session: what it names, sends, sends again, acknowledges, shares and asks
for, unreadable messages of strangers, and a record of it that is damaged. A plain bot of
the library (useMultiFileAuthState) is linked to the same account and gets the same: where the bot
stays connected and reads, the session does. Strangers write to an agent's session, too, which does
nothing for their sake."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.daemon.conftest import SETTINGS, RunningAgent
from tests.defaults import changed
from tests.engines.baileys.conftest import ACCOUNT, Bench
from tests.standin.baileys.run import BaileysServer, WhatsApp
from tests.trial.hostile.contacting import acts
from tests.trial.hostile.contacting.acts import FRIEND, GROUP, HOSTILE, OUTSIDER, SECRET, Step
from tests.trial.hostile.contacting.doing import Target, do
from tests.trial.hostile.whatsapp import paired

CASES = 4
READ = 60.0
"""Seconds until a message is read, if it ever is: twice what a retry takes on a busy machine."""
FOLLOWS = 1.5
"""Seconds in which an agent shows what it does about strangers; nothing is wrong where it shows
less."""
DESK, WATCHED = "5511900000055", "desk"
"""The account of the agent's session, and its name."""
SHORT = SETTINGS + "\n[recovery]\nfirst_delay = 0.1\nsettle = 0.5\n"
POLICY = "agent.core.crypto.CryptoPolicy"
FIRST = changed(POLICY, answer=0.2)
ACTS = ("RECOVERY", "RECONNECT")
"""Categories of the history that tell of a step."""
draw = acts.draw


@dataclass(slots=True)
class World:
    whatsapp: WhatsApp
    session: Bench
    bot: BaileysServer
    agent: RunningAgent

    @property
    def target(self) -> Target:
        session = self.session

        async def send(message: Mapping[str, Any]) -> str:
            return str((await session.engine.send(message))["id"])

        return Target(self.whatsapp, session.account, session.folder, send)

    @property
    def watched(self) -> Target:
        async def send(message: Mapping[str, Any]) -> str:
            path = f"/api/instance/{WATCHED}/messages?wait=30"
            return str((await self.agent.do("POST", path, message))["message_id"])

        return Target(self.whatsapp, DESK, self.agent.state / "sessions" / WATCHED, send)


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        bench = await stack.enter_async_context(paired(folder))
        whatsapp = bench.whatsapp
        bot = await asyncio.to_thread(BaileysServer, whatsapp, folder / "bots", folder / "bot.log")
        stack.push_async_callback(asyncio.to_thread, bot.end)
        code = await bench.until(bot.qr, READ)
        await asyncio.to_thread(whatsapp.scan, code, ACCOUNT)
        await bench.until(lambda: bot.status() == "CONNECTED", READ)
        agent = await stack.enter_async_context(_watching(folder, whatsapp))
        whatsapp.make_group(GROUP, [ACCOUNT, DESK, HOSTILE, FRIEND])
        whatsapp.takes_enclosed_keys(HOSTILE, FRIEND)
        yield World(whatsapp, bench, bot, agent)


@asynccontextmanager
async def _watching(folder: Path, whatsapp: WhatsApp) -> AsyncIterator[RunningAgent]:
    """An agent with a session of its own."""
    (folder / "agent.toml").write_text(SHORT)
    agent = RunningAgent(folder / "state", folder / "agent.toml")
    agent.first = FIRST
    agent.state.mkdir()
    (agent.state / "cache").symlink_to(folder / "cache")
    try:
        await agent.start()
        body = {"id": WATCHED, "engine": "baileys", "settings": {"url": whatsapp.socket}}
        await agent.do("POST", "/api/instance", body)
        path, code = f"/api/instance/{WATCHED}/qr", ""
        async with asyncio.timeout(READ):
            while not code:
                code = (await agent.ask("GET", path))[1].get("qr", "")
                await asyncio.sleep(0.05)
            await asyncio.to_thread(whatsapp.scan, code, DESK)
            while await agent.status(WATCHED) != "CONNECTED":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        yield agent
    finally:
        await agent.close()


async def play(world: World, case: list[Step]) -> None:
    begun = len(world.session.heard.claims)
    said = [id for step in case if (id := await do(world.target, step))]
    said.append(await asyncio.to_thread(world.whatsapp.say, FRIEND, ACCOUNT, "is it there?"))
    await _reads_what_the_bot_reads(world, said, begun)
    await _does_nothing_for_strangers(world, [s for s in case if s["do"] in ("strangers", "steal")])
    _judge_secrets(world.whatsapp)


async def _reads_what_the_bot_reads(world: World, said: list[str], begun: int) -> None:
    session = world.session

    def not_read() -> set[str]:
        """Messages that the bot read, and the session did not; the friend's one counts always."""
        devices = [each for each in world.whatsapp.devices() if each["user"] == ACCOUNT]
        ours, bots = map(_read, devices)  # in the order of their pairing
        return {said[-1], *said} & (bots | {said[-1]}) - ours

    until = time.monotonic() + READ
    while (missing := await asyncio.to_thread(not_read)) and time.monotonic() < until:
        lost = [claim for claim in session.heard.claims[begun:] if claim.status != "CONNECTED"]
        assert not lost, f"the session lost its connection: {lost[0].reason} {lost[0].raw}"
        await asyncio.sleep(0.1)
    told = [(h.kind, dict(h.detail)) for h in session.heard.happenings]
    about = [(kind, detail) for kind, detail in told if detail.get("id") in missing]
    words = [id[:40] for id in missing]
    assert not missing, f"the session did not read what the bot read: {words}; it told {about}"
    assert [each.status for each in session.heard.claims[begun:]] == []
    assert not session.heard.errors


async def _does_nothing_for_strangers(world: World, steps: list[Step]) -> None:
    if not steps:
        return
    agent, whatsapp = world.agent, world.whatsapp
    before = await agent.show(WATCHED)
    logins = whatsapp.device(DESK)["logins"]
    for step in steps:
        await do(world.watched, step)
    theirs = await asyncio.to_thread(whatsapp.say, FRIEND, DESK, "is it there?")
    async with asyncio.timeout(READ):
        while theirs not in _read(await asyncio.to_thread(whatsapp.device, DESK)):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await asyncio.sleep(FOLLOWS)
    shown, last = await agent.show(WATCHED), before["events"][0]["cursor"]
    done = [e["sentence"] for e in shown["events"] if e["cursor"] > last and e["category"] in ACTS]
    now = whatsapp.device(DESK)["logins"]
    assert now == logins, f"{now - logins} logins for strangers' sake: {done}"
    assert not done, f"the agent acted for strangers' sake: {done}"
    assert shown["connection_status"] == "CONNECTED", shown["sentence"]


def _judge_secrets(whatsapp: WhatsApp) -> None:
    for user in (HOSTILE, OUTSIDER):
        group = GROUP if user == HOSTILE else "-"
        heard = [str(each["text"]) for each in whatsapp.person(user).get("heard", [])]
        stolen = [text for text in heard if text.startswith(SECRET) and group not in text]
        assert not stolen, f"{user} got what was sent to others: {stolen[0]}"


def _read(device: dict[str, Any]) -> set[str]:
    return {each["id"] for each in device["receipts"] if each["type"] != "retry"}
