"""No request of ours begins a second login beside the server's own."""

import contextlib
from dataclasses import replace

import pytest

from agent.core.model import ConnectionStatus
from agent.engines.evolution.claims import Live
from agent.engines.evolution.logins import Logins
from agent.engines.evolution.settings import Pace
from agent.errors import EngineError
from tests.conftest import Eventually
from tests.engines.evolution.conftest import PACE, MakeBench, MakeStandIn, stays_closed

Status = ConnectionStatus


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
