"""A session's life on a real socket: created, scanned, open, dropped, logged out, begun anew."""

import pytest

from agent.core.model import ConnectionStatus
from agent.errors import EngineError, InvalidRequest
from tests.conftest import Eventually
from tests.engines.evolution.conftest import Bench, MakeBench, MakeStandIn

Status = ConnectionStatus
VERSIONS = ("2.3.7", "2.4.0-rc2", "1.8.2")


@pytest.fixture(params=VERSIONS)
async def any_bench(
    request: pytest.FixtureRequest, make_stand_in: MakeStandIn, make_bench: MakeBench
) -> Bench:
    bench = await make_bench(await make_stand_in(request.param))
    assert (await bench.backend.check()).version == request.param
    return bench


async def test_a_session_is_created_scanned_and_open(
    any_bench: Bench, eventually: Eventually
) -> None:
    session = any_bench.hold("sales", "Sales Brazil/1")
    missing = (await session.probe()).claim
    assert (missing.status, missing.reason) == (Status.DISCONNECTED, "remote_missing")

    await session.connect()
    qr = await session.qr()
    assert qr is not None
    assert qr.text.startswith("2@")
    assert qr.text not in repr(qr)
    assert (await session.probe()).claim.status is Status.QR_REQUIRED

    assert any_bench.standin.instances["Sales Brazil/1"].scan()

    async def status() -> Status:
        return (await session.probe()).claim.status

    await eventually(status, Status.CONNECTED)
    claim = (await session.probe(deep=True)).claim
    assert claim.paired
    assert claim.proof_age == 0.0
    assert claim.account == any_bench.standin.instances["Sales Brazil/1"].wuid.split("@")[0]
    assert await session.qr() is None
