"""The stand-in behaves as the server does, asked by a plain client."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.conftest import Eventually
from tests.standin.evolution import KEY, StandIn, Times, recorded
from tests.standin.evolution.control import obey
from tests.standin.evolution.shapes import OLD_SETTINGS


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture(params=["2.3.7", "1.8.6", "2.4.0-rc2"])
async def any_version(request: pytest.FixtureRequest) -> AsyncIterator[StandIn]:
    made = await StandIn.open(request.param)
    yield made
    await made.close()


@pytest.fixture
async def standin() -> AsyncIterator[StandIn]:
    made = await StandIn.open()
    yield made
    await made.close()


async def ask(
    client: aiohttp.ClientSession,
    standin: StandIn,
    call: str,
    body: Any = None,
    key: str | None = KEY,
) -> tuple[int, Any]:
    method, path = call.split(" ")
    headers = {"apikey": key} if key else {}
    async with client.request(method, standin.url + path, json=body, headers=headers) as reply:
        text = await reply.text()
        return reply.status, json.loads(text) if text else None


async def test_the_guards_ask_in_the_servers_order(
    client: aiohttp.ClientSession, any_version: StandIn
) -> None:
    any_version.add("a")
    status, body = await ask(client, any_version, "GET /instance/connectionState/x", key=None)
    assert status == 404
    assert body == {
        "status": 404,
        "error": "Not Found",
        "response": {"message": ['The "x" instance does not exist']},
    }
    status, body = await ask(client, any_version, "GET /instance/connectionState/a", key="wrong")
    assert (status, body["response"]["message"]) == (401, "Unauthorized")
    taken = {"instanceName": "a", "integration": "WHATSAPP-BAILEYS"}
    status, body = await ask(client, any_version, "POST /instance/create", taken, key=None)
    assert (status, body["error"]) == (403, "Forbidden")
    free = {"instanceName": "b", "integration": "WHATSAPP-BAILEYS"}
    assert (await ask(client, any_version, "POST /instance/create", free, key=None))[0] == 401
    odd = {"instanceName": "b", "integration": "FAX"}
    assert (await ask(client, any_version, "POST /instance/create", odd))[0] == 400
    status, body = await ask(client, any_version, "GET /instance/nothing")
    assert (status, body["response"]["message"]) == (404, ["Cannot GET /instance/nothing"])
    token = any_version.instances["a"].token
    assert (await ask(client, any_version, "GET /instance/connectionState/a", key=token))[0] == 200
    status, body = await ask(client, any_version, "GET /instance/fetchInstances?instanceName=x")
    if any_version.old:
        assert (status, body) == (500, {"error": True, "message": ['Instance "x" not found']})
    else:
        assert (status, body["response"]["message"]) == (404, ['Instance "x" not found'])


async def test_2x_refuses_a_restart_in_close_with_status_200(
    client: aiohttp.ClientSession, standin: StandIn
) -> None:
    standin.add("a")
    refused = (200, {"error": True, "message": "[object Object]"})
    assert await ask(client, standin, "POST /instance/restart/a") == refused
    standin.add("b").unload()
    assert await ask(client, standin, "GET /instance/connect/b") == refused
    assert await ask(client, standin, "GET /instance/connectionState/b") == (
        200,
        {"instance": {"instanceName": "b"}},
    )


async def test_the_list_shows_rows_in_2x_and_live_states_in_1_8(
    client: aiohttp.ClientSession, any_version: StandIn
) -> None:
    any_version.add("a", "open").row.set(connectionStatus="close", disconnectionReasonCode=406)
    _, rows = await ask(client, any_version, "GET /instance/fetchInstances")
    if any_version.old:
        assert rows[0]["instance"]["status"] == "open"
    else:
        assert (rows[0]["connectionStatus"], rows[0]["disconnectionReasonCode"]) == ("close", 406)


async def test_codes_rotate_and_end(client: aiohttp.ClientSession, eventually: Eventually) -> None:
    standin = await StandIn.open(times=Times.fast(codes=2, code_holds=0.2, first_code=0.5))
    instance = standin.add("a")
    _, first = await ask(client, standin, "GET /instance/connect/a")
    assert first == {"count": 0}

    counts: set[int] = set()
    while not {1, 2} <= counts:  # asked without a pause: each holds a moment only
        counts.add((await ask(client, standin, "GET /instance/connect/a"))[1].get("count"))
    assert counts <= {0, 1, 2}
    await eventually(lambda: instance.state, "close")
    assert instance.row.connectionStatus == "connecting"
    await standin.close()


async def test_webhooks_are_repeated_but_not_after_a_refusal(
    standin: StandIn, eventually: Eventually
) -> None:
    answers, seen = [500, 200, 404], []

    async def take(request: web.Request) -> web.Response:
        seen.append(await request.json())
        return web.Response(status=answers.pop(0))

    app = web.Application()
    app.router.add_post("/in", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/in"
    instance = standin.add("a", "open")
    instance.webhook = {"enabled": True, "url": url, "events": ["MESSAGES_UPSERT"]}
    await obey(standin, "message", {"name": "a", "id": "M1"})
    await eventually(lambda: standin.webhooks.sent, 1)
    await obey(standin, "message", {"name": "a", "id": "M2"})
    await eventually(lambda: standin.webhooks.failed, 1)
    assert [each["data"]["key"]["id"] for each in seen] == ["M1", "M1", "M2"]
    assert (seen[0]["event"], seen[0]["instance"]) == ("messages.upsert", "a")
    await runner.cleanup()


async def test_the_stand_in_runs_alone_and_obeys_over_http(client: aiohttp.ClientSession) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.standin.evolution", "--fast", "--instances", "1000"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        said = (await asyncio.wait_for(process.stdout.readline(), 30)).decode().split()
        told = dict(zip(said[::2], said[1::2], strict=True))

        async def command(verb: str, **body: Any) -> Any:
            async with client.post(f"{told['control']}/{verb}", json=body) as reply:
                return await reply.json()

        assert (await command("stats"))["states"] == {"open": 1000}
        assert (await command("set", share=0.5, stuck=True))["count"] == 500
        assert (await command("stats"))["states"] == {"open": 500, "connecting": 500}
        await command("fault", fault="refuse")
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.get(told["url"])
        await command("fault", fault="")
        async with client.get(told["url"]) as reply:
            assert (await reply.json())["version"] == "2.3.7"
        assert "error" in await command("fly", name="line-0001")
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.parametrize("version", ["1.8.6", "2.3.6"])
async def test_the_stand_in_answers_as_the_real_server_did(
    client: aiohttp.ClientSession, version: str
) -> None:
    kept = json.loads((Path(__file__).parent / f"recorded-{version}.json").read_text())
    assert kept["version"] == version
    # Long enough for the questions that are asked before an open session notices the silence.
    standin = await StandIn.open(version, times=Times.fast(silent_try=1.5))

    async def scan(_code: str) -> None:
        assert standin.instances[recorded.NAME].scan()

    async def silence(on: bool) -> None:
        standin.silence(on)

    asks = recorded.asker(client, standin.url, KEY)
    told = json.loads(json.dumps(await recorded.walk(asks, scan, silence, old=standin.old)))
    await standin.close()
    differ = {
        f"{state}: {call}": (found, told[state].get(call))
        for state, calls in kept["told"].items()
        for call, found in calls.items()
        if found != told[state].get(call)
    }
    assert not differ, json.dumps(differ, indent=1)


async def test_what_is_asked_inside_a_login_breaks_it(
    client: aiohttp.ClientSession, eventually: Eventually
) -> None:
    standin = await StandIn.open("1.8.6", times=Times.fast(handshake=0.5, opens_after=0.7))
    try:
        instance = standin.add("a", "open")
        instance.drop(408)
        await eventually(lambda: instance.state, "connecting")
        looks = ("GET /instance/connectionState/a", "GET /webhook/find/a", "GET /proxy/find/a")
        for look in looks:
            assert (await ask(client, standin, look))[0] == 200
        assert (instance.logins, instance.broken_logins) == (1, 0)
        told = {"presence": "unavailable"}
        assert (await ask(client, standin, "POST /instance/setPresence/a", told))[0] == 201
        await eventually(lambda: instance.logins, 2)
        said = {name: False for name in OLD_SETTINGS if name != "msg_call"}
        settings = said | {"wavoipToken": "t"}
        assert (await ask(client, standin, "POST /settings/set/a", settings))[0] == 201
        assert instance.broken_logins == 2
        await eventually(lambda: instance.state, "open")
        assert (await ask(client, standin, "POST /instance/setPresence/a", told))[0] == 201
        assert (instance.logins, instance.state) == (3, "open")
    finally:
        await standin.close()
