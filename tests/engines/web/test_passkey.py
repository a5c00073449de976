"""WhatsApp's page asks for a passkey: it is told, and never answered."""

from agent.core.model import ConnectionStatus
from tests.engines.web.bench import ACCOUNT, Bench
from tests.standin.web.stand_in import StandIn

Status = ConnectionStatus


async def test_a_passkey_that_the_page_asks_for_is_reported_and_not_answered(
    bench: Bench, stand_in: StandIn
) -> None:
    link = await bench.start()
    await bench.claimed(Status.QR_REQUIRED)
    stand_in.passkey = "ask"
    stand_in.scan(ACCOUNT)
    claim = await bench.claimed(Status.QR_REQUIRED, "passkey_required")
    assert not claim.paired
    heard = stand_in.page().received
    await bench.until(lambda: heard[-1]["do"].startswith("passkey_"))
    assert heard[-1] == {"do": "passkey_refused", "why": "NotAllowedError"}
    assert bench.claims[-1].reason == "passkey_required"

    # Who asks for a code gets a new one; here a phone without a passkey scans it.
    stand_in.passkey = ""
    assert (await link.call("qr"))["qr"] is None
    await bench.claimed(Status.QR_REQUIRED)
    stand_in.scan(ACCOUNT)
    assert (await bench.claimed(Status.CONNECTED)).paired
