"""A session's life on a real socket: created, scanned, open, dropped, logged out, begun again."""

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from agent.core.model import ConnectionStatus
from agent.engines.evolution import backup
from agent.errors import EngineError, InvalidRequest
from tests.conftest import Eventually
from tests.engines.evolution.conftest import PACE, Bench, MakeBench, MakeStandIn

Status = ConnectionStatus
VERSIONS = ("2.3.7", "1.8.6")


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
    name = "Sales Brazil/1"
    session = any_bench.hold("sales", name)
    missing = (await session.probe()).claim
    assert (missing.status, missing.reason) == (Status.DISCONNECTED, "remote_missing")

    await session.connect()
    qr = await session.qr()
    assert qr is not None
    assert qr.text.startswith("2@")
    assert qr.text not in repr(qr)
    assert qr.number == 1
    assert 40 < qr.expires_in <= 45
    assert (await session.probe()).claim.status is Status.QR_REQUIRED

    assert any_bench.standin.instances[name].scan()

    async def status() -> Status:
        return (await session.probe()).claim.status

    await eventually(status, Status.CONNECTED)
    claim = (await session.probe(deep=True)).claim
    assert claim.paired
    assert claim.proof_age == 0.0
    assert (await session.probe()).claim.account == any_bench.standin.instances[name].wuid[:-15]
    assert await session.qr() is None


def test_the_newest_backups_of_a_session_stay_and_none_that_is_to_be_given_back_goes(
    tmp_path: Path,
) -> None:
    for number in range(15):
        backup.write(tmp_path, "sales", {"row": {"number": number}})
        unfinished = backup.unfinished(tmp_path, "sales")
        assert unfinished is not None
        if number != 3:
            backup.finish(unfinished)
    kept = sorted((tmp_path / "sales").iterdir())
    assert [backup.read(folder)["row"]["number"] for folder in kept] == [3, *range(5, 15)]


async def test_a_pairing_code_comes_for_a_phone_number(any_bench: Bench) -> None:
    session = any_bench.hold("sales")
    with pytest.raises(InvalidRequest, match="phone is no number"):
        await session.command("pairing_code", {"phone": "12"})
    await session.connect()
    # A login without a number is under way: it is begun again with one.
    told = await session.command("pairing_code", {"phone": "+55 11 98888-7777"})
    assert told["code"] == "ABCD1234"
    assert 0 < told["expires_in"] <= 45


async def test_no_pairing_code_where_there_is_a_pairing(bench: Bench) -> None:
    bench.standin.add("sales", "open")
    session = bench.hold("sales")
    with pytest.raises(EngineError, match="it waits for no scan") as caught:
        await session.command("pairing_code", {"phone": "5511988887777"})
    assert caught.value.code == "not_waiting"
    assert bench.standin.instances["sales"].state == "open"


async def test_a_restart_keeps_the_pairing(bench: Bench, eventually: Eventually) -> None:
    instance = bench.standin.add("sales", "open")
    session = bench.hold("sales")
    await session.restart()

    async def status() -> Status:
        return (await session.probe()).claim.status

    await eventually(status, Status.CONNECTED)
    assert instance.creds
    assert await session.qr() is None


async def test_a_session_that_came_back_by_itself_is_not_restarted(
    make_stand_in: MakeStandIn, make_bench: MakeBench, eventually: Eventually
) -> None:
    """The agent decided on the restart while it hung, and the last look was seconds ago."""
    for version in ("1.8.6", "2.3.6"):
        bench = await make_bench(await make_stand_in(version))
        await bench.backend.check()
        instance = bench.standin.add("sales", "open")
        session = bench.hold("sales")
        await session.probe()
        instance.stuck = True
        instance.drop(408)
        await eventually(lambda it=instance: it.state, "connecting")
        assert (await session.probe()).claim.status is Status.INITIALIZING
        instance.stuck = False
        await eventually(lambda it=instance: it.state, "open")
        logins = instance.logins
        await session.restart()
        assert bench.by_id["sales"].last() == ("CONNECTED", "")
        assert (instance.state, instance.logins) == ("open", logins)


async def test_an_opening_is_proved_by_the_first_look_that_finds_it(
    make_stand_in: MakeStandIn, make_bench: MakeBench
) -> None:
    """A real 2.3.6 says open once the first queries of a login have run out of time, though
    WhatsApp is silent: for an incident that was the end, and its members were restarted."""
    for version in ("1.8.6", "2.3.6"):
        bench = await make_bench(await make_stand_in(version))
        await bench.backend.check()
        instance = bench.standin.add("sales", "open")
        session = bench.hold("sales")
        assert (await session.probe()).claim.status is Status.CONNECTED
        asked = bench.standin.asked["POST /chat/fetchBusinessProfile"]
        await session.probe()
        assert bench.standin.asked["POST /chat/fetchBusinessProfile"] == asked == 1
        instance.state = "connecting"
        assert (await session.probe()).claim.status is Status.INITIALIZING
        instance.state, instance.dead = "open", "closed"
        with pytest.raises(EngineError) as caught:
            await session.probe()
        assert caught.value.code == "zombie"
        instance.dead = ""
        assert (await session.probe()).claim.status is Status.CONNECTED


@pytest.mark.parametrize("state", ["open"])
async def test_the_old_version_is_not_asked_for_a_restart_that_does_nothing_or_harm(
    make_stand_in: MakeStandIn, make_bench: MakeBench, state: str
) -> None:
    bench = await make_bench(await make_stand_in("1.8.6"))
    await bench.backend.check()
    bench.standin.add("sales", state)
    session = bench.hold("sales")
    assert "restart" in (await session.probe()).claim.useless
    with pytest.raises(EngineError) as caught:
        await session.restart()
    assert caught.value.code == "remote_refused"
    assert bench.standin.asked["PUT /instance/restart"] == 0


async def test_a_logout_waits_for_a_person(any_bench: Bench, eventually: Eventually) -> None:
    instance = any_bench.standin.add("sales", "open")
    session = any_bench.hold("sales")
    await session.logout()
    assert any_bench.by_id["sales"].last() == (Status.DISCONNECTED, "logout")
    await eventually(lambda: instance.creds, False)
    await session.logout()  # 2.3.x refuses the second one: it is what was wanted
    claim = (await session.probe()).claim
    assert (claim.status, claim.reason, claim.paired) == (Status.DISCONNECTED, "logout", False)
    assert await session.qr() is not None  # and a request gets a code


async def test_a_dead_session_cannot_be_logged_out_and_can_be_renewed(
    make_stand_in: MakeStandIn, make_bench: MakeBench
) -> None:
    bench = await make_bench(await make_stand_in(), pace=replace(PACE, gone_wait=0.5))
    bench.standin.add("sales", "open").dead = "closed"
    session = bench.hold("sales")
    with pytest.raises(EngineError, match="has not closed"):
        await session.logout()
    await session.renew(confirmed=True)
    assert await session.qr() is not None


async def test_a_renewed_session_keeps_its_token_settings_proxy_and_webhook(
    any_bench: Bench, eventually: Eventually
) -> None:
    standin = any_bench.standin
    before = standin.add("sales", "open")
    before.settings["rejectCall"] = True
    before.proxy = {"enabled": True, "host": "10.0.0.9", "port": "3128", "protocol": "http"}
    events = ["MESSAGES_UPSERT"]
    before.webhook = {"enabled": True, "url": "http://crm.example/in", "events": events}
    session = any_bench.hold("sales")
    await session.renew(confirmed=True)
    after = standin.instances["sales"]
    assert after is not before
    assert after.token == before.token
    assert after.settings == before.settings
    assert after.webhook is not None
    assert (after.webhook["url"], after.webhook["events"]) == ("http://crm.example/in", events)
    if not standin.old:
        assert after.proxy is not None
        assert after.proxy["host"] == "10.0.0.9"
    assert await session.qr() is not None
    claim = (await session.probe()).claim
    assert (claim.status, claim.paired) == (Status.QR_REQUIRED, False)

    kept = list((any_bench.folder / "removed" / "sales").glob("*/manifest.json"))
    assert len(kept) == 1
    manifest = json.loads(kept[0].read_text())
    assert manifest["parts"] == ["row", "settings", "webhook"]
    assert stat.S_IMODE((kept[0].parent / "instance.json").stat().st_mode) == 0o600


async def test_a_renewal_that_broke_off_is_finished_by_the_next_connect(bench: Bench) -> None:
    before = bench.standin.add("sales", "close")
    before.settings["alwaysOnline"] = True
    session = bench.hold("sales")
    create = bench.standin.front
    await create.set("failing", only="/instance/create")
    with pytest.raises(EngineError) as caught:
        await session.renew(confirmed=True)
    assert caught.value.code == "backend_down"
    assert bench.standin.instances == {}
    await create.set("")
    await session.connect()
    after = bench.standin.instances["sales"]
    assert after.token == before.token
    assert after.settings["alwaysOnline"] is True
    # Given back once: what is created later is a new one.
    del bench.standin.instances["sales"]
    await session.connect()
    assert bench.standin.instances["sales"].token != before.token


async def test_nothing_is_deleted_that_could_not_be_kept(bench: Bench) -> None:
    instance = bench.standin.add("sales", "open")
    (bench.folder / "removed").write_text("a file where the folder should be")
    with pytest.raises(EngineError, match="cannot back up sales") as caught:
        await bench.hold("sales").renew(confirmed=True)
    assert caught.value.code == "backup_failed"
    assert instance.token not in str(caught.value)
    assert bench.standin.instances["sales"] is instance
    assert instance.state == "open"


async def test_a_session_is_watched_by_one_instance_only(bench: Bench) -> None:
    first = bench.hold("sales", "Sales")
    assert bench.hold("sales", "Sales") is first
    with pytest.raises(InvalidRequest) as caught:
        bench.hold("other", "Sales")
    assert caught.value.code == "remote_taken"
    moved = bench.hold("sales", "Elsewhere")
    assert moved is not first
    assert bench.hold("other", "Sales").remote == "Sales"
    for name in ("..", "."):
        with pytest.raises(InvalidRequest):
            bench.hold("third", name)


async def test_a_session_is_asked_whose_it_is_before_it_counts_after_its_server_was_away(
    bench: Bench,
) -> None:
    """A server with a database of yesterday says `open` at once: no state changed."""
    held = bench.standin.add("sales", "open")
    session = bench.hold("sales")
    first = (await session.probe()).claim
    await bench.standin.front.set("refuse")
    assert not (await bench.backend.check()).up
    held.number = "5511900000001"
    held.row.set(ownerJid=held.wuid)
    await bench.standin.front.set("")
    claim = (await session.probe()).claim
    assert (claim.status, claim.proof_age) == (Status.CONNECTED, 0.0)
    assert first.account != claim.account == held.number


async def test_the_row_of_a_session_is_its_own_where_the_server_shows_all(bench: Bench) -> None:
    for name in ("other", "sales"):
        bench.standin.add(name, "open")
    bench.standin.shows_all = True
    claim = (await bench.hold("sales").probe()).claim
    assert f"{claim.account}@s.whatsapp.net" == bench.standin.instances["sales"].wuid
