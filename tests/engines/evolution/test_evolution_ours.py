"""What others made on the server: the agent deletes and makes nothing there by itself."""

from pathlib import Path

import pytest

from agent.core.model import ConnectionStatus
from agent.engines.evolution.session import EvolutionSession
from agent.errors import EngineError
from tests.conftest import Eventually
from tests.engines.evolution.conftest import Bench, MakeBench, MakeStandIn, stays_closed
from tests.standin.evolution import StandIn

Status = ConnectionStatus
DELETES = "DELETE /instance/delete"
CREATES = "POST /instance/create"


@pytest.mark.parametrize("adopted", [True, False], ids=["adopted", "created over one there"])
async def test_a_session_that_the_agent_did_not_make_gets_a_code_and_is_not_deleted(
    bench: Bench, eventually: Eventually, adopted: bool
) -> None:
    there = bench.standin.add("sales", "connecting")
    there.stuck = True  # no code comes
    session = bench.hold("sales", adopted=adopted)
    await session.probe()
    there.stuck = False
    await session.renew(confirmed=False)
    assert bench.standin.instances["sales"] is there
    assert bench.standin.asked[DELETES] == bench.standin.asked[CREATES] == 0
    assert bench.standin.asked["DELETE /instance/logout"] == 1
    await eventually(lambda: bool(there.code))
    qr = await session.qr()
    assert qr is not None
    assert qr.text == there.code


async def test_a_person_may_have_an_adopted_one_deleted_and_made_again(bench: Bench) -> None:
    there = bench.standin.add("sales", "close")
    session = bench.hold("sales", adopted=True)
    await session.renew(confirmed=True)
    assert bench.standin.asked[DELETES] == 1
    assert bench.standin.instances["sales"] is not there
    # What is there now stays not the agent's: the next time a person says so again.
    await session.probe()
    await session.renew(confirmed=False)
    assert bench.standin.asked[DELETES] == 1


@pytest.mark.parametrize("version", ["1.8.6"])
async def test_an_adopted_one_is_deleted_by_a_persons_word_only_whatever_its_server_speaks(
    make_stand_in: MakeStandIn, make_bench: MakeBench, eventually: Eventually, version: str
) -> None:
    bench = await make_bench(await make_stand_in(version))
    await bench.backend.check()
    bench.standin.add("sales", "connecting")
    session = bench.hold("sales", adopted=True)

    async def unknown() -> bool:
        return (await session.probe()).claim.pairing_unknown

    await eventually(unknown, False)
    await session.renew(confirmed=False)
    assert bench.standin.asked[DELETES] == bench.standin.asked[CREATES] == 0


async def test_one_that_the_agent_made_is_its_own_to_renew(bench: Bench) -> None:
    session = bench.hold("sales")
    await session.connect()
    await session.renew(confirmed=False)
    assert bench.standin.asked[DELETES] == 1
    assert bench.standin.asked[CREATES] == 2


@pytest.mark.parametrize("version", ["2.3.7"])
async def test_an_adopted_one_that_was_deleted_there_is_not_made_again(
    make_stand_in: MakeStandIn, make_bench: MakeBench, eventually: Eventually, version: str
) -> None:
    bench = await make_bench(await make_stand_in(version))
    bench.standin.add("sales", "open")
    await bench.backend.check()
    session = bench.hold("sales", adopted=True)
    bench.standin.remove("sales")  # before any look
    for ask in (session.connect, session.restart, lambda: session.renew(confirmed=False)):
        with pytest.raises(EngineError, match="wa-agent ensure-healthy sales --yes") as caught:
            await ask()
        assert caught.value.code in ("remote_missing", "pairing_kept")
    assert bench.standin.asked[CREATES] == 0
    await stays_closed(session, eventually)
    assert (await session.probe()).claim.reason == "remote_missing"
    await session.renew(confirmed=True)
    assert "sales" in bench.standin.instances


async def test_on_an_old_server_one_of_others_that_may_be_paired_is_left_as_it_is(
    make_stand_in: MakeStandIn, make_bench: MakeBench, eventually: Eventually
) -> None:
    standin = await make_stand_in("1.8.6")
    bench = await make_bench(standin)
    await bench.backend.check()
    there = standin.add("sales", "open")
    there.stuck = True
    there.drop(408)
    session = bench.hold("sales")
    claim = (await session.probe()).claim
    assert (claim.pairing_unknown, claim.made_elsewhere) == (True, True)
    with pytest.raises(EngineError, match="wa-agent ensure-healthy sales --yes") as caught:
        await session.renew(confirmed=False)
    assert caught.value.code == "pairing_kept"
    assert standin.asked[DELETES] == standin.asked["DELETE /instance/logout"] == 0
    there.stuck = False
    # No look in between: on a busy machine one that was asked in one login would reach the next.
    await eventually(lambda: there.state, "open")
    assert (await session.probe()).claim.status is Status.CONNECTED


async def cut_off(standin: StandIn, session: EvolutionSession) -> None:
    await standin.front.set("failing", only=CREATES.split()[1])
    with pytest.raises(EngineError):
        await session.renew(confirmed=True)
    await standin.front.set("")
    assert standin.instances == {}


async def test_what_the_agent_deleted_to_make_it_again_is_made_by_the_next_worker(
    bench: Bench, make_bench: MakeBench, eventually: Eventually, tmp_path: Path
) -> None:
    before = bench.standin.add("sales", "close")
    before.settings["alwaysOnline"] = True
    await cut_off(bench.standin, bench.hold("sales", adopted=True))
    later = await make_bench(bench.standin)
    session = later.hold("sales", adopted=True)
    await stays_closed(session, eventually)
    assert (await session.probe()).claim.reason == "renewal_unfinished"
    await session.connect()
    after = bench.standin.instances["sales"]
    assert after.token == before.token
    assert after.settings["alwaysOnline"] is True
    # It owes no other one.
    bench.standin.remove("sales")
    with pytest.raises(EngineError):
        await session.connect()
    assert bench.standin.instances == {}


async def test_what_a_person_deleted_for_good_is_owed_to_nobody(
    bench: Bench, make_bench: MakeBench, eventually: Eventually
) -> None:
    bench.standin.add("sales", "close")
    await bench.hold("sales", adopted=True).command("delete", {})
    later = await make_bench(bench.standin)
    session = later.hold("sales", adopted=True)
    await stays_closed(session, eventually)
    assert (await session.probe()).claim.reason == "remote_missing"
