"""Sessions on an Evolution server: a real agent, a real backend worker, a stand-in server."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from tests.daemon.conftest import RunningAgent, remote_settings
from tests.standin.evolution import KEY, StandIn
from tests.waiting import alive

ENDING_ROUTES = ("DELETE /instance/logout", "DELETE /instance/delete", "POST /instance/restart")


def table(standin: StandIn, **more: object) -> str:
    keys = {"name": "evo", "engine": "evolution", "url": standin.url, "key": KEY, "timeout": 2.0}
    text = "\n[[backend]]\n"
    for name, value in {**keys, "adopt": ["*"], **more}.items():
        shown = str(value).lower() if isinstance(value, bool) else repr(value)
        text += f"{name} = {shown}\n"
    return text


@pytest.fixture
async def standin(request: pytest.FixtureRequest) -> AsyncIterator[StandIn]:
    one = await StandIn.open(getattr(request, "param", "2.3.7"))
    yield one
    await one.close()


class Watched:
    """An agent that watches the stand-in, and questions about both."""

    def __init__(self, agent: RunningAgent, standin: StandIn) -> None:
        self.agent, self.standin = agent, standin

    async def statuses(self) -> dict[str, str]:
        found = (await self.agent.do("GET", "/api/instances?limit=1000"))["instances"]
        return {one["id"]: one["connection_status"] for one in found}

    async def all_connected(self, count: int) -> bool:
        found = await self.statuses()
        return len(found) == count and set(found.values()) == {"CONNECTED"}

    async def verdict(self, id: str) -> tuple[str, str]:
        health = (await self.agent.show(id))["health"]
        return health["verdict"], health["reason"]

    async def backend(self) -> Mapping[str, Any]:
        found: dict[str, Any] = await self.agent.do("GET", "/api/backends/evo")
        return found

    async def backend_word(self) -> str:
        return str((await self.backend())["reason"])

    async def new_worker(self, before: int) -> bool:
        pid = await self.worker()
        return pid not in (0, before) and bool((await self.backend())["up"])

    async def check(self, id: str) -> Mapping[str, Any]:
        """A check now: it is answered as soon as that one instance was looked at."""
        async with asyncio.timeout(30):
            found: dict[str, Any] = await self.agent.do("POST", f"/api/instance/{id}/health")
        return found

    async def told(self, id: str, kind: str, begins: str) -> bool:
        story = await self.agent.story(id)
        return any(one == kind and sentence.startswith(begins) for one, sentence in story)

    async def stayed(self, id: str) -> bool:
        """Its status was CONNECTED all the time since it first was."""
        story = await self.agent.story(id)
        return not any(one == "status" and said.startswith("CONNECTED →") for one, said in story)

    def restarted(self, name: str) -> bool:
        return self.standin.paths[f"POST /instance/restart/{name}"] > 0

    async def incident(self) -> bool:
        return bool((await self.agent.do("GET", "/api/incidents"))["incidents"])

    async def worker(self) -> int:
        return int((await self.backend())["pid"] or 0)

    def ended_anything(self) -> list[str]:
        """Requests that end or interrupt a session."""
        return [route for route in self.standin.paths if route.startswith(ENDING_ROUTES)]


@pytest.fixture
async def watch(make_agent: Callable[..., RunningAgent], standin: StandIn) -> Callable[..., Any]:
    async def begin(*sessions: str, state: str = "open", **more: object) -> Watched:
        for name in sessions:
            standin.add(name, state)
        agent = make_agent(table(standin, **more), base=remote_settings())
        await agent.start()
        return Watched(agent, standin)

    return begin


async def test_sessions_of_the_server_are_adopted_and_not_touched(watch, standin, eventually):
    one = await watch("Shop One", "line-1", "line-2")
    await eventually(lambda: one.all_connected(3))
    ids = set(await one.statuses())
    assert {"line-1", "line-2"} < ids
    (slug,) = ids - {"line-1", "line-2"}
    assert slug.startswith("shop-one-")
    assert (await one.agent.show(slug))["settings"] == {
        "backend": "evo",
        "remote": "Shop One",
        "adopted": True,
    }
    assert one.ended_anything() == []
    assert not any(route.startswith("GET /instance/connect/") for route in standin.paths)
    assert (await one.backend())["held"] == 3
    # What comes later is found as well, and only what the patterns name.
    standin.add("line-3", "open")
    await eventually(lambda: one.all_connected(4), within=45)


async def test_a_new_one_is_made_there_and_its_code_is_offered(watch, standin, eventually):
    one = await watch(webhook=False)
    wanted = {"id": "till", "engine": "evolution", "settings": {"backend": "evo"}}
    await one.agent.do("POST", "/api/instance", wanted)
    await eventually(lambda: one.agent.status("till"), "QR_REQUIRED")
    status, code = await one.agent.ask("GET", "/api/instance/till/qr")
    assert status == 200
    assert code["qr"] == standin.instances["till"].code
    assert standin.instances["till"].scan()
    await eventually(lambda: one.agent.status("till"), "CONNECTED")


async def test_f58_a_dead_backend_is_one_finding_and_costs_the_others_nothing(
    watch, standin, eventually
):
    one = await watch(*(f"line-{number}" for number in range(12)))
    await one.agent.create("local")
    await eventually(lambda: one.all_connected(13))
    await standin.front.set("refuse")
    await eventually(lambda: one.verdict("line-3"), ("disconnected", "backend_down"))
    for number in range(12):
        await eventually(
            lambda n=number: one.verdict(f"line-{n}"), ("disconnected", "backend_down")
        )
    await eventually(lambda: one.verdict("local"), ("healthy", ""))
    assert await one.stayed("local")
    shown = await one.backend()
    assert (shown["up"], shown["reason"]) == (False, "unreachable")
    # No try of their own: asked of the server itself, once in a while, and of no session.
    before, begun = sum(standin.asked.values()), time.monotonic()
    await standin.front.set("")
    await eventually(lambda: one.all_connected(13), within=40)
    asked, seconds = sum(standin.asked.values()) - before, time.monotonic() - begun
    assert asked < 12 * (2 + 2 * seconds), "its checks, and no more"
    assert one.ended_anything() == []
    for number in range(12):
        shown = await one.agent.show(f"line-{number}")
        assert shown["attempts"] == 0
        assert not [kind for kind, _ in await one.agent.story(f"line-{number}") if kind == "repair"]
    told = await one.agent.do("GET", "/api/instance/line-1/events?limit=50")
    assert told


async def test_a_wrong_key_is_named_and_nothing_is_tried_with_it(watch, eventually, standin):
    one = await watch("shop", key="not-the-key")
    await eventually(one.backend_word, "refused_key")
    assert "not-the-key" not in one.agent.log.read_text()


async def test_an_open_session_that_is_dead_is_found_and_restarted(watch, standin, eventually):
    one = await watch("shop", "other")
    await eventually(lambda: one.all_connected(2))
    standin.instances["shop"].dead = "closed"
    await eventually(lambda: one.restarted("shop"), within=40)
    standin.instances["shop"].dead = ""
    await eventually(lambda: one.verdict("shop"), ("healthy", ""), within=40)
    await eventually(lambda: one.verdict("other"), ("healthy", ""))
    assert await one.stayed("other")
    assert not any("other" in route for route in one.ended_anything())


async def test_a_logout_on_the_phone_ends_in_a_new_code_and_no_deletion(watch, standin, eventually):
    one = await watch("shop")
    await eventually(lambda: one.all_connected(1))
    standin.instances["shop"].end(401)
    await eventually(lambda: one.agent.status("shop"), "QR_REQUIRED", within=20)
    assert not any("delete" in route for route in one.ended_anything())
    assert standin.instances["shop"].scan()
    await eventually(lambda: one.all_connected(1), within=20)


async def test_a_killed_worker_comes_back_and_its_sessions_were_never_away(
    make_agent, standin, eventually
):
    for name in ("shop", "other"):
        standin.add(name, "open")
    base = remote_settings().replace("patience = 1.0", "patience = 30", 1)
    agent = make_agent(table(standin), base=base)
    await agent.start()
    one = Watched(agent, standin)
    await eventually(lambda: one.all_connected(2))
    pid = await one.worker()
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: one.new_worker(pid), within=20)
    await eventually(lambda: one.all_connected(2))
    assert await one.stayed("shop") and await one.stayed("other")
    assert one.ended_anything() == []


async def test_a_killed_agent_finds_its_backend_workers_again(watch, standin, eventually):
    one = await watch("shop", "other")
    await eventually(lambda: one.all_connected(2))
    pid = await one.worker()
    await one.agent.kill()
    assert alive(pid)
    await one.agent.start()
    await eventually(lambda: one.all_connected(2))
    assert await one.worker() == pid
    assert await one.stayed("shop"), await one.agent.story("shop")


async def test_stopping_the_agent_ends_the_worker_and_no_session(watch, standin, eventually):
    one = await watch("shop", "other")
    await eventually(lambda: one.all_connected(2))
    pid = await one.worker()
    assert await one.agent.stop() == 0
    assert not alive(pid)
    assert {each.state for each in standin.instances.values()} == {"open"}
    assert one.ended_anything() == []
    await one.agent.start()
    await eventually(lambda: one.all_connected(2))


async def test_a_session_stopped_or_deleted_here_lives_on_at_its_server(watch, standin, eventually):
    one = await watch("shop", "other", adopt=[])
    await eventually(one.backend_word, "")
    for name in ("shop", "other"):
        await one.agent.do("POST", "/api/backends/evo/adopt", {"remote": name})
    await eventually(lambda: one.all_connected(2))
    await one.agent.do("POST", "/api/instance/shop/stop")
    await eventually(lambda: one.verdict("shop"), ("disconnected", "stopped"))
    await one.agent.do("DELETE", "/api/instance/other")
    assert {each.state for each in standin.instances.values()} == {"open"}
    assert one.ended_anything() == []

    async def held() -> int:
        return int((await one.backend())["held"])

    await eventually(held, 0)  # it is shown as stopped as soon as that is wanted


async def test_sessions_that_changed_places_on_their_server_are_told_until_it_is_put_right(
    watch, standin, eventually
):
    one = await watch("desk", "shop")
    await eventually(lambda: one.all_connected(2))
    shop, desk = standin.instances["shop"], standin.instances["desk"]
    own, others = (instance.wuid.split("@")[0] for instance in (shop, desk))

    async def account() -> str:
        return str((await one.agent.show("shop"))["account"])

    await eventually(account, own)
    shop.number, desk.number = others, own
    await standin.restart_process()
    await eventually(lambda: one.verdict("shop"), ("disconnected", "other_account"), within=60)
    assert await account() == own
    assert await one.told("shop", "status", "CONNECTED → AUTH_FAILURE") or await one.told(
        "shop", "status", "RECONNECTING → AUTH_FAILURE"
    ), await one.agent.story("shop")
    assert one.ended_anything() == []
    shop.number, desk.number = own, others
    await standin.restart_process()
    await eventually(lambda: one.all_connected(2), within=60)


def reload(agent, text: str) -> None:
    agent.config.write_text(text)
    agent.process.send_signal(signal.SIGHUP)


async def test_a_backend_that_was_added_to_the_file_is_watched_at_once(make_agent, eventually):
    first, second = await StandIn.open(), await StandIn.open()
    second.add("till", "connecting")
    try:
        agent = make_agent(table(first))
        await agent.start()
        added = table(second, name="desk")
        reload(agent, agent.config.read_text() + added)

        async def up() -> list[str]:
            found = (await agent.do("GET", "/api/backends"))["backends"]
            return sorted(each["name"] for each in found if each["up"])

        await eventually(up, ["desk", "evo"])

        async def statuses() -> dict[str, str]:
            found = (await agent.do("GET", "/api/instances"))["instances"]
            return {each["id"]: each["connection_status"] for each in found}

        await eventually(statuses, {"till": "QR_REQUIRED"}, within=30)
        assert "takes effect at the agent's next start" not in agent.log.read_text()
        reload(agent, agent.config.read_text().replace(added, ""))
        wanted = "[[backend]] desk takes effect at the agent's next start"
        await eventually(lambda: wanted in agent.log.read_text())
    finally:
        await first.close()
        await second.close()
