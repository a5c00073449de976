"""The store under kills, full disks, damage and one peer's removed keys: no pairing is lost."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.core.words import ConnectionStatus, Happening
from agent.engines.baileys.peer_keys import set_aside
from tests.engines.baileys.conftest import ACCOUNT, PEER, Bench
from tests.full import fill

pytestmark = pytest.mark.slow


def read(bench: Bench) -> set[str]:
    """The ids of the messages that came, by their receipts."""
    receipts = bench.whatsapp.device(ACCOUNT)["receipts"]
    return {each["id"] for each in receipts if each["type"] in ("delivered", "inactive")}


async def test_a_message_whose_receipt_never_came_is_asked_for_and_read(bench: Bench) -> None:
    await bench.come_paired()
    whatsapp = bench.whatsapp
    await asyncio.to_thread(whatsapp.tell, "/ambush", {"stage": "first", "kind": "drop"})
    id = await asyncio.to_thread(whatsapp.say, PEER, ACCOUNT, "first")
    await bench.until(lambda: bench.heard.last.status == "DISCONNECTED")
    assert whatsapp.receipts(ACCOUNT, id) == []
    await bench.engine.connect()
    await bench.until(lambda: id in read(bench))
    await bench.talk("later")


async def test_a_full_disk_stops_the_session_by_name_and_loses_nothing(
    bench: Bench, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("size=24m,mode=700")
    bench.folder = disk / "session"
    bench.folder.mkdir()
    await bench.come_paired()
    await bench.talk("before")
    await bench.engine.save()
    filler = fill(disk)
    await asyncio.to_thread(bench.whatsapp.say, PEER, ACCOUNT, "into the full disk")
    await bench.is_now("DISCONNECTED", "storage_failed")
    assert "ENOSPC" in bench.heard.last.raw
    json.loads((bench.folder / "creds.json").read_text())
    # The same engine, as the agent's next try has it; the disk is still full.
    await bench.engine.connect()
    await bench.is_now("DISCONNECTED", "storage_failed")
    filler.unlink()
    await bench.come_back()
    await bench.talk("in the same worker")
    before = bench.heard.count("message", direction="in")
    await bench.restart()
    await bench.until(lambda: bench.heard.count("message", direction="in") + before >= 1)
    await bench.talk("after")


async def test_a_damaged_pairing_is_named_and_left_as_it_is(bench: Bench) -> None:
    await bench.lay_paired()
    creds = bench.folder / "creds.json"
    whole = creds.read_bytes()
    creds.write_bytes(whole[: len(whole) // 2])
    await bench.start()
    await bench.is_now("AUTH_FAILURE", "session_damaged")
    assert "creds.json" in bench.heard.last.raw
    assert (await bench.engine.probe()).claim.reason == "session_damaged", "no failed ping"
    await bench.stop()
    assert creds.read_bytes() == whole[: len(whole) // 2]
    creds.unlink()
    await bench.start()
    await bench.is_now("AUTH_FAILURE", "session_missing")
    await bench.stop()
    assert not creds.exists(), "no new identity over the keys of an old one"
    creds.write_bytes(whole)
    await bench.come_up()


async def test_the_keys_of_a_peer_are_renewed_and_no_other_file_changes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.come_paired()
    await bench.talk("hello")
    await bench.talk("hello", "5511900000003")
    await bench.stop()
    session = next(bench.folder.glob("session-*900000002*"))
    record = json.loads(session.read_text())
    # A record out of step: its receiving chains are another conversation's.
    text = json.dumps(record)
    others = json.loads(next(bench.folder.glob("session-*900000003*")).read_text())
    session.write_text(json.dumps({**record, "_sessions": others.get("_sessions", {})}))
    await bench.come_up()
    bench.whatsapp.answers_retries(PEER, False)
    await asyncio.to_thread(bench.whatsapp.say, PEER, ACCOUNT, "cannot be read")
    await bench.until(lambda: bench.heard.count("crypto_error") >= 1)
    errors = [h for h in bench.heard.happenings if h.kind == "crypto_error"]
    own = f"1{PEER}_1"
    assert {h.detail["peer"] for h in errors} == {own}
    assert not any("stranger" in h.detail for h in errors), "its keys are held"
    assert text not in str(bench.heard.happenings)

    bench.whatsapp.answers_retries(PEER, True)
    # A pre-key may be spent by a message that is sent again.
    names = {path.name for path in bench.folder.glob("[!p]*.json")}
    meanwhile, happened = [], bench.heard.happened

    def note_claim(happening: Happening) -> None:
        if happening.kind == "key_regeneration":
            meanwhile.append(bench.heard.last.status)
        happened(happening)

    monkeypatch.setattr(bench.heard, "happened", note_claim)
    await bench.engine.regenerate_keys([PEER])
    await bench.is_now("CONNECTED")
    assert meanwhile == [ConnectionStatus.INITIALIZING], "its connection was closed for it"
    shelf = next((bench.folder / "removed-keys").iterdir())
    removed = {path.name for path in shelf.iterdir()}
    assert removed
    assert all("900000002" in name for name in removed)
    assert {path.name for path in bench.folder.glob("*.json")} >= names - removed
    await bench.hear("can be read again")
    (again,) = [h for h in bench.heard.happenings if h.kind == "message"][-1:]
    assert own in (again.detail["peer"], again.detail.get("alias")), "its errors are over"


def test_only_the_peers_own_records_are_put_aside(tmp_path: Path) -> None:
    kept = ["creds.json", "pre-key-1.json", "session-5511900000003.0.json", "baileys.json"]
    theirs = ["session-5511900000002.0.json", "session-5511900000002.7.json"]
    theirs += ["session-15511900000002_1.0.json", "identity-key-5511900000002.0.json"]
    theirs += ["sender-key-1@g.us--5511900000002--0.json"]
    for name in (*kept, *theirs):
        (tmp_path / name).write_text("{}")
    (tmp_path / "lid-mapping-5511900000002.json").write_text('"15511900000002"')
    assert set_aside(tmp_path, ["5511900000002@s.whatsapp.net"]) == sorted(theirs)
    left = {path.name for path in tmp_path.glob("*.json")}
    assert left == {*kept, "lid-mapping-5511900000002.json"}
    assert set_aside(tmp_path, ["5511900000009"]) == []
