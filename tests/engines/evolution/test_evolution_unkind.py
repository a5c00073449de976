"""What real servers 1.8.6 and 2.3.6 did, and what is made of it."""

import pytest

from agent.errors import EngineError
from tests.conftest import Eventually
from tests.engines.evolution.conftest import Bench, MakeBench, MakeStandIn

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
    bench = await make_bench(await make_stand_in("1.8.6"), timeout=0.4)
    bench.standin.add("of-others", "open").dead = "silent"
    assert (await bench.backend.check()).up


async def test_a_wrong_key_shows_although_no_session_is_known(
    make_stand_in: MakeStandIn, make_bench: MakeBench
) -> None:
    for version in VERSIONS:
        bench = await make_bench(await make_stand_in(version), key="not-the-key")
        assert (await bench.backend.check()).reason == "refused_key"


async def test_settings_can_be_changed_where_the_server_wants_a_field_that_it_hides(
    both: Bench,
) -> None:
    await both.backend.check()
    instance = both.standin.add("sales", "open")
    instance.wavoip = "voice-token"
    await both.hold("sales").command("settings", {"alwaysOnline": True})
    assert instance.settings["alwaysOnline"] is True
    assert instance.wavoip == "voice-token"


async def test_what_the_server_would_not_take_back_is_found_before_anything_is_deleted(
    both: Bench,
) -> None:
    await both.backend.check()
    instance = both.standin.add("sales", "open")
    instance.webhook = {"enabled": True, "url": "crm.example/in", "events": ["MESSAGES_UPSERT"]}
    await both.standin.front.set("refused", only="/settings/set")
    with pytest.raises(EngineError) as caught:
        await both.hold("sales").renew()
    assert caught.value.code == "remote_refused"
    assert both.standin.instances["sales"] is instance
    assert both.standin.asked["DELETE /instance/delete"] == 0
    assert instance.state == "open"


async def test_what_is_refused_after_a_deletion_keeps_nobody_from_a_code(both: Bench) -> None:
    """A session that its process lost cannot be set anything, so nothing can be tried."""
    await both.backend.check()
    both.standin.add("sales", "close").unload()
    await both.standin.front.set("refused", only="/settings/set")
    session = both.hold("sales")
    await session.renew()
    assert both.standin.asked["POST /instance/create"] == 1
    assert await session.qr() is not None


async def test_no_webhook_is_set_before_there_is_a_session(
    make_stand_in: MakeStandIn, make_bench: MakeBench, eventually: Eventually
) -> None:
    standin = await make_stand_in("2.3.6")
    bench = await make_bench(standin, webhook=True, webhook_url="http://127.0.0.1:9", hook="s")
    session = bench.hold("sales")
    await eventually(lambda: standin.asked["GET /webhook/find"] > 0)
    await session.connect()
    await eventually(lambda: standin.instances["sales"].webhook is not None)
    assert standin.paths["POST /webhook/set/sales"] == 1
