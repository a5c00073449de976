"""A bot on a session of the web engine, whose worker and browser are killed: each message of a
contact is answered once. A real browser, the unmodified bundle, the stand-in page."""

import asyncio
import os
import signal
from contextlib import suppress
from typing import Any

import aiohttp
import pytest

from tests.daemon.test_web import ID, agent, browser_of, cache, pair, stand_in
from tests.standin.web.stand_in import StandIn

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
__all__ = ["agent", "cache", "stand_in"]
ANN = "5511777777777@c.us"
PATH = f"/api/instance/{ID}/messages"


async def echo(agent: Any) -> None:
    """Answers each message with its text, and goes on where it was."""
    cursor = 0
    while True:
        status, page = await agent.ask("GET", f"{PATH}?after={cursor}&wait=5&limit=50")
        if status != 200:
            await asyncio.sleep(0.1)  # no worker runs
            continue
        for record in page["records"]:
            if record["kind"] == "message" and not record["from_me"]:
                answer = {"to": record["chat"], "text": f"echo {record['text']}"}
                status, told = await agent.ask(
                    "POST", PATH, answer, {"Idempotency-Key": record["id"]}
                )
                assert status == 202, told
        cursor = page["next"]


async def test_a_bot_answers_each_message_once_amid_kills(
    agent: Any, stand_in: StandIn, eventually: Any
) -> None:
    await pair(agent, stand_in, eventually)
    bot = asyncio.create_task(echo(agent))
    for number in range(30):
        if number in (10, 20):
            await eventually(lambda n=number: len(stand_in.arrived) >= n - 5, within=90)
            worker = await agent.running_pid(ID)
            killed = worker if number == 10 else browser_of(worker)
            os.kill(killed, signal.SIGKILL)
        said = {"from": ANN, "id": f"IN{number}", "body": f"text {number}"}
        stand_in.deliver("message", **said)
    await eventually(lambda: len(stand_in.arrived) >= 30, within=120)
    bot.cancel()
    with suppress(asyncio.CancelledError, aiohttp.ClientError):
        await bot
    answers = [each["body"] for each in stand_in.arrived.values()]
    assert sorted(answers) == sorted(f"echo text {number}" for number in range(30))
