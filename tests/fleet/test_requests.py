"""Requests to a fleet of real agents over TLS, through whichever machine is asked."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from agent.core.fleet.headers import CALLER
from tests.fleet.agents import LASTING, FleetAgent, FleetOfAgents, fleet_of_agents
from tests.standin.evolution.certificates import Certificates


async def test_every_machine_answers_for_the_sessions_of_all(tmp_path: Path) -> None:
    tls = Certificates.make(tmp_path / "tls")
    env = {
        **LASTING,  # m2's lease is not over before all was asked that is asked while it is away
        "WA_AGENT_FLEET__CERTIFICATE": str(tls.folder / "good.pem"),
        "WA_AGENT_FLEET__CERTIFICATE_KEY": str(tls.folder / "good.key"),
        "WA_AGENT_FLEET__CA": str(tls.authority),
    }
    async with fleet_of_agents(["m1", "m2"], tmp_path, env=env) as fleet:
        first, second = fleet["m1"], fleet["m2"]
        await until(fleet.know_each_other)
        await created(first, fleet, "shop", on="m2")
        await created(second, fleet, "sales", on="m1")
        await until(lambda: all_connected(first))
        await sent_once(first, second)
        await heard(first, second)
        await shown(first)
        second.process.send_signal(signal.SIGHUP)
        await nothing_secret_is_logged(fleet)
        await kept_for_the_next_owner(fleet)


async def until(holds: Callable[[], Awaitable[object]], within: float = 40.0) -> None:
    async with asyncio.timeout(within):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.1)


async def created(asked: FleetAgent, fleet: FleetOfAgents, id: str, *, on: str) -> None:
    settings = {"scan": "auto", "scan_after": 0.05, "witness": fleet.witness.address}
    body = {"id": id, "engine": "sandbox", "on": on, "settings": settings}
    made = await asked.do("POST", "/api/instance", body)
    assert made["machine"] == on


async def all_connected(agent: FleetAgent) -> bool:
    found = await agent.do("GET", "/api/instances")
    states = {it["id"]: (it["machine"], it["connection_status"]) for it in found["instances"]}
    return states == {"sales": ("m1", "CONNECTED"), "shop": ("m2", "CONNECTED")}


async def sent_once(*agents: FleetAgent) -> None:
    """The same key through both machines."""
    message = {"to": "491711234567", "text": "hello"}
    answers = [
        await agent.ask(
            "POST", "/api/instance/shop/messages?wait=30", message, {"Idempotency-Key": "7"}
        )
        for agent in agents
    ]
    assert [status for status, _ in answers] == [200, 200]
    # On the Unix socket both are the same caller, `uid N`.
    assert answers[0] == answers[1]


async def heard(asked: FleetAgent, owner: FleetAgent) -> None:
    connector = aiohttp.UnixConnector(str(asked.state / "api.sock"))
    async with (
        aiohttp.ClientSession("http://localhost", connector=connector) as client,
        client.ws_connect("/api/events?instance=shop") as socket,
        asyncio.timeout(60),
    ):

        async def event() -> dict[str, Any]:
            while True:
                frame: dict[str, Any] = await socket.receive_json()
                if frame["type"] == "event" and frame["machine"] == "m2":
                    return frame

        # Again until one is heard: the machine that was asked may still connect to the owner.
        hearing = asyncio.create_task(event())
        while not hearing.done():
            await owner.do("POST", "/api/instance/shop/start")
            await asyncio.wait({hearing}, timeout=0.5)
        assert hearing.result()["instance"] == "shop"


async def shown(agent: FleetAgent) -> None:
    async def is_well() -> bool:
        found = await agent.fleet()
        reached = {it["name"]: it["reachable"] for it in found["machines"]}
        return reached == {"m1": None, "m2": True} and found["lease"]["by"] == "renewal"

    await until(is_well)
    story = await agent.do("GET", "/api/instance/shop/events")
    assert "created" in {event["kind"] for event in story["events"]}
    assert (await agent.do("GET", "/api/instance/shop/fleet"))["machine"] == "m2"


async def nothing_secret_is_logged(fleet: FleetOfAgents) -> None:
    for agent in fleet.agents.values():
        text = agent.log.read_text()
        assert fleet.key.bearer not in text
        assert CALLER not in text


async def kept_for_the_next_owner(fleet: FleetOfAgents) -> None:
    """m2 loses its power with `shop`; the stop that waits is carried out by m1, once."""
    first = fleet["m1"]
    await until(lambda: fleet.copied(["shop"]))
    await fleet["m2"].lose_power()
    status, kept = await first.ask("POST", "/api/instance/shop/stop")
    assert (status, kept["state"], kept["machine"]) == (202, "waiting", "m2"), kept
    view = await first.do("GET", "/api/instance/shop")
    assert (view["owner_away"], view["machine"]) == (True, "m2")
    status, refused = await first.ask("GET", "/api/instance/shop/screenshot")
    assert (status, refused["error"]) == (503, "owner_away"), json.dumps(refused)
    path = f"/api/fleet/commands/{kept['command']}"

    async def ended() -> bool:
        return bool((await first.do("GET", path))["state"] == "ended")

    await until(ended, 60)
    done = await first.do("GET", path)
    assert (done["outcome"], done["machine"]) == ("done", "m1"), done
    assert done["asked_by"] == f"uid {os.getuid()}"
    view = await first.do("GET", "/api/instance/shop")
    assert (view["machine"], view["should_run"]) == ("m1", False)
    fleet.check()
