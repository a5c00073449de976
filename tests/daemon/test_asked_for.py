"""What a person asks for is answered within its time, with what is so."""

import asyncio
import time

import pytest

from tests.daemon.conftest import remote_settings
from tests.daemon.test_backends import Watched, table
from tests.standin.evolution import StandIn

SETUP = "/api/v1/whatsapp/setup?wait=120"


@pytest.fixture
async def standin():
    one = await StandIn.open()
    yield one
    await one.close()


@pytest.fixture
async def one(make_agent, standin, eventually):
    """An agent whose only backend has no session of ours yet."""
    agent = make_agent(table(standin, adopt=[], webhook=False), base=remote_settings())
    await agent.start()
    watched = Watched(agent, standin)

    async def up():
        return (await watched.backend())["up"]

    await eventually(up)
    return watched


async def test_three_set_ups_of_one_new_name_join_and_get_the_same_code(one, standin):
    body = {"name": "Till", "instanceName": "till"}
    answers = await asyncio.gather(*(one.agent.ask("POST", SETUP, body) for _ in range(3)))
    assert [status for status, _ in answers] == [200] * 3, answers
    assert {told["qr"] for _, told in answers} == {standin.instances["till"].code}
    assert [told["created"] for _, told in answers].count(True) == 1


async def test_without_an_engine_the_only_backend_is_meant(one, standin):
    standin.add("test_corrupted", "connecting")
    body = {"name": "Test", "instanceName": "test_corrupted"}
    told = await one.agent.do("POST", SETUP, body)
    assert told["qr"] == standin.instances["test_corrupted"].code
    assert (await one.agent.show("test_corrupted"))["settings"]["backend"] == "evo"


async def test_of_a_server_that_is_away_a_set_up_says_so_within_seconds(
    one, standin, eventually, pauses
):
    await standin.front.set("refuse")
    await eventually(one.backend_word, "unreachable", within=40)
    begun, still = time.monotonic(), pauses.total
    status, told = await one.agent.ask("POST", SETUP, {"name": "Till", "instanceName": "till"})
    assert (status, told["error"]) == (503, "backend_down"), told
    assert time.monotonic() - begun < 20 + pauses.total - still
    status, told = await one.agent.ask("POST", "/api/instance/till/ensure-healthy?wait=120")
    assert (status, told["error"]) == (503, "backend_down"), told


async def test_set_ups_while_whatsapp_is_silent_say_so_soon_with_what_is_waited_for(one, standin):
    standin.silent = True
    begun = time.monotonic()
    bodies = [{"name": name, "instanceName": name} for name in ("a", "b", "c", "d")]
    answers = await asyncio.gather(*(one.agent.ask("POST", SETUP, body) for body in bodies))
    assert time.monotonic() - begun < 90, "not only when the time of a set-up is over"
    for status, told in answers:
        assert (status, told["error"]) == (503, "whatsapp_away"), told
        assert "wa-agent qr" in told["message"]


async def test_a_set_up_whose_server_shows_a_code_once_it_is_made_again_waits_for_it(one, standin):
    names = ("a", "b", "c", "d")
    for name in names:
        standin.add(name, "close").stuck = True
    bodies = [{"name": name, "instanceName": name, "confirm": True} for name in names]
    answers = await asyncio.gather(*(one.agent.ask("POST", SETUP, body) for body in bodies))
    assert [status for status, _ in answers] == [200] * 4, answers


async def test_a_logout_that_ends_a_pairing_is_confirmed_as_a_clean_up_is(agent, eventually):
    await agent.create("a")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    status, told = await agent.ask("POST", "/api/instance/a/logout")
    assert (status, told["error"], told["field"]) == (409, "would_unpair", "confirm")
    await agent.do("PATCH", "/api/instance/a", {"settings": {"scan": "manual"}})
    await agent.do("POST", "/api/instance/a/logout", {"confirm": True})
    await eventually(lambda: agent.status("a"), "QR_REQUIRED", within=20)


async def test_a_logout_of_a_session_without_a_pairing_is_refused_and_its_code_stays(
    agent, eventually
):
    await agent.create("a", scan="manual", qr_every=600)
    await eventually(lambda: agent.status("a"), "QR_REQUIRED")
    before = await agent.pid("a")
    for body in ({}, {"confirm": True}):
        status, told = await agent.ask("POST", "/api/instance/a/logout", body)
        assert (status, told["error"]) == (409, "not_paired"), told
        assert "wa-agent qr a" in told["message"]
    assert (await agent.do("GET", "/api/instance/a/qr"))["qr"]
    assert await agent.pid("a") == before


async def test_a_forced_reconnect_connects_a_connected_session_again(agent, eventually):
    await agent.create("a")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    before = await agent.pid("a")
    await agent.do("POST", "/force-reconnection/a")
    await eventually(lambda: agent.is_back("a", before))


async def test_enabling_a_banned_session_does_not_log_it_in(agent, eventually):
    await agent.create("a")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    await agent.fault("a", "ban")
    await eventually(lambda: agent.status("a"), "AUTH_FAILURE")

    async def stopped():
        return any(told.startswith("stop: done") for _, told in await agent.story("a"))

    await eventually(stopped)
    assert (await agent.show("a"))["unit"]["state"] == "inactive"
    before = await agent.story("a")
    await agent.do("POST", "/api/instance/a/enable")
    await agent.do("POST", "/api/instance/a/health")
    assert await agent.status("a") == "AUTH_FAILURE"
    enabled = ("enabled", "an operator enabled it; it was enabled already")
    assert (await agent.story("a"))[len(before) :] == [enabled]


async def test_a_set_up_is_answered_within_its_wait_with_its_state_and_where_to_look(one, standin):
    standin.silent = True
    body = {"name": "Slow", "instanceName": "slow"}
    status, told = await one.agent.ask("POST", SETUP.replace("120", "0"), body)
    assert status == 202, told
    assert (told["created"], told["qr"], told["ending"]) == (True, None, "goes_on"), told
    assert told["status"] not in ("CONNECTED", "QR_REQUIRED")
    assert told["look"]["qr"] == "/api/instance/slow/qr"
    status, told = await one.agent.ask("POST", "/api/instance/slow/ensure-healthy?wait=0")
    assert (status, told["ending"]) == (202, "goes_on"), told
    assert "repair" not in [kind for kind, _ in await one.agent.story("slow")], "it starts"


async def test_a_server_that_is_slow_at_each_request_is_given_the_time_to_show_a_code(one, standin):
    """A look at the session takes longer than its limit for a quick server, and than `stuck`."""
    await standin.front.set("slow", 0.7)
    body = {"name": "Slow", "instanceName": "slow"}
    made = await one.agent.do("POST", SETUP, body)
    assert made["qr"] == standin.instances["slow"].code
    assert standin.asked["DELETE /instance/delete"] == 0, "the session is not made again"
    shown = await one.agent.do("GET", "/api/instance/slow/qr")
    assert shown["expires_in"] > 0


async def test_the_first_set_up_of_a_session_made_elsewhere_that_hangs_ends_in_its_code(
    make_agent, eventually
):
    """1.8 does not tell whether it has a pairing; another one of its server is connected."""
    server = await StandIn.open(version="1.8.6")
    try:
        server.add("other", "open")
        agent = make_agent(table(server, adopt=["other"], webhook=False), base=remote_settings())
        await agent.start()
        watched = Watched(agent, server)
        await eventually(lambda: watched.all_connected(1))
        server.add("till", "close").stuck = True
        server.instances["till"].connect()
        told = await agent.do("POST", SETUP, {"name": "Till", "instanceName": "till"})
        assert told["created"], told
        assert told["qr"] == server.instances["till"].code
        begun = [told for kind, told in await agent.story("till") if kind == "operator"]
        assert [said for said in begun if "working qr" in said], begun
    finally:
        await server.close()


async def test_a_set_up_of_one_made_elsewhere_that_may_be_paired_needs_a_persons_word(
    make_agent, eventually
):
    """A live one that another program put on a 1.8 server: its keys have an account, and whether it
    is paired still the server does not tell."""
    server = await StandIn.open(version="1.8.6")
    try:
        server.add("other", "open")
        agent = make_agent(table(server, adopt=["other"], webhook=False), base=remote_settings())
        await agent.start()
        watched = Watched(agent, server)
        await eventually(lambda: watched.all_connected(1))
        till = server.add("till", "close")
        till.creds = till.stuck = True
        till.connect()
        status, told = await agent.ask("POST", SETUP, {"name": "Till", "instanceName": "till"})
        assert (status, told["error"]) == (503, "pairing_kept"), told
        assert "`wa-agent ensure-healthy till --yes`" in told["message"]
        assert server.instances["till"] is till and till.creds
        assert server.asked["DELETE /instance/delete"] == 0
        assert server.asked["DELETE /instance/logout"] == 0
        till.stuck = False
        await eventually(lambda: watched.all_connected(2))
    finally:
        await server.close()
