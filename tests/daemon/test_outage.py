"""Pages whose server is away come back with it."""

import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from tests.daemon.conftest import SETTINGS
from tests.daemon.line import line_to
from tests.daemon.test_web import cache
from tests.standin.web.stand_in import StandIn

__all__ = ["cache"]

USUAL_DELAYS = SETTINGS.replace("[reconnect]\nbase = 0.2\njitter = 0\n", "")


async def connected_again(agent, ids):
    shown = await agent.do("GET", "/api/instances?limit=500")
    up = {one["id"] for one in shown["instances"] if one["connection_status"] == "CONNECTED"}
    return up >= set(ids)


async def tries(agent, id):
    """What the agent began since it saw the connection lost, and could log in."""
    story = await agent.story(id)
    losses = (at for at, (_, said) in enumerate(story) if said.startswith("CONNECTED → "))
    lost = next(losses, len(story))
    begun = [said.split(":")[0] for kind, said in story[lost:] if kind in ("action", "repair")]
    return [kind for kind in begun if kind in ("start", "connect", "restart", "reconnect")]


# WhatsApp Web: the page's own server is away


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    found = await StandIn.open(qr_every=300, alive_every=0.5)
    yield found
    await found.close()


@pytest.mark.slow
async def test_w1_two_pages_come_back_with_their_server(make_agent, eventually, stand_in, cache):
    """One page is connected and loses its server; the other has not begun to load."""
    base = USUAL_DELAYS.replace("interval = 1\ntimeout = 0.5", "interval = 1\ntimeout = 1")
    agent = make_agent(base=base)
    await agent.start(env={"CACHE_PATH": str(cache)})
    async with line_to(urlsplit(stand_in.url).port) as line:
        for id in ("shop", "desk"):
            url = f"http://127.0.0.1:{line.port}/?name={id}"
            body = {"id": id, "engine": "web", "settings": {"url": url}}
            await agent.do("POST", "/api/instance", body)
            await eventually(lambda id=id: agent.status(id), "QR_REQUIRED", within=40)
            stand_in.scan("5511999999999" if id == "shop" else "5511888888888", id)
            await eventually(lambda id=id: agent.status(id), "CONNECTED", within=30)
        await agent.do("POST", "/api/instance/desk/stop")
        await line.cut(silent=False)
        await agent.do("POST", "/api/instance/desk/start")
        begun = time.monotonic()

        async def both_wait():
            shown = [await agent.show(id) for id in ("shop", "desk")]
            return {one["reason"] for one in shown}

        await eventually(both_wait, {"unreachable"})
        assert f"cannot reach 127.0.0.1:{line.port}" in (await agent.show("desk"))["sentence"]
        # As long as in W1: with five failures the circuit was open until 619 s.
        await eventually(lambda: time.monotonic() - begun > 20, within=30)
        assert await both_wait() == {"unreachable"}
        await line.mend()
        await eventually(lambda: connected_again(agent, ["shop", "desk"]), within=60)
        for id in ("shop", "desk"):
            assert (await agent.show(id))["circuit"] == "closed"
        assert len(await tries(agent, "shop")) <= 2
