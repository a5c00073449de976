"""The web engine under a real agent: a real browser on the stand-in page, cared for."""

import asyncio
import base64
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.engines.web.browser.arguments import find_browser
from agent.engines.web.fetch import fetch_bundle
from agent.errors import ConfigError, EngineError
from tests.daemon.conftest import RunningAgent
from tests.daemon.test_vault import cli
from tests.lacking import lacks
from tests.standin.web.stand_in import StandIn

pytestmark = pytest.mark.slow

ACCOUNT = "5511999999999"
ID = "shop"

# A browser takes longer than the sandbox; what is waited for is still the fault.
SETTINGS = """\
[agent]
host = "process"

[start]
stagger = 0
login_every = 0
first_check = 0.2

[health]
interval = 1
deep = 2
timeout = 1

[worker]
watchdog = 8
stop_timeout = 15

[stop]
save = 10

[reconnect]
base = 0.2
jitter = 0
"""


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    found = await StandIn.open(qr_every=300, alive_every=0.5)
    yield found
    await found.close()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The bundle, fetched once; each agent has a cache of its own, which it marks."""
    kept = Path(os.environ.get("WA_CACHE_PATH", Path(__file__).parents[2] / ".cache"))
    try:
        find_browser("headless-shell", os.environ.get("WA_BROWSER", ""))
        fetch_bundle(kept)
    except (ConfigError, EngineError) as error:
        lacks(str(error))
    shutil.copytree(kept / "wa-js", tmp_path / "cache" / "wa-js")
    return tmp_path / "cache"


@pytest.fixture
async def agent(make_agent: Callable[..., RunningAgent], cache: Path) -> RunningAgent:
    one = make_agent(base=SETTINGS)
    await one.start(env={"CACHE_PATH": str(cache)})
    return one


async def create(agent: RunningAgent, stand_in: StandIn, id: str = ID) -> None:
    settings = {"url": f"{stand_in.url}?name={id}"}
    await agent.do("POST", "/api/instance", {"id": id, "engine": "web", "settings": settings})


async def pair(agent: RunningAgent, stand_in: StandIn, eventually: Any, id: str = ID) -> None:
    await create(agent, stand_in, id)
    await eventually(lambda: agent.status(id), "QR_REQUIRED", within=30)
    stand_in.scan(ACCOUNT, id)
    await eventually(lambda: agent.status(id), "CONNECTED")


async def test_a_session_is_paired_by_a_code_for_the_phone(agent, stand_in, eventually, tmp_path):
    await create(agent, stand_in)
    await eventually(lambda: agent.status(ID), "QR_REQUIRED", within=30)
    status, out = await cli(agent, "pairing-code", ID, "letters")
    assert (status, "phone" in out) == (2, True), out
    status, out = await cli(agent, "pairing-code", ID, f"+{ACCOUNT}")
    assert status == 0, out
    stand_in.enter_code(out.split()[0].replace("-", ""))
    await eventually(lambda: agent.status(ID), "CONNECTED")
    assert (await agent.show(ID))["account"] == ACCOUNT
    status, answer = await agent.ask("POST", f"/api/instance/{ID}/pairing-code", {"phone": ACCOUNT})
    assert (status, answer["error"]) == (409, "not_waiting")

    status, out = await cli(agent, "screenshot", ID, tmp_path / "page.png")
    assert status == 0, out
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "page.png").stat().st_mode & 0o777 == 0o600


async def test_messages_go_out_come_in_and_are_heard_of(agent, stand_in, eventually):
    await pair(agent, stand_in, eventually)
    connector = aiohttp.UnixConnector(str(agent.state / "api.sock"))
    async with aiohttp.ClientSession(connector=connector) as session:
        heard = await session.ws_connect("http://localhost/api/events?kind=message&kind=ack")
        assert (await heard.receive_json())["type"] == "hello"
        path = f"/api/instance/{ID}/messages?wait=30"
        sent = await agent.do("POST", path, {"to": "5511777777777", "text": "hello"})
        assert sent["outcome"] == "sent"
        picture = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(64)).decode()
        file = {"type": "media", "content": picture, "mimetype": "image/png", "caption": "look"}
        sent = await agent.do("POST", path, {"to": "5511777777777", **file})
        assert sent["outcome"] == "sent"
        (agent.state / "note.txt").write_text("a document")
        words = ("send", ID, "5511777777777", "look", "--file", agent.state / "note.txt")
        status, said = await cli(agent, *words)
        assert (status, said.split()[0]) == (0, "sent"), said
        message = {"from": "5511777777777@c.us", "body": "a secret"}
        stand_in.page(ID).tell("message", **message)
        directions = set()
        async with asyncio.timeout(30):
            while directions != {"in", "out"}:
                event = await heard.receive_json()
                assert "a secret" not in str(event)
                assert "5511777777777" not in str(event)
                if event.get("kind") == "message":
                    directions.add(event["detail"]["direction"])
        await heard.close()

    async def counted() -> bool:
        counts = (await agent.show(ID))["messages"]
        return counts["in"] >= 1 and counts["out"] >= 2

    await eventually(counted)
    assert not [kind for kind, _ in await agent.story(ID) if kind in ("message", "ack")]

    # Its worker dies while the page still sends: the outcome is unknown, and the message is sent
    # again as the same one.
    stand_in.answers_sends = False
    page = stand_in.page(ID)

    def sends() -> int:
        return [told.get("do") for told in page.received].count("send")

    before = sends()
    status, kept = await agent.ask(
        "POST", path.partition("?")[0], {"to": "5511777777777", "text": "is it there?"}
    )
    assert (status, kept["state"]) == (202, "accepted")
    await eventually(lambda: sends() > before)
    os.kill(await agent.pid(ID), signal.SIGKILL)

    async def row(name: str) -> str:
        return (await agent.do("GET", f"/api/instance/{ID}/outbox/{kept['id']}"))[name]

    await eventually(lambda: row("reason"), "unknown_outcome")
    stand_in.answers_sends = True
    await eventually(lambda: agent.status(ID), "CONNECTED", within=30)
    await eventually(lambda: row("state"), "sent", within=60)


async def test_a_page_that_hangs_is_repaired_without_a_scan(agent, stand_in, eventually):
    await pair(agent, stand_in, eventually)
    hung = stand_in.page(ID)
    hung.tell("hang", seconds=120)

    async def is_noticed() -> bool:
        return (await agent.show(ID))["health"]["verdict"] != "healthy"

    async def is_back() -> bool:
        shown = await agent.show(ID)
        healthy = shown["health"]["verdict"] == "healthy"
        return healthy and any(each is not hung for each in stand_in.clients)

    await eventually(is_noticed, within=30)
    await eventually(is_back, within=60)
    assert (await agent.show(ID))["account"] == ACCOUNT
    assert len(stand_in.devices) == 1


async def test_a_missing_bundle_is_named_everywhere_and_found_when_it_is_there(
    agent, stand_in, eventually, cache
):
    (cache / "wa-js").rename(cache / "away")
    await create(agent, stand_in)

    async def reason() -> str:
        return str((await agent.show(ID))["reason"])

    await eventually(reason, "bundle_missing", within=30)
    for words in (("list",), ("show", ID), ("why", ID)):
        status, out = await cli(agent, *words)
        assert (status, "wa-js bundle" in out) == (0, True), out
    _, why = await cli(agent, "why", ID)
    assert "wa-agent doctor" in why
    assert any("bundle" in sentence for _, sentence in await agent.story(ID))
    (cache / "away").rename(cache / "wa-js")
    await eventually(lambda: agent.status(ID), "QR_REQUIRED", within=60)
