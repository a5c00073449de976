"""Messages through bots that know nothing of it: on the real Baileys, in front of the stand-in."""

import asyncio
import os
import signal
from collections.abc import Mapping
from typing import Any

import pytest

from agent.link.client import Link
from tests.engines.program.test_program_baileys import ACCOUNT, PEER, BotBench, bot, whatsapp

__all__ = ["bot", "whatsapp"]
KILLS = 2
GROUP = "120363000000000007@g.us"


async def records(link: Link, kind: str = "message") -> list[Mapping[str, Any]]:
    page = await link.call("messages", {"after": 0, "limit": 1000})
    return [each for each in page["records"] if each["kind"] == kind]


async def kept(bench: BotBench, link: Link, wanted: set[str]) -> list[Mapping[str, Any]]:
    """Until there is a record of each of these messages."""
    begun = asyncio.get_running_loop().time()
    while True:
        found = await records(link)
        if wanted <= {each["message_id"] for each in found}:
            return found
        assert asyncio.get_running_loop().time() < begun + 30, bench.claims[-1]


async def test_what_comes_is_kept_and_the_bot_hears_it_all_the_same(bot: BotBench) -> None:
    link = await bot.pair(messages=True)
    bot.whatsapp.make_group(GROUP, [ACCOUNT, PEER])
    first = await asyncio.to_thread(bot.whatsapp.say, PEER, ACCOUNT, "hello")
    second = await asyncio.to_thread(bot.whatsapp.say_in_group, PEER, ACCOUNT, GROUP, "all")
    one, two = await kept(bot, link, {first, second})
    assert (one["text"], one["chat"], one["from_me"]) == ("hello", f"{PEER}@s.whatsapp.net", False)
    assert (two["text"], two["chat"], two["sender"]) == ("all", GROUP, f"{PEER}@s.whatsapp.net")
    await bot.until(lambda: not bot.whatsapp.device(ACCOUNT)["unconfirmed"])
    # It is counted when the bot hears it.
    for id in (first, second):
        await bot.until(lambda id=id: any(its.detail.get("id") == id for its in bot.happened))
    assert await bot.stop() == 0
    log = bot.log()
    assert [log.count(f"got 1 of {id}") for id in (first, second)] == [1, 1]


async def test_whatsapp_hears_of_a_message_when_it_is_kept(bot: BotBench) -> None:
    """The worker stands still: the receipt waits for it, as long as a bot can be held up."""
    link = await bot.pair(messages=True)
    assert bot.process is not None
    # A message before: with it the contact's session is made, and all of the hooks are loaded.
    before = await asyncio.to_thread(bot.whatsapp.say, PEER, ACCOUNT, "before")
    await kept(bot, link, {before})
    os.kill(bot.process.pid, signal.SIGSTOP)
    try:
        begun = asyncio.get_running_loop().time()
        id = await asyncio.to_thread(bot.whatsapp.say, PEER, ACCOUNT, "held")
        await bot.until(lambda: bool(bot.whatsapp.receipts(ACCOUNT, id)))
        assert asyncio.get_running_loop().time() - begun > 4.5
    finally:
        os.kill(bot.process.pid, signal.SIGCONT)
    await bot.until(lambda: any(its.detail.get("code") == "not_kept" for its in bot.happened))


@pytest.mark.slow
@pytest.mark.timeout(280)
async def test_a_bot_that_is_killed_loses_no_message(bot: BotBench) -> None:
    link = await bot.pair(messages=True)
    said: set[str] = set()
    for kill in range(KILLS):
        for number in range(12):
            said.add(await asyncio.to_thread(bot.whatsapp.say, PEER, ACCOUNT, f"{kill} {number}"))
        os.kill((await link.call("probe"))["detail"]["pid"], signal.SIGKILL)
        await bot.is_now("DISCONNECTED", "program_ended")
        await link.call("connect", {"deadline": 30})
        await bot.is_now("CONNECTED")
    found = await kept(bot, link, said)
    assert len(found) == len(said)


async def test_the_agent_sends_by_the_library(bot: BotBench) -> None:
    link = await bot.pair(messages=True)
    message = {"type": "text", "to": PEER, "text": "from the agent", "key": "k" * 64}
    answer = await link.call("send", {"message": message})
    assert answer["outcome"] == "sent"
    (shown,) = bot.whatsapp.screen(PEER)["messages"]
    assert (shown["id"], shown["text"]) == (answer["id"], "from the agent")

    # After a kill of the bot nobody knows; sent again it is the same message.
    os.kill((await link.call("probe"))["detail"]["pid"], signal.SIGKILL)
    await bot.is_now("DISCONNECTED", "program_ended")
    await link.call("connect", {"deadline": 30})
    await bot.is_now("CONNECTED")
    again = await link.call("send", {"message": message})
    assert again["id"] == answer["id"]
    assert len(bot.whatsapp.screen(PEER)["messages"]) == 1
    await bot.until(lambda: any(its.kind == "ack" for its in bot.happened))
    assert {its.detail["ack"] for its in bot.happened if its.kind == "ack"} >= {"server"}
