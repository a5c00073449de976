"""What goes wrong in a bot is healed by the agent, or named, as for every engine."""

import asyncio
from collections.abc import Callable

import pytest

from tests.conftest import Eventually
from tests.daemon.conftest import PATIENT, RunningAgent
from tests.daemon.test_programs import declare
from tests.daemon.test_vault import cli

MEMORY = """
[memory]
interval = 1
instance = 83886080
warn = 0.6
"""


async def order(agent: RunningAgent, line: str) -> None:
    pipe = agent.state / "sessions" / "shop" / "orders"
    await asyncio.to_thread(pipe.write_text, f"{line}\n")


async def ended(agent: RunningAgent) -> list[str]:
    """What became of its repairs."""
    endings = ("recovered:", "needs person:", "gave up")
    return [words for _, words in await agent.story("shop") if words.startswith(endings)]


async def connected(
    make_agent: Callable[..., RunningAgent], eventually: Eventually, settings: str = ""
) -> RunningAgent:
    agent = make_agent(settings + declare("connected"))
    await agent.start(PATIENT)
    body = {"id": "shop", "engine": "program", "settings": {"program": "connected"}}
    await agent.do("POST", "/api/instance", body)
    await eventually(lambda: agent.status("shop"), "CONNECTED", within=40)
    return agent


async def test_a_bot_that_leaks_is_restarted_for_its_memory_with_its_pairing(
    make_agent: Callable[..., RunningAgent], eventually: Eventually
) -> None:
    agent = await connected(make_agent, eventually, MEMORY)
    before = await agent.pid("shop")
    await order(agent, f"leak {8 << 20}")

    async def is_back() -> bool:
        shown = await agent.show("shop")
        running: int = shown["unit"]["main_pid"]
        return shown["connection_status"] == "CONNECTED" and running not in (0, before)

    await eventually(is_back, within=60)
    told = [words for kind, words in await agent.story("shop") if kind == "action"]
    assert [words for words in told if words.startswith("restart: memory critical: ")], told
    shown = await agent.show("shop")
    assert (shown["restarts_by_reason"]["agent"], shown["restarts_by_reason"]["oom"]) == (1, 0)
    assert (shown["paired"], await agent.codes("shop")) == (True, 0)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("zombie", "its engine claims CONNECTED; the last proof is 600 s old"),
        ("hang", "it does not answer: 3 pings failed in a row"),
        ('tell {"event": "close", "code": 428}', "WhatsApp closed the connection"),
    ],
    ids=["zombie", "hang", "connection that does not come back"],
)
async def test_a_bot_without_a_connection_gets_a_new_process(
    make_agent: Callable[..., RunningAgent], eventually: Eventually, what: str, words: str
) -> None:
    agent = await connected(make_agent, eventually, "[phases]\nsync = 2\n")

    note = agent.state / "sessions" / "shop" / "runs_as"
    before = note.read_text()
    await order(agent, what)

    async def is_new() -> bool:
        return await agent.status("shop") == "CONNECTED" and note.read_text() != before

    await eventually(is_new, within=90)
    told = [sentence for _, sentence in await agent.story("shop")]
    assert any(words in sentence for sentence in told), told
    # Until its library is there a program tells nothing: that ends no repair.
    await eventually(lambda: ended(agent), ["recovered: connected"], within=30)
    assert await agent.codes("shop") == 0


async def test_a_logout_of_a_bot_is_named_and_its_files_are_in_the_trash(
    make_agent: Callable[..., RunningAgent], eventually: Eventually
) -> None:
    agent = await connected(make_agent, eventually)
    await order(agent, 'tell {"event": "close", "reason": "logout"}')

    async def trash() -> int:
        return len((await agent.do("GET", "/api/trash"))["trash"])

    await eventually(trash, 1, within=60)
    told = [sentence for _, sentence in await agent.story("shop")]
    assert any("the account removed this linked device" in sentence for sentence in told), told


async def test_a_bot_that_fails_at_each_start_is_one_reason_one_alert_and_its_last_lines(
    make_agent: Callable[..., RunningAgent], eventually: Eventually
) -> None:
    agent = make_agent("[alerts]\npatience = 0\n" + declare("fails"))
    await agent.start(PATIENT)
    body = {"id": "shop", "engine": "program", "settings": {"program": "fails"}}
    await agent.do("POST", "/api/instance", body)

    async def firing() -> list[str]:
        alerts = (await agent.do("GET", "/api/alerts"))["alerts"]
        mine = [its for its in alerts if its["labels"].get("session") == "shop"]
        return sorted(its["name"] for its in mine)

    async def failing() -> bool:
        health = (await agent.show("shop"))["health"]
        return health["reason"] == "program_failing" and bool(await firing())

    await eventually(failing, within=60)
    assert await firing() == ["WaSessionDown"]
    status, said = await cli(agent, "why", "shop")
    assert (status, "Cannot find module 'left-pad'" in said) == (0, True), said
    assert "hunter2" not in said
