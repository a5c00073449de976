"""Sessions on an Evolution server: a real agent, a real backend worker, a stand-in server."""

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import QUICK, SETTINGS, RunningAgent, remote_settings
from tests.ports import free_port
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


async def test_only_what_matches_is_adopted_and_one_is_taken_in_by_name(watch, eventually):
    one = await watch("shop-1", "shop-2", "desk-1", adopt=["shop-*"])
    await eventually(lambda: one.all_connected(2))
    listed = await one.agent.do("GET", "/api/backends/evo/sessions")
    assert {row["remote"]: row["instance"] for row in listed["sessions"]} == {
        "shop-1": "shop-1",
        "shop-2": "shop-2",
        "desk-1": None,
    }
    await one.agent.do("POST", "/api/backends/evo/adopt", {"remote": "desk-1", "id": "till"})
    await eventually(lambda: one.all_connected(3))
    status, told = await one.agent.ask("POST", "/api/backends/evo/adopt", {"remote": "desk-1"})
    assert (status, told["error"]) == (409, "adopted"), told
    status, told = await one.agent.ask("POST", "/api/backends/evo/adopt", {"remote": "nobody"})
    assert status == 404


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


async def test_one_that_a_slow_server_could_not_be_asked_for_is_made_once_it_answers(
    watch, standin, eventually
):
    """Its start could not look, so it failed: the session is to be made, and is not gone."""
    one = await watch(webhook=False)
    await eventually(one.backend_word, "")
    await standin.front.set("slow", seconds=2.5, only="/instance/")
    wanted = {"id": "till", "engine": "evolution", "settings": {"backend": "evo"}}
    await one.agent.do("POST", "/api/instance", wanted)

    async def failed() -> bool:
        story = await one.agent.story("till")
        return any(sentence.startswith("start: failed") for _, sentence in story)

    await eventually(failed)
    assert "till" not in standin.instances
    await standin.front.set("")
    await eventually(lambda: one.agent.status("till"), "QR_REQUIRED", within=60)
    reasons = [sentence for _, sentence in await one.agent.story("till")]
    assert not any("no session of that name" in sentence for sentence in reasons), reasons


async def test_setup_answers_with_a_code_for_a_session_on_a_backend(watch, standin):
    one = await watch()
    wanted = {"name": "till", "instanceName": "till", "engine": "evolution", "backend": "evo"}
    told = await one.agent.do("POST", "/api/v1/whatsapp/setup?wait=120", wanted)
    assert told["qr"] == standin.instances["till"].code, told


async def test_a_place_that_is_taken_unknown_or_of_another_kind_is_refused(watch, eventually):
    one = await watch("shop")
    await eventually(lambda: one.all_connected(1))
    for settings, engine, code in (
        ({"backend": "evo", "remote": "shop"}, "evolution", "adopted"),
        ({"backend": "nobody"}, "evolution", "unknown_backend"),
        ({}, "evolution", "unknown_backend"),
        ({"backend": "evo"}, "whaticket", "wrong_engine"),
        ({"backend": "evo"}, "sandbox", "invalid_request"),
    ):
        body = {"id": "b", "engine": engine, "settings": settings}
        status, told = await one.agent.ask("POST", "/api/instance", body)
        assert status >= 400
        assert told["error"] == code, (settings, told)
    assert list(await one.statuses()) == ["shop"]


async def test_the_servers_own_word_arrives_at_once(make_agent, standin, eventually):
    """Polling is only the net: here it comes once a minute."""
    slow = SETTINGS.replace("interval = 1\n", "interval = 60\n", 1) + QUICK
    base_url = f"http://127.0.0.1:{free_port()}"
    agent = make_agent(table(standin, webhook=True, webhook_url=base_url), base=slow)
    agent.listen = base_url.removeprefix("http://")
    standin.add("shop", "open")
    await agent.start()
    one = Watched(agent, standin)
    await eventually(lambda: one.all_connected(1))
    # The address that it was told to call carries a secret of ours.
    await eventually(lambda: standin.instances["shop"].webhook is not None)
    standin.instances["shop"].end(401)
    await eventually(lambda: one.agent.status("shop"), "QR_REQUIRED", within=20)
    reasons = [sentence for kind, sentence in await agent.story("shop") if kind == "status"]
    assert any("removed this linked device" in sentence for sentence in reasons), reasons


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


AWAY = {
    "reset": "unreachable",
    "black_hole": "timeout",
    "garbage": "garbage",
    "html": "garbage",
    "failing": "failing",
    "licence": "licence_missing",
}
"""What the server does, and by which word it is known."""


async def test_f58_f59_every_way_of_being_away_is_known_by_its_word(make_agent, eventually):
    """A server for each of them: they are away, and come back, side by side."""
    async with contextlib.AsyncExitStack() as stack:
        servers: dict[str, StandIn] = {}
        for fault in AWAY:
            name = fault.replace("_", "-")
            servers[name] = await StandIn.open()
            stack.push_async_callback(servers[name].close)
            servers[name].add(f"at-{name}", "open")
        tables = (table(server, name=name) for name, server in servers.items())
        agent = make_agent("".join(tables), base=remote_settings())
        await agent.start()
        several = [Watched(agent, server) for server in servers.values()]
        await eventually(lambda: several[0].all_connected(len(AWAY)), within=40)
        for fault, server in zip(AWAY, servers.values(), strict=True):
            await server.front.set(fault)
        for name in servers:
            down = ("disconnected", "backend_down")
            await eventually(lambda n=name: several[0].verdict(f"at-{n}"), down, within=40)

        async def words() -> list[str]:
            return [(await agent.do("GET", f"/api/backends/{name}"))["reason"] for name in servers]

        await eventually(words, list(AWAY.values()))
        for server in servers.values():
            await server.front.set("")
        await eventually(lambda: several[0].all_connected(len(AWAY)), within=40)
        assert [one.ended_anything() for one in several] == [[]] * len(several)


async def test_a_wrong_key_is_named_and_nothing_is_tried_with_it(watch, eventually, standin):
    one = await watch("shop", key="not-the-key")
    await eventually(one.backend_word, "refused_key")
    assert "not-the-key" not in one.agent.log.read_text()


async def test_f57_a_slow_backend_delays_no_other_session(watch, standin, eventually, pauses):
    one = await watch(*(f"line-{number}" for number in range(150)))
    await one.agent.create("local")
    await eventually(lambda: one.all_connected(151), within=60)
    await standin.front.set("slow", seconds=1.5)
    # Each of its answers takes longer than the local checks' interval, 150 times over.
    for _ in range(3):
        begun, still = time.monotonic(), pauses.total
        assert (await one.check("local"))["healthy"]
        assert time.monotonic() - begun < 2.0 + pauses.total - still
    await eventually(lambda: one.verdict("local"), ("healthy", ""))
    assert await one.stayed("local")
    await standin.front.set("")


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


async def test_a_session_that_hangs_while_it_connects_is_restarted(watch, standin, eventually):
    one = await watch("shop", "other")
    await eventually(lambda: one.all_connected(2))
    standin.instances["shop"].stuck = True
    standin.instances["shop"].restart()
    await eventually(lambda: one.restarted("shop"), within=40)
    standin.instances["shop"].stuck = False
    await eventually(lambda: one.verdict("shop"), ("healthy", ""), within=60)
    assert standin.instances["shop"].creds, "its pairing was kept"
    assert not any("other" in route for route in one.ended_anything())


async def test_half_of_them_stuck_is_one_incident_and_the_other_half_is_left_alone(
    watch, standin, eventually
):
    names = [f"line-{number}" for number in range(8)]
    one = await watch(*names)
    await eventually(lambda: one.all_connected(8))
    sick, well = names[:4], names[4:]
    for name in sick:
        standin.instances[name].stuck = True
        standin.instances[name].restart()
    await eventually(one.incident, within=40)
    for name in sick:
        standin.instances[name].stuck = False
        standin.instances[name].restart()
    await eventually(lambda: one.all_connected(8), within=60)
    await eventually(one.incident, False, within=40)
    assert all(standin.instances[name].creds for name in names), "no pairing was given up"
    assert not any(name in route for route in one.ended_anything() for name in well)


async def test_a_session_deleted_on_its_server_is_left_to_a_person(watch, standin, eventually):
    one = await watch("shop")
    await eventually(lambda: one.all_connected(1))
    standin.remove("shop")
    await eventually(lambda: one.verdict("shop"), ("not_found", "remote_missing"), within=20)
    assert "shop" not in standin.instances, "nothing is made again by itself"
    told = await one.agent.do("POST", "/api/instance/shop/ensure-healthy?wait=120")
    assert not told["healthy"], "it was adopted: a person says that it is to be made"
    assert "wa-agent ensure-healthy shop --yes" in told["sentence"]
    assert "shop" not in standin.instances
    path = "/api/instance/shop/ensure-healthy?wait=120"
    told = await one.agent.do("POST", path, {"confirm": True})
    assert told["healthy"], told
    assert "shop" in standin.instances
    assert await one.agent.status("shop") == "QR_REQUIRED"


async def test_two_routes_that_contradict_each_other_are_corruption_and_are_repaired(
    watch, standin, eventually
):
    one = await watch("shop")
    await eventually(lambda: one.all_connected(1))
    standin.instances["shop"].row.set(connectionStatus="close")
    await eventually(lambda: one.told("shop", "verdict", "corrupted"), within=90)
    await eventually(lambda: one.verdict("shop"), ("healthy", ""), within=40)


async def test_a_logout_on_the_phone_ends_in_a_new_code_and_no_deletion(watch, standin, eventually):
    one = await watch("shop")
    await eventually(lambda: one.all_connected(1))
    standin.instances["shop"].end(401)
    await eventually(lambda: one.agent.status("shop"), "QR_REQUIRED", within=20)
    assert not any("delete" in route for route in one.ended_anything())
    assert standin.instances["shop"].scan()
    await eventually(lambda: one.all_connected(1), within=20)


async def test_a_logout_is_done_although_its_new_code_comes_before_the_answer(
    make_agent, standin, eventually
):
    """The webhook tells it, and the agent connects again while the logout still looks."""
    base_url = f"http://127.0.0.1:{free_port()}"
    shop = standin.add("shop", "open")
    agent = make_agent(table(standin, webhook=True, webhook_url=base_url), base=remote_settings())
    agent.listen = base_url.removeprefix("http://")
    await agent.start()
    await eventually(lambda: shop.webhook is not None)
    await eventually(lambda: agent.status("shop"), "CONNECTED")
    await agent.do("POST", "/api/instance/shop/logout", {"confirm": True})
    await eventually(lambda: agent.status("shop"), "QR_REQUIRED")
    assert not shop.creds


async def test_a_cleanup_deletes_there_and_begins_afresh(watch, standin, eventually):
    one = await watch("shop", "other")
    await eventually(lambda: one.all_connected(2))
    before = standin.instances["shop"]
    other = standin.instances["other"].shown()
    await one.agent.do("POST", "/api/instance/shop/cleanup?wait=120", {"confirm": True})
    await eventually(lambda: one.agent.status("shop"), "QR_REQUIRED", within=20)
    assert standin.instances["shop"] is not before
    assert standin.instances["other"].shown() == other
    await eventually(lambda: one.verdict("other"), ("healthy", ""))
    assert await one.stayed("other")
    kinds = [kind for kind, _ in await one.agent.story("shop")]
    assert "repair" in kinds
    assert "repair_over" in kinds


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


async def test_a_session_deleted_here_is_not_listed_again_but_may_be_adopted(
    watch, standin, eventually
):
    one = await watch("shop", "other")
    await eventually(lambda: one.all_connected(2))
    await one.agent.do("DELETE", "/api/instance/shop")
    # Its list is read again when something new is found in it.
    standin.add("third", "open")
    await eventually(lambda: one.all_connected(2), within=45)
    assert set(await one.statuses()) == {"other", "third"}
    await one.agent.do("POST", "/api/backends/evo/adopt", {"remote": "shop"})
    await eventually(lambda: one.all_connected(3))
    assert standin.instances["shop"].state == "open"


async def test_an_order_to_adopt_is_kept_while_the_server_gives_no_list(watch, standin, eventually):
    one = await watch("shop", "other", adopt=["other"])
    await eventually(lambda: one.all_connected(1))
    await standin.front.set("failing", only="fetchInstances")
    order = {"remote": "shop", "id": "till"}
    status, told = await one.agent.ask("POST", "/api/backends/evo/adopt", order)
    assert (status, told["error"]) == (503, "backend_down"), told
    assert "the order to adopt 'shop' is kept" in told["message"]
    await one.agent.kill()
    await standin.front.set("")
    await one.agent.start()
    await eventually(lambda: one.all_connected(2), within=45)
    assert set(await one.statuses()) == {"other", "till"}
    assert one.ended_anything() == []


async def test_new_settings_reach_a_worker_that_already_runs(
    make_agent, standin, eventually, tmp_path: Path
):
    standin.add("shop", "open")
    agent = make_agent(table(standin, key="an-old-key"), base=remote_settings())
    await agent.start()
    one = Watched(agent, standin)
    await eventually(one.backend_word, "refused_key")
    await agent.kill()
    agent.config.write_text(remote_settings() + table(standin))
    await agent.start()
    await eventually(lambda: one.all_connected(1), within=20)


async def test_a_wrong_key_is_named_wherever_its_backend_is_and_a_reload_reads_the_right_one(
    make_agent, standin, eventually, tmp_path: Path
):
    key = tmp_path / "evo.key"
    key.write_text("a-wrong-key\n")
    key.chmod(0o600)
    text = table(standin, key_file=str(key)).replace(f"key = {KEY!r}\n", "")
    agent = make_agent(text, base=remote_settings())
    await agent.start()
    one = Watched(agent, standin)
    await eventually(one.backend_word, "refused_key")
    wanted = {"id": "till", "engine": "evolution", "settings": {"backend": "evo"}}
    await agent.do("POST", "/api/instance", wanted)

    # Whichever of its requests is refused first, the sentence ends in the cause.
    cause = re.compile(r"its backend is down: cannot [^:]+: it refuses the key")

    async def why() -> bool:
        return cause.search((await agent.show("till"))["health"]["sentence"]) is not None

    await eventually(why, True)
    listed = (await agent.do("GET", "/api/instances"))["instances"]
    assert cause.search(str(listed))
    status, told = await agent.ask("POST", "/api/instance/till/ensure-healthy")
    assert (status, told["error"]) == (503, "backend_down"), told
    assert "it refuses the key" in told["message"]
    down = r"backend (evo: it )?is down: cannot [^:]+: it refuses the key"
    assert re.search(down, agent.log.read_text())
    entries = (await agent.do("GET", "/api/events?limit=200"))["events"]
    assert any("it refuses the key" in entry["sentence"] for entry in entries)
    key.write_text(KEY + "\n")
    agent.process.send_signal(signal.SIGHUP)
    await eventually(lambda: agent.status("till"), "QR_REQUIRED", within=60)
    assert "backend evo: its worker starts again with the key" in agent.log.read_text()


async def test_a_backend_that_is_no_longer_declared_is_said_so(make_agent, standin, eventually):
    standin.add("shop", "open")
    agent = make_agent(table(standin), base=remote_settings())
    await agent.start()
    one = Watched(agent, standin)
    await eventually(lambda: one.all_connected(1))
    await agent.stop()
    agent.config.write_text(remote_settings())
    await agent.start()
    await eventually(lambda: one.verdict("shop"), ("disconnected", "backend_missing"))


async def test_an_adopted_one_that_was_never_looked_at_well_is_not_made_after_its_deletion(
    watch, standin, eventually
):
    """Its starts failed, so nothing of it was recorded when a person deleted it on the server."""
    await standin.front.set("failing", only="/instance/connectionState")
    one = await watch("shop")

    async def failed() -> bool:
        if "shop" not in await one.statuses():
            return False
        return any(said.startswith("start: failed") for _, said in await one.agent.story("shop"))

    await eventually(failed)
    standin.remove("shop")
    await standin.front.set("")
    await eventually(lambda: one.verdict("shop"), ("not_found", "remote_missing"), within=60)
    assert standin.asked["POST /instance/create"] == 0
    assert (await one.agent.show("shop"))["settings"]["adopted"] is True


async def test_a_server_without_the_route_of_the_proof_has_one_finding_and_open_sessions(
    watch, standin, eventually
):
    standin.without = "/chat/"
    one = await watch("shop", "desk")
    for id in ("shop", "desk"):

        async def adopted(id=id):
            return id in await one.statuses()

        await eventually(adopted)
        await eventually(lambda id=id: one.verdict(id), ("degraded", "no_proof"))
        assert "prove = false" in (await one.agent.show(id))["health"]["sentence"]
    assert await one.all_connected(2)
    found = await one.backend()
    assert found["up"]
    assert "no route POST /chat/fetchBusinessProfile" in found["sentence"], found
    assert one.ended_anything() == []
    standin.without = ""
    for id in ("shop", "desk"):
        await eventually(lambda id=id: one.verdict(id), ("healthy", ""))


async def test_a_logout_that_was_asked_for_is_told_as_such_everywhere(watch, eventually):
    one = await watch("shop")
    await eventually(lambda: one.all_connected(1))
    await one.agent.do("POST", "/api/instance/shop/logout", {"confirm": True})
    await eventually(lambda: one.agent.status("shop"), "QR_REQUIRED", within=30)
    story = [sentence for _, sentence in await one.agent.story("shop")]
    assert any("logged out as asked" in sentence for sentence in story), story
    assert not any("removed this linked device" in sentence for sentence in story), story


async def test_what_the_agent_deleted_to_make_it_again_is_made_after_both_were_killed(
    watch, standin, eventually
):
    one = await watch("shop")
    await eventually(lambda: one.all_connected(1))
    token = standin.instances["shop"].token
    await standin.front.set("failing", only="/instance/create")
    await one.agent.ask("POST", "/api/instance/shop/cleanup?wait=0", {"confirm": True})
    await eventually(lambda: standin.paths["POST /instance/create"] > 0, within=30)
    pid = await one.worker()
    await one.agent.kill()
    os.kill(pid, signal.SIGKILL)
    assert "shop" not in standin.instances
    await standin.front.set("")
    await one.agent.start()
    await eventually(lambda: one.agent.status("shop"), "QR_REQUIRED", within=60)
    assert standin.instances["shop"].token == token


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


async def test_what_was_asked_for_as_a_server_went_away_is_refused_and_never_done_later(
    make_agent, standin, eventually
):
    for name in ("desk", "shop", "till"):
        standin.add(name, "open")
    base = remote_settings().replace("patience = 1.0", "patience = 3.0")
    one = Watched(make_agent(table(standin), base=base), standin)
    await one.agent.start()
    await eventually(lambda: one.all_connected(3))
    await standin.front.set("refuse")
    cleanup = asyncio.create_task(
        one.agent.ask("POST", "/api/instance/shop/cleanup", {"confirm": True})
    )

    async def noticed() -> bool:
        return (await one.verdict("till"))[1] in ("unmeasured", "backend_down")

    await eventually(noticed, within=30)
    setup = {"name": "till", "instanceName": "till", "engine": "evolution", "backend": "evo"}
    answers = await asyncio.gather(
        cleanup,
        one.agent.ask("POST", "/api/instance/desk/recover"),
        one.agent.ask("POST", "/api/v1/whatsapp/setup?wait=120", setup),
    )
    assert [(status, told["error"]) for status, told in answers] == [(503, "backend_down")] * 3
    await standin.front.set("")
    await eventually(lambda: one.all_connected(3), within=60)
    await eventually(lambda: one.told("shop", "repair_over", ""), within=60)
    assert one.ended_anything() == []
