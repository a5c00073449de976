"""Each trap of the server on a real socket: what it says, and what is made of it."""

import pytest

from agent.core.model import ConnectionStatus
from agent.errors import EngineError
from tests.conftest import Eventually
from tests.engines.evolution.conftest import Bench, MakeBench, MakeStandIn, stays_closed
from tests.standin.evolution import StandIn

Status = ConnectionStatus


async def test_open_while_dead_is_a_zombie_until_it_answers(
    standin: StandIn, make_bench: MakeBench
) -> None:
    bench = await make_bench(standin, timeout=4.0)
    instance = bench.standin.add("sales", "open")
    session = bench.hold("sales")
    await session.probe(deep=True)
    for kind in ("silent", "closed"):
        instance.dead = kind
        assert (await session.probe()).claim.status is Status.CONNECTED, "no proof was asked for"
        with pytest.raises(EngineError) as caught:
            await session.probe(deep=True)
        assert caught.value.code == "zombie"
        # From then on each probe wants proof, so that three in a row can be counted.
        with pytest.raises(EngineError):
            await session.probe()
        instance.dead = ""
        assert (await session.probe()).claim.proof_age == 0.0


async def test_a_message_that_comes_in_is_proof(bench: Bench) -> None:
    bench.standin.add("sales", "open").dead = "closed"
    session = bench.hold("sales")
    with pytest.raises(EngineError):
        await session.probe(deep=True)
    key = {"id": "A1", "remoteJid": "5511988887777@s.whatsapp.net", "fromMe": False}
    data = {"key": key, "messageType": "conversation"}
    await bench.backend.hook({"event": "messages.upsert", "instance": "sales", "data": data})
    assert (await session.probe()).claim.status is Status.CONNECTED


async def test_no_proof_is_asked_for_where_the_settings_want_none(
    make_bench: MakeBench, make_stand_in: MakeStandIn
) -> None:
    bench = await make_bench(await make_stand_in(), prove=False)
    bench.standin.add("sales", "open").dead = "closed"
    assert (await bench.hold("sales").probe(deep=True)).claim.status is Status.CONNECTED


async def test_a_server_without_the_route_of_the_proof_is_one_finding_and_its_sessions_are_open(
    bench: Bench, eventually: Eventually
) -> None:
    bench.standin.add("sales", "open")
    bench.standin.without = "/chat/"
    session = bench.hold("sales")
    for deep in (False, True, True):
        claim = (await session.probe(deep=deep)).claim
        assert claim.status is Status.CONNECTED
    assert (await bench.backend.check()).reason == "no_proof"
    await eventually(lambda: bench.heard.servers[-1].reason, "no_proof")
    told = bench.heard.servers[-1]
    assert told.up
    assert "prove = false" in told.sentence
    bench.standin.without = ""
    await session.probe(deep=True)
    await eventually(lambda: bench.heard.servers[-1].reason, "")
    assert (await session.probe(deep=True)).claim.proof_age == 0.0


async def test_a_session_that_the_process_lost_is_told_apart_from_a_missing_one(
    bench: Bench, eventually: Eventually
) -> None:
    bench.standin.add("sales", "open").unload()
    session = bench.hold("sales")
    claim = (await session.probe()).claim
    assert (claim.status, claim.raw) == (Status.INITIALIZING, "not loaded")
    with pytest.raises(EngineError) as caught:
        await session.connect()  # answered with 200 and error: true
    assert caught.value.code == "remote_refused"

    async def disagrees() -> str:
        return str((await session.probe(deep=True)).detail.get("disagrees", ""))

    await eventually(disagrees, "the server's database holds the session and its process does not")
    await session.renew(confirmed=True)
    assert (await session.qr()) is not None


@pytest.mark.parametrize(
    ("code", "reason"),
    [(401, "logout"), (406, "banned")],
)
async def test_final_closes_have_their_reason_from_the_row(
    bench: Bench, code: int, reason: str
) -> None:
    bench.standin.add("sales", "open")
    session = bench.hold("sales")
    await session.probe(deep=True)
    bench.standin.instances["sales"].end(code)
    claim = (await session.probe()).claim
    assert (claim.status, claim.reason, claim.paired) == (Status.DISCONNECTED, reason, False)


async def test_an_old_end_does_not_count_after_a_success(
    bench: Bench, eventually: Eventually
) -> None:
    instance = bench.standin.add("sales", "open")
    session = bench.hold("sales")
    instance.end(406)
    assert (await session.probe()).claim.reason == "banned"
    await session.connect()
    await session.qr()
    instance.scan()

    async def status() -> Status:
        return (await session.probe(deep=True)).claim.status

    await eventually(status, Status.CONNECTED)
    # The process is restarted; the columns still hold 406, and the row was closed by hand.
    instance.unload()
    instance.load(connects=False)
    instance.row.set(connectionStatus="close")
    await stays_closed(session, eventually)
    assert (await session.probe()).claim.reason == "connection_closed"


@pytest.mark.parametrize("version", ["2.3.6"])
async def test_a_404_that_the_list_contradicts_ends_no_pairing(
    make_stand_in: MakeStandIn, make_bench: MakeBench, version: str
) -> None:
    bench = await make_bench(await make_stand_in(version))
    await bench.backend.check()
    instance = bench.standin.add("sales", "open")
    session = bench.hold("sales")
    await session.probe()
    for _ in range(3):
        instance.denied = 1
        claim = (await session.probe()).claim
        assert (claim.status, claim.reason) == (Status.INITIALIZING, "")
        assert claim.paired
    with pytest.raises(EngineError, match="has it again") as caught:
        await session.renew(confirmed=True)
    assert caught.value.code == "pairing_kept"
    assert instance.creds
    assert bench.standin.asked["DELETE /instance/logout"] == 0
    assert bench.standin.asked["DELETE /instance/delete"] == 0
    claim = (await session.probe()).claim
    assert (claim.status, claim.paired) == (Status.CONNECTED, True)
    await session.renew(confirmed=True)  # decided on by an agent that knows that it is open
    assert not bench.standin.instances["sales"].creds


@pytest.mark.parametrize("version", ["1.8.6"])
async def test_a_session_that_is_gone_and_comes_back_has_its_pairing(
    make_stand_in: MakeStandIn, make_bench: MakeBench, version: str
) -> None:
    """As after a restore of the server's database: then no login of ours and no deletion."""
    bench = await make_bench(await make_stand_in(version, again=600.0))
    await bench.backend.check()
    instance = bench.standin.add("sales", "open")
    session = bench.hold("sales")
    await session.probe()
    bench.standin.instances.pop("sales")
    claim = (await session.probe()).claim
    assert (claim.status, claim.reason) == (Status.DISCONNECTED, "remote_missing")
    bench.standin.instances["sales"] = instance
    with pytest.raises(EngineError) as caught:
        await session.renew(confirmed=True)
    assert caught.value.code == "pairing_kept"
    if version == "1.8.6":
        instance.drop(408)
        with pytest.raises(EngineError, match="may still connect it by itself"):
            await session.connect()
        assert instance.second_logins == 0
    assert instance.creds
    assert bench.standin.asked["DELETE /instance/delete"] == 0
