"""What real servers 1.8.6 and 2.3.6 did, and what is made of it."""

import asyncio
from dataclasses import replace

import pytest

from agent.core.model import ConnectionStatus
from agent.engines.evolution.session import EvolutionSession
from agent.errors import EngineError
from tests.conftest import Eventually
from tests.engines.evolution.conftest import PACE, Bench, MakeBench, MakeStandIn, stays_closed

Status = ConnectionStatus
VERSIONS = ("1.8.6", "2.3.6")


@pytest.fixture(params=VERSIONS)
async def both(
    request: pytest.FixtureRequest, make_stand_in: MakeStandIn, make_bench: MakeBench
) -> Bench:
    return await make_bench(await make_stand_in(request.param))


async def test_a_check_asks_nothing_that_a_server_calls_an_error(both: Bench) -> None:
    claims = [await both.backend.check()]
    both.standin.add("sales", "open")
    both.hold("sales")
    both.hold("not-made-yet")
    claims += [await both.backend.check() for _ in range(3)]
    both.standin.remove("sales")
    claims += [await both.backend.check() for _ in range(3)]
    assert [each.up for each in claims] == [True] * 7, claims
    assert both.standin.error_lines == 0


async def test_a_list_that_hangs_on_a_silent_whatsapp_takes_no_server_down(
    make_stand_in: MakeStandIn, make_bench: MakeBench
) -> None:
    """1.8 asks WhatsApp through each of its open sessions before it shows its list."""
    bench = await make_bench(await make_stand_in("1.8.6"), timeout=3.0)
    bench.standin.add("of-others", "open").dead = "silent"
    assert (await bench.backend.check()).up


async def test_settings_that_the_server_refuses_are_found_before_a_deletion(
    both: Bench,
) -> None:
    await both.backend.check()
    instance = both.standin.add("sales", "open")
    instance.webhook = {"enabled": True, "url": "crm.example/in", "events": ["MESSAGES_UPSERT"]}
    await both.standin.front.set("refused", only="/settings/set")
    with pytest.raises(EngineError) as caught:
        await both.hold("sales").renew(confirmed=True)
    assert caught.value.code == "remote_refused"
    assert both.standin.instances["sales"] is instance
    assert both.standin.asked["DELETE /instance/delete"] == 0
    assert instance.state == "open"


async def pair(bench: Bench, eventually: Eventually) -> EvolutionSession:
    """A session that we made, and that a phone has scanned."""
    await bench.backend.check()
    session = bench.hold("sales")
    await session.connect()
    assert await session.qr() is not None
    assert bench.standin.instances["sales"].scan()
    await eventually(lambda: bench.standin.instances["sales"].state, "open")
    assert (await session.probe()).claim.status is Status.CONNECTED
    return session


async def test_the_code_of_the_last_login_makes_no_paired_session_unpaired(
    both: Bench, eventually: Eventually
) -> None:
    """WhatsApp is silent for a while: GET connect goes on showing what was scanned long ago."""
    session = await pair(both, eventually)
    instance = both.standin.instances["sales"]
    instance.stuck = True
    instance.drop(408)
    await eventually(lambda: instance.state, "connecting")
    assert instance.shown()["code"], "the server shows a code"
    for _ in range(3):
        claim = (await session.probe(deep=True)).claim
        assert (claim.status, claim.reason, claim.paired) == (Status.INITIALIZING, "", True)
    assert await session.qr() is None
    instance.stuck = False

    async def status() -> Status:
        return (await session.probe()).claim.status

    await eventually(status, Status.CONNECTED)


async def test_whether_it_is_paired_is_said_to_be_unknown_where_nothing_tells_it(
    make_stand_in: MakeStandIn, make_bench: MakeBench
) -> None:
    """1.8 began while WhatsApp was silent: it shows neither a code nor an owner."""
    bench = await make_bench(await make_stand_in("1.8.6"))
    instance = bench.standin.add("sales")
    instance.creds = instance.stuck = True
    instance.connect()
    await bench.backend.check()
    claim = (await bench.hold("sales").probe()).claim
    assert (claim.status, claim.paired, claim.pairing_unknown) == (
        Status.INITIALIZING,
        False,
        True,
    )


async def test_a_logout_that_the_server_only_says_it_did_is_none(
    make_stand_in: MakeStandIn, make_bench: MakeBench, eventually: Eventually
) -> None:
    for version in VERSIONS:
        pace = replace(PACE, gone_wait=0.3)
        bench = await make_bench(await make_stand_in(version, silent_try=3600.0), pace=pace)
        session = await pair(bench, eventually)
        instance = bench.standin.instances["sales"]
        instance.stuck = True
        instance.drop(408)
        await eventually(lambda it=instance: it.state, "connecting")
        assert "logout_restart" in (await session.probe()).claim.useless
        with pytest.raises(EngineError, match="has not closed") as caught:
            await session.logout()
        assert caught.value.code == "no_effect"
        assert instance.creds
        assert (await session.probe()).claim.paired


async def test_nothing_is_deleted_while_the_server_can_create_nothing(
    make_stand_in: MakeStandIn, make_bench: MakeBench
) -> None:
    bench = await make_bench(await make_stand_in("1.8.6"))
    await bench.backend.check()
    bench.standin.add("of-others", "open").dead = "silent"
    instance = bench.standin.add("sales", "connecting")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await bench.hold("sales").renew(confirmed=True)
    assert bench.standin.instances["sales"] is instance
    assert bench.standin.asked["DELETE /instance/delete"] == 0


async def test_a_logout_by_the_phone_is_one_also_where_the_server_says_so_nowhere(
    make_stand_in: MakeStandIn, make_bench: MakeBench, eventually: Eventually
) -> None:
    """1.8: it only closes, and stays closed; the next login has a new code, and then another."""
    bench = await make_bench(await make_stand_in("1.8.6", code_holds=0.3))
    session = await pair(bench, eventually)
    bench.standin.instances["sales"].end(401)
    await stays_closed(session, eventually)
    await session.connect()

    async def told() -> tuple[str, str]:
        claim = (await session.probe()).claim
        return (claim.status, claim.reason)

    await eventually(told, ("QR_REQUIRED", "logout"))
