"""No request of ours begins a second login beside the server's own."""

import asyncio
import contextlib
import random
from dataclasses import replace

import pytest

from agent.core.model import ConnectionStatus
from agent.engines.evolution.claims import Live
from agent.engines.evolution.logins import Logins
from agent.engines.evolution.session import EvolutionSession
from agent.engines.evolution.settings import Pace
from agent.errors import EngineError
from tests.conftest import Eventually
from tests.engines.evolution.conftest import PACE, MakeBench, MakeStandIn, stays_closed

Status = ConnectionStatus
SESSIONS = 12


async def look(session: EvolutionSession, chance: random.Random) -> None:
    """What an agent and an impatient operator ask, whatever is answered."""
    orders = [session.probe, lambda: session.probe(deep=True), session.probe, session.qr]
    pick = chance.choice([*orders, session.connect, session.restart])
    with contextlib.suppress(EngineError):
        await pick()


@pytest.mark.parametrize("version", ["1.8.6"])
@pytest.mark.parametrize("known", [True, False], ids=["known", "of the last worker"])
async def test_a_session_is_watched_and_healed_through_a_silence_without_a_second_login(
    make_stand_in: MakeStandIn,
    make_bench: MakeBench,
    eventually: Eventually,
    version: str,
    known: bool,
) -> None:
    """A twentieth of the real times: a try takes 1 s, and the server is in `close` for 0.25 s
    before the next; each request to connect arrives 0.05 to 0.45 s late."""
    standin = await make_stand_in(version, silent_try=1.0, again=0.25, login=0.25)
    pace = replace(PACE, stays_closed=2.0, looks_apart=0.8)
    bench = await make_bench(standin, pace=pace)
    await bench.backend.check()
    instances = [standin.add(f"line-{number}", "open") for number in range(SESSIONS)]
    sessions = [bench.hold(instance.name) for instance in instances]
    if known:
        await asyncio.gather(*(session.probe() for session in sessions))
    await standin.front.set("slow", 0.05, "/instance/connect/", up_to=0.45)
    for instance in instances:
        instance.stuck = True
        instance.drop(408)
    chance = random.Random(1)
    until = asyncio.get_running_loop().time() + 4.0
    while asyncio.get_running_loop().time() < until:
        await asyncio.gather(*(look(session, chance) for session in sessions))
    assert {instance.second_logins for instance in instances} == {0}
    standin.silence(False)
    for instance, session in zip(instances, sessions, strict=True):
        await eventually(lambda it=instance: it.state, "open")
        assert (await session.probe()).claim.status is Status.CONNECTED
    assert {instance.second_logins for instance in instances} == {0}


async def test_a_request_to_connect_that_had_no_answer_is_not_sent_again_at_once(
    make_stand_in: MakeStandIn, make_bench: MakeBench, eventually: Eventually
) -> None:
    """It may be on its way, and would begin the second login."""
    standin = await make_stand_in("1.8.6")
    bench = await make_bench(standin, pace=replace(PACE, stays_closed=60.0), timeout=0.5)
    await bench.backend.check()
    session = bench.hold("sales")
    await standin.front.set("slow", 3.0, "/instance/connect/")
    with pytest.raises(EngineError) as caught:
        await session.connect()
    assert caught.value.code == "backend_down"
    with pytest.raises(EngineError, match="may still connect it by itself"):
        await session.connect()
    assert standin.asked["GET /instance/connect"] == 1
    await eventually(lambda: standin.instances["sales"].state, "connecting")
    await standin.front.set("")
    assert await session.qr() is not None


async def test_no_pairing_code_ends_a_connection_that_may_have_a_pairing(
    make_stand_in: MakeStandIn, make_bench: MakeBench
) -> None:
    standin = await make_stand_in("1.8.6")
    bench = await make_bench(standin)
    await bench.backend.check()
    instance = standin.add("sales", "open")
    instance.stuck = True
    instance.drop(408)
    session = bench.hold("sales")
    with pytest.raises(EngineError) as caught:
        await session.command("pairing_code", {"phone": "+55 11 98888-7777"})
    assert caught.value.code == "not_waiting"
    assert standin.asked["DELETE /instance/logout"] == 0


def test_a_session_that_drops_now_and_then_has_no_two_connections() -> None:
    now = 0.0
    logins = Logins(Pace(), lambda: now, lambda: True)
    for _ in range(20):
        for before, live in ((Live.OPEN, Live.CONNECTING), (Live.CONNECTING, Live.OPEN)):
            now += 3
            logins.note(live, before)
    assert not logins.fight


async def test_a_scanned_code_is_not_asked_for_while_the_server_logs_in_with_it(
    make_stand_in: MakeStandIn, make_bench: MakeBench, eventually: Eventually
) -> None:
    """After the scan WhatsApp ends the connection (515), and for a moment it is closed."""
    for version in ("1.8.6", "2.3.6"):
        standin = await make_stand_in(version, again=0.3)
        bench = await make_bench(standin, pace=replace(PACE, stays_closed=30.0))
        await bench.backend.check()
        session = bench.hold("sales")
        await session.connect()
        assert await session.qr() is not None
        instance = standin.instances["sales"]
        instance.scan()
        instance.drop(515)
        for ask in (session.connect, session.qr, session.probe):
            with contextlib.suppress(EngineError):
                await ask()
        await eventually(lambda it=instance: it.state, "open")
        assert instance.second_logins == 0


@pytest.mark.parametrize("version", ["1.8.6", "2.3.6"])
@pytest.mark.parametrize("state", ["open"], ids=["paired"])
async def test_a_session_that_its_server_still_loads_is_asked_for_no_login(
    make_stand_in: MakeStandIn,
    make_bench: MakeBench,
    eventually: Eventually,
    version: str,
    state: str,
) -> None:
    """A booting server connects it by itself: a login of ours would be the second one."""
    standin = await make_stand_in(version)
    bench = await make_bench(standin)
    await bench.backend.check()
    instance = standin.add("sales", state)
    session = bench.hold("sales")
    await session.probe(deep=True)
    asked = standin.asked["GET /instance/connect"]
    instance.unload()
    for ask in (session.restart, session.connect, session.restart):
        with pytest.raises(EngineError, match="not loaded it yet") as caught:
            await ask()
        assert caught.value.code == "remote_refused"
    assert standin.asked["PUT /instance/restart"] == standin.asked["POST /instance/restart"] == 0
    assert standin.asked["GET /instance/connect"] == asked
    instance.load(connects=True)
    await eventually(lambda: instance.state, state)


async def test_a_row_that_is_closed_without_an_end_ends_no_pairing_and_begins_no_second_login(
    make_stand_in: MakeStandIn, make_bench: MakeBench, eventually: Eventually
) -> None:
    """At its start 2.3.6 connects such a session by itself, a minute or two later."""
    standin = await make_stand_in("2.3.6", again=3600.0)
    bench = await make_bench(standin)
    await bench.backend.check()
    instance = standin.add("sales", "open")
    instance.drop(408)  # and it is about to connect
    instance.row.set(connectionStatus="close")
    session = bench.hold("sales")
    claim = (await session.probe()).claim
    assert (claim.status, claim.pairing_unknown) == (Status.INITIALIZING, True)
    assert {"reconnect", "restart"} <= set(claim.useless)
    with pytest.raises(EngineError) as caught:
        await session.connect()
    assert caught.value.code == "remote_refused"
    assert standin.asked["GET /instance/connect"] == 0
    await stays_closed(session, eventually)
    assert (await session.probe()).claim.pairing_unknown
