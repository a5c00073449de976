"""Messages of sessions on an Evolution server: a real agent, a real worker, a stand-in server."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.daemon.conftest import remote_settings
from tests.daemon.test_backends import table
from tests.ports import free_port
from tests.standin.evolution import StandIn, Times

CHAT = "5511777776666@s.whatsapp.net"


@pytest.fixture
async def standin() -> AsyncIterator[StandIn]:
    # It gives a webhook up while the agent starts again.
    one = await StandIn.open("2.3.6", times=Times.fast(webhook_first=0.02, webhook_last=0.02))
    yield one
    await one.close()


async def texts(agent, after=0, wait=0):
    """None while its worker does not run."""
    path = f"/api/instance/shop/messages?after={after}&wait={wait}"
    status, page = await agent.ask("GET", path)
    assert status == 200 or page["error"] in ("not_running", "slow"), page
    return [record.get("text", record["kind"]) for record in page.get("records", ())]


async def test_what_arrives_is_kept_through_kills_and_goes_with_the_session(
    make_agent, standin, eventually
):
    standin.add("shop", "open")
    listen = f"127.0.0.1:{free_port()}"
    own = table(standin, webhook=True, webhook_url=f"http://{listen}")
    agent = make_agent(own, base=remote_settings())
    agent.listen = listen
    await agent.start()
    await eventually(lambda: standin.instances["shop"].webhook is not None)

    standin.arrive("shop", {"conversation": "one"})
    await eventually(lambda: texts(agent, wait=5), ["one"])
    page = await agent.do("GET", "/api/instance/shop/messages?after=0")
    (record,) = page["records"]
    assert (record["chat"], record["sender"], record["fresh"]) == (CHAT, CHAT, True)

    # While no agent runs, nobody takes a webhook; its worker lives on.
    await agent.kill()
    failed = standin.webhooks.failed
    standin.arrive("shop", {"conversation": "two"})
    await eventually(lambda: standin.webhooks.failed > failed)
    await agent.start()
    await eventually(lambda: texts(agent, wait=5), ["one", "two"])

    worker = int((await agent.do("GET", "/api/backends/evo"))["pid"])
    os.kill(worker, signal.SIGKILL)
    standin.arrive("shop", {"conversation": "three"}, told=False)
    await eventually(lambda: texts(agent, wait=5), ["one", "two", "three"], within=60)
    newest = (await agent.do("GET", "/api/instance/shop/messages?after=0"))["next"]
    assert newest == record["cursor"] + 2

    own_folder = agent.state / "backends/evo/sessions/shop"
    assert (own_folder / "messages").is_dir()
    await agent.do("DELETE", "/api/instance/shop")
    assert not own_folder.exists()
    (trashed,) = (agent.state / "sessions").glob(".trash/*/messages")
    assert any(trashed.iterdir())


async def test_an_edit_that_comes_while_the_worker_is_away_holds_no_message_up(
    make_agent, eventually
):
    """Refused, its server would post it again after five seconds or more, and take no other
    message meanwhile: one that the test does not wait for."""
    standin = await StandIn.open("2.3.6", times=Times.fast(webhook_first=600.0))
    try:
        standin.add("shop", "open")
        listen = f"127.0.0.1:{free_port()}"
        own = table(standin, webhook=True, webhook_url=f"http://{listen}")
        agent = make_agent(own, base=remote_settings())
        agent.listen = listen
        await agent.start()
        await eventually(lambda: standin.instances["shop"].webhook is not None)
        first = standin.arrive("shop", {"conversation": "one"})
        await eventually(lambda: texts(agent, wait=5), ["one"])

        os.kill(int((await agent.do("GET", "/api/backends/evo"))["pid"]), signal.SIGKILL)
        standin.edit("shop", first, "uno")
        standin.arrive("shop", {"conversation": "two"})
        await eventually(lambda: texts(agent, wait=5), ["one", "uno", "two"], within=60)
    finally:
        await standin.close()


async def test_an_agent_killed_before_it_knew_asks_its_worker_what_was_sent(
    make_agent, standin, eventually
):
    standin.add("shop", "open")
    agent = make_agent(table(standin), base=remote_settings())
    await agent.start({"WA_FAILPOINT": "outbox_sent:kill"})
    await eventually(lambda: agent.knows("shop"))
    await eventually(lambda: agent.status("shop"), "CONNECTED")
    with contextlib.suppress(aiohttp.ClientError):
        await agent.do("POST", "/api/instance/shop/messages", {"to": CHAT, "text": "your order"})
    assert agent.process is not None
    async with asyncio.timeout(30):
        await agent.process.wait()
    await agent.start()

    async def row():
        (found,) = (await agent.do("GET", "/api/instance/shop/outbox"))["messages"]
        return found["state"], found["message_id"]

    (sent,) = standin.instances["shop"].sent
    await eventually(row, ("sent", sent["key"]["id"]), within=60)
    assert len(standin.instances["shop"].sent) == 1
