"""A user's own bot under a real agent: made by name, kept alive, named when it fails."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.daemon.conftest import RunningAgent

BOT = Path(__file__).parents[1] / "engines" / "program" / "bot.py"
PROGRAM = """
[[program]]
name = "{mode}"
command = ["{python}", "{bot}", "{mode}"]
starts = 2
"""


def declare(*modes: str) -> str:
    return "".join(PROGRAM.format(mode=mode, python=sys.executable, bot=BOT) for mode in modes)


async def test_a_program_runs_as_an_instance_and_is_named_by_who_creates_it(
    make_agent: Callable[..., RunningAgent], eventually: Callable[..., Awaitable[Any]]
) -> None:
    agent = make_agent(declare("quiet", "fails"))
    await agent.start()
    body = {"id": "shop", "engine": "program"}
    for settings, code in (
        ({"program": "else"}, "unknown_program"),
        ({}, "unknown_program"),
        ({"program": "quiet", "command": ["touch", "x"]}, "invalid_settings"),
        ({"program": "quiet", "[declared]": {"command": ["touch"]}}, "invalid_settings"),
    ):
        status, answer = await agent.ask("POST", "/api/instance", {**body, "settings": settings})
        assert (status, answer["error"]) == (400, code), answer
    for id in ("quiet", "fails"):
        wanted = {"id": id, "engine": "program", "settings": {"program": id}}
        await agent.do("POST", "/api/instance", wanted)

    async def reason(id: str) -> str:
        return str((await agent.show(id))["health"]["reason"])

    async def says(id: str, words: str) -> bool:
        return words in (await agent.show(id))["health"]["sentence"]

    # Unknown is neither connected nor in need of a repair.
    await eventually(lambda: reason("quiet"), "not_told")
    await eventually(lambda: says("quiet", "listens at the till"), True)
    quiet = await agent.show("quiet")
    found = quiet["connection_status"], quiet["health"]["verdict"], quiet["next_attempt"]
    assert found == ("INITIALIZING", "disconnected", None)
    await eventually(lambda: reason("fails"), "program_failing")
    assert await says("fails", "Cannot find module 'left-pad'")
    refused, answer = await agent.ask(
        "PATCH", "/api/instance/quiet", {"settings": {"program": "else"}}
    )
    assert (refused, answer["error"]) == (400, "unknown_program")

    # A program that was corrected is started again by itself.
    agent.config.write_text(agent.config.read_text().replace('"fails"]', '"quiet"]'))
    await agent.do("POST", "/api/reload")
    await eventually(lambda: reason("fails"), "not_told")


async def test_a_session_that_a_program_keeps_elsewhere_is_in_no_copy_and_who_asks_is_told(
    make_agent: Callable[..., RunningAgent], eventually: Callable[..., Awaitable[Any]]
) -> None:
    agent = make_agent(declare("tell"))
    await agent.start({"WA_AGENT_SESSIONS__SNAPSHOT_INTERVAL": "1"})
    body = {"id": "shop", "engine": "program", "settings": {"program": "tell"}}
    await agent.do("POST", "/api/instance", body)
    orders = agent.state / "sessions" / "shop" / "orders"
    await eventually(lambda: asyncio.to_thread(orders.exists), True)
    with orders.open("w") as pipe:
        pipe.write('tell {"event":"open","account":"5511900000001"}\n')
    await eventually(lambda: agent.status("shop"), "CONNECTED")
    for path in ("snapshots", "export"):
        status, answer = await agent.ask("POST", f"/api/instance/shop/{path}")
        assert (status, answer["error"]) == (409, "keys_elsewhere"), answer
        assert "its program keeps it in a place outside of its folder" in answer["message"]
