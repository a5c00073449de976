"""Sessions on an Evolution server, from outside: the whole agent and a stand-in of the server."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from agent.backends.evolution import Session
from agent.backends.evolution_calls import EvolutionCalls
from agent.clock import boot_now
from tests.standin.evolution import KEY, StandIn
from tests.world.virtual import kill
from tests.world.world import WorldAgent

ENDING_ROUTES = ("DELETE /instance/logout", "DELETE /instance/delete", "POST /instance/restart")


def table(standin: StandIn, **more: object) -> str:
    keys = {"name": "evo", "engine": "evolution", "url": standin.url, "key": KEY}
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

    def __init__(self, agent: WorldAgent, standin: StandIn) -> None:
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

    async def told(self, id: str, kind: str, begins: str) -> bool:
        story = await self.agent.story(id)
        return any(one == kind and sentence.startswith(begins) for one, sentence in story)

    async def stayed(self, id: str) -> bool:
        """True if the session's status has never left CONNECTED since it first was that."""
        story = await self.agent.story(id)
        return not any(one == "status" and said.startswith("CONNECTED →") for one, said in story)

    def ended_anything(self) -> list[str]:
        """Requests that end or interrupt a session."""
        return [route for route in self.standin.paths if route.startswith(ENDING_ROUTES)]


@pytest.fixture
async def watch(make_agent: Callable[..., WorldAgent], standin: StandIn) -> Callable[..., Any]:
    async def begin(
        *sessions: str, state: str = "open", settings: str = "", **more: object
    ) -> Watched:
        for name in sessions:
            standin.add(name, state)
        agent = make_agent(settings + table(standin, **more))
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
    # A session that comes later is found as well, but only if a pattern names it.
    standin.add("line-3", "open")
    await eventually(lambda: one.all_connected(4))


async def test_a_blink_or_a_slow_server_restarts_no_session(watch, standin, eventually):
    one = await watch(*(f"line-{number}" for number in range(12)))
    await eventually(lambda: one.all_connected(12))
    await asyncio.sleep(300)
    for seconds in (8, 9, 13):
        await standin.front.set("failing")
        await asyncio.sleep(seconds)
        await standin.front.set("slow", 2.0, only="fetchBusinessProfile")
        await eventually(lambda: one.all_connected(12))
        await asyncio.sleep(100)
    await standin.front.set("slow", 7.0)
    await asyncio.sleep(600)
    assert one.ended_anything() == []


async def test_slow_sessions_delay_no_start_of_a_quick_one(watch, standin, eventually):
    await standin.front.set("slow", 30, only="Profile/a-slow")
    slow = (f"a-slow-{number}" for number in range(20))
    one = await watch(*slow, *(quick := [f"quick-{number}" for number in range(10)]), parallel=12)
    for id in quick:
        await eventually(lambda id=id: one.verdict(id), ("healthy", ""), within=60)


@pytest.mark.parametrize(("path", "seconds"), [("/slow", 7), ("Profile/slow", 11)])
async def test_a_slow_session_is_not_repaired(watch, standin, eventually, path, seconds):
    one = await watch("slow", "other", settings="[recovery]\nrounds = 1\ntries = 1\n")
    await eventually(lambda: one.all_connected(2))
    await standin.front.set("slow", seconds, only=path)
    await asyncio.sleep(1200)
    assert one.ended_anything() == []


async def test_f58_a_dead_backend_is_one_finding_and_costs_the_others_nothing(
    watch, standin, eventually
):
    one = await watch(*(f"line-{number}" for number in range(12)))
    await one.agent.create("local")
    await eventually(lambda: one.all_connected(13))
    await standin.front.set("refuse")
    for number in range(12):
        await eventually(
            lambda n=number: one.verdict(f"line-{n}"), ("disconnected", "backend_down")
        )
    await eventually(lambda: one.verdict("local"), ("healthy", ""))
    assert await one.stayed("local")
    shown = await one.backend()
    assert (shown["up"], shown["reason"]) == (False, "unreachable")
    # No try of their own: asked of the server itself, once in a while, and of no session.
    before, begun = sum(standin.asked.values()), boot_now()
    await standin.front.set("")
    await eventually(lambda: one.all_connected(13))
    asked, seconds = sum(standin.asked.values()) - before, boot_now() - begun
    assert asked < 12 * (2 + 2 * seconds), "its checks, and no more"
    assert one.ended_anything() == []
    for number in range(12):
        assert (await one.agent.show(f"line-{number}"))["attempts"] == 0
        assert not [kind for kind, _ in await one.agent.story(f"line-{number}") if kind == "repair"]


@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_the_next_agent_watches_on_and_logs_none_in(watch, standin, eventually, end):
    one = await watch("shop", "other")
    await eventually(lambda: one.all_connected(2))
    run = await one.agent.run_of("shop")
    await (one.agent.kill() if end == "kill" else one.agent.stop())
    assert {each.state for each in standin.instances.values()} == {"open"}
    await one.agent.start()
    await eventually(lambda: one.all_connected(2))
    assert await one.stayed("shop"), await one.agent.story("shop")
    assert await one.agent.run_of("shop") == run, "it was started again"
    assert one.ended_anything() == []
    assert not any(route.startswith("GET /instance/connect/") for route in standin.paths)


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


async def test_a_new_pairing_is_not_ended_by_the_order_that_ended_the_old_one(
    make_agent, standin, eventually, monkeypatch
):
    shop = standin.add("shop", "open")
    agent = make_agent(table(standin))
    await agent.start()
    one, log_out = Watched(agent, standin), EvolutionCalls.logout
    await eventually(lambda: one.all_connected(1))

    async def log_out_and_die(self, name):
        await log_out(self, name)
        kill(agent._run)

    monkeypatch.setattr(EvolutionCalls, "logout", log_out_and_die)
    await agent.dies(agent.do("POST", "/api/instance/shop/cleanup", {"confirm": True}))
    monkeypatch.undo()
    await eventually(lambda: shop.state, "close")
    shop.connect()
    await eventually(shop.scan)
    await eventually(lambda: shop.state, "open")
    ended = one.ended_anything()
    await agent.start()
    await asyncio.sleep(600)
    assert (one.ended_anything(), shop.state) == (ended, "open")
    assert await agent.status("shop") == "CONNECTED"


async def test_a_backend_that_was_added_to_the_file_is_watched_at_once(
    make_agent, eventually, caplog
):
    first, second = await StandIn.open(), await StandIn.open()
    second.add("till", "connecting")
    try:
        agent = make_agent(table(first))
        await agent.start()
        added = table(second, name="desk")
        agent.reload(agent.config.read_text() + added)

        async def up() -> list[str]:
            found = (await agent.do("GET", "/api/backends"))["backends"]
            return sorted(each["name"] for each in found if each["up"])

        await eventually(up, ["desk", "evo"])

        async def statuses() -> dict[str, str]:
            found = (await agent.do("GET", "/api/instances"))["instances"]
            return {each["id"]: each["connection_status"] for each in found}

        await eventually(statuses, {"till": "QR_REQUIRED"})
        assert "takes effect at the agent's next start" not in caplog.text
        agent.reload(agent.config.read_text().replace(added, ""))
        wanted = "[[backend]] desk takes effect at the agent's next start"
        await eventually(lambda: wanted in caplog.text)
    finally:
        await first.close()
        await second.close()


async def test_a_session_whose_probes_fail_by_a_fault_of_the_agent_is_not_called_healthy(
    watch, standin, eventually, monkeypatch
):
    one = await watch("shop", "other")
    await eventually(lambda: one.all_connected(2))
    look = Session.look

    async def faulty(self, *, deep=False):
        if self.name == "shop":
            raise KeyError(self.name)
        return await look(self, deep=deep)

    with monkeypatch.context() as patched:
        patched.setattr(Session, "look", faulty)
        await eventually(lambda: one.told("shop", "verdict", "disconnected"))
    await eventually(lambda: one.verdict("shop"), ("healthy", ""))
    assert await one.stayed("other")


async def test_one_that_lost_its_pairing_unseen_shows_a_code_in_the_end(watch, standin, eventually):
    one = await watch("shop")
    await eventually(lambda: one.all_connected(1))
    await one.agent.stop()
    standin.instances["shop"].end(401)
    standin.instances["shop"].drop(408)  # the row tells of this end only
    await one.agent.start()
    await eventually(lambda: one.verdict("shop"), ("corrupted", "unpaired_suspect"))
    await eventually(lambda: one.verdict("shop"), ("disconnected", "waiting_for_scan"))
    assert standin.instances["shop"].scan()
