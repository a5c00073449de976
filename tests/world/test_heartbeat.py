"""Another machine hears each minute that the agent works, and nothing once its passes stand."""

import asyncio
from itertools import pairwise

from aiohttp import web
from aiohttp.test_utils import TestServer

from agent.supervise.passes import Loop


async def test_it_beats_while_passes_complete_in_time(make_agent, eventually, monkeypatch, caplog):
    beats = []

    async def take(_request):
        beats.append(asyncio.get_running_loop().time())
        return web.Response(status=500 if len(beats) == 3 else 200)

    app = web.Application()
    app.router.add_get("/a-secret", take)
    async with TestServer(app) as server:
        address = str(server.make_url("/a-secret"))
        agent = make_agent(f'[heartbeat]\nurl = "{address}"\n')
        await agent.start()
        await eventually(lambda: len(beats) == 4)
        assert {round(b - a) for a, b in pairwise(beats)} == {60}
        said = [one.getMessage() for one in caplog.records if "heartbeat" in one.getMessage()]
        assert said == ["the address of [heartbeat] url does not take the heartbeat: HTTP 500"]
        monkeypatch.setattr(Loop, "blocked", lambda _loop, _now: 999.0)
        await asyncio.sleep(120)
        heard = len(beats)
        await asyncio.sleep(600)
        assert len(beats) == heard
        ours = [one for one in caplog.records if one.name.startswith("agent")]  # not the server's
        assert not [one for one in ours if "a-secret" in one.getMessage()]
