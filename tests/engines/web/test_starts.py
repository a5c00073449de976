"""Pages that come instead of WhatsApp Web, progress of a start, and the load past caches."""

import pytest

from agent.core.model import ConnectionStatus as Status
from agent.errors import EngineError
from tests.engines.web.bench import ACCOUNT, Bench
from tests.standin.web import fronts
from tests.standin.web.stand_in import StandIn


def haste(*names: str) -> str:
    return f"from tests.engines.web.haste import hurry; hurry{names!r}"


async def given_up(bench: Bench) -> str:
    return (await bench.claimed(Status.DISCONNECTED, "page_unusable", within=120)).raw


@pytest.mark.parametrize(
    ("front", "shown"),
    [
        pytest.param(fronts.HTTP_ERROR, ("HTTP 500", "Error 500"), id="500"),
        pytest.param(fronts.SILENT, ("no answer",), id="a silent server"),
    ],
)
async def test_a_page_that_is_not_whatsapp_has_its_reason(
    bench: Bench, stand_in: StandIn, front: fronts.Front, shown: tuple[str, ...]
) -> None:
    stand_in.front = front
    await bench.start(first=haste("SILENT", "LOAD"))
    raw = await given_up(bench)
    assert all(each in raw for each in shown), raw
    assert "?" not in raw, "an address is shown without its query"
    assert list((bench.session / "diagnostics").glob("*.json"))
    # The server is well again: the next try of the agent connects.
    stand_in.front = None
    bench.be_patient()
    await bench.link.call("connect")
    await bench.claimed(Status.QR_REQUIRED)


async def test_a_redirect_is_reported_with_the_address_that_it_led_to(
    bench: Bench, stand_in: StandIn
) -> None:
    other = await StandIn.open()
    try:
        other.front = fronts.PORTAL
        stand_in.front = fronts.elsewhere(f"{other.url}?token=secret")
        await bench.start()
        raw = await given_up(bench)
        assert other.url.removeprefix("http://") in raw and "Guest network" in raw
        assert "secret" not in raw
    finally:
        await other.close()


# --- past every cache --------------------------------------------------------------------------


async def test_a_bad_page_that_a_service_worker_holds_is_passed_by_and_the_pairing_stays(
    bench: Bench, stand_in: StandIn
) -> None:
    device = await bench.pair(stand_in)
    page = stand_in.page()
    page.tell("keeper")
    await bench.until(lambda: any(each.get("do") == "kept" for each in page.received))
    await bench.stop()
    seen = stand_in.requests.count("/standin.js")
    await bench.start(first=haste("SLOW_INJECTION"), paired=True)
    await bench.until(lambda: stand_in.requests.count("/standin.js") > seen)
    bench.be_patient()
    await bench.claimed(Status.CONNECTED)
    assert stand_in.page().device == device
    assert Status.QR_REQUIRED not in [claim.status for claim in bench.claims]


async def test_a_connected_page_without_its_send_function_is_loaded_past_the_caches_once(
    bench: Bench, stand_in: StandIn
) -> None:
    stand_in.missing = "WAWebSendMsgChatAction"
    await bench.pair(stand_in)
    with pytest.raises(EngineError) as caught:
        await bench.link.call("send", {"message": {"type": "text", "to": ACCOUNT, "text": "hi"}})
    assert caught.value.code == "page_incomplete"
    assert "page lacks addAndSendMsgToChat" in str(caught.value)
    assert "function" not in str(caught.value) and "undefined" not in str(caught.value)

    heard = len(bench.claims)
    assert await bench.detail("missing") == ["addAndSendMsgToChat"]
    await bench.came(Status.RECONNECTING, heard)
    await bench.claimed(Status.CONNECTED)
    loads = stand_in.requests.count("/standin.js")
    assert await bench.detail("missing") == ["addAndSendMsgToChat"]
    await bench.detail("missing")
    assert stand_in.requests.count("/standin.js") == loads, "one load is enough for a while"
