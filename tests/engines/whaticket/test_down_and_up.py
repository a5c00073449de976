"""The round on a real server with real files: only what is corrupted goes, nothing is lost."""

import asyncio
import json
import stat
from pathlib import Path

import pytest

from agent.core.model import ConnectionStatus as Status
from agent.errors import EngineError

PEER, OTHER = "5511999990001", "5511999990002"
LID = "123456789012345"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def identities(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.iterdir()
    }


REMOVED = [
    f"identity-key-{LID}_1.0.json",
    f"sender-key-120363000000000001@g.us--{LID}_1--0.json",
    f"sender-key-120363000000000001@g.us--{PEER}--0.json",
    f"session-{LID}_1.0.json",
    f"session-{PEER}.0.json",
    f"session-{PEER}.12.json",
]


async def connected(bench, *ids, eventually):
    for id in ids:
        await eventually(lambda id=id: bench.stand_in.sessions[id].status, "CONNECTED")


async def test_a_round_removes_one_peers_files_and_nothing_else(open_bench, eventually):
    bench = await open_bench()
    theirs = await bench.paired("7")
    untouched = await bench.paired("70")
    untouched.pace = type(untouched.pace)(write_every=1000.0)
    await bench.open()
    session = bench.hold("shop", "7")
    await connected(bench, "7", "70", eventually=eventually)
    await theirs.damage(PEER)
    assert not theirs.receive(PEER)
    neighbour, before = identities(bench.auth("70")), contents(bench.auth("7"))

    await session.regenerate_keys([PEER])

    assert theirs.status == "CONNECTED"
    assert theirs.logouts == 0
    assert identities(bench.auth("70")) == neighbour
    after = contents(bench.auth("7"))
    gone = sorted(set(before) - set(after))
    assert gone == REMOVED
    assert {name: after[name] for name in after} == {name: before[name] for name in after}
    # The same peer can be read again, with a record that is made again.
    assert theirs.receive(PEER)
    [happening] = [h for h in bench.of["shop"].happenings if h.kind == "key_regeneration"]
    assert happening.detail == {"peer": PEER, "ok": True}


async def test_a_removal_is_kept_with_its_manifest_and_can_be_put_back(open_bench, eventually):
    bench = await open_bench()
    theirs = await bench.paired("7")
    await bench.open()
    session = bench.hold("shop", "7")
    await connected(bench, "7", eventually=eventually)
    await theirs.damage(PEER)
    before = contents(bench.auth("7"))
    await session.regenerate_keys([f"{PEER}.12"])

    [folder] = (bench.kept / "removed" / "7").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["state"] == "done"
    assert [file["name"] for file in manifest["files"]] == REMOVED
    assert stat.S_IMODE((folder / "manifest.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    kept = contents(folder / "files")
    assert kept == {name: before[name] for name in REMOVED}

    assert theirs.receive(PEER)
    listed = await session.command("removed", {})
    assert [each["name"] for each in listed["removed"]] == [folder.name]
    await session.command("restore_removed", {"name": folder.name})
    assert theirs.status == "CONNECTED"
    assert not theirs.receive(PEER)  # the damaged record is back
    after = contents(bench.auth("7"))
    assert {name: after[name] for name in before} == before
    # What stood in its way was not lost either.
    assert len(list((bench.kept / "removed" / "7").iterdir())) == 2
    with pytest.raises(EngineError, match="put back already"):
        await session.command("restore_removed", {"name": folder.name})


async def test_files_are_not_touched_while_the_server_stays_connected(open_bench, eventually):
    bench = await open_bench(disconnect_within=0.7)
    await bench.paired("7")
    await bench.open()
    session = bench.hold("shop", "7")
    await connected(bench, "7", eventually=eventually)
    bench.stand_in.faults.stays_connected = True
    before = set(contents(bench.auth("7")))
    with pytest.raises(EngineError, match="still not down") as caught:
        await session.regenerate_keys([PEER])
    assert caught.value.code == "still_connected"
    assert set(contents(bench.auth("7"))) == before
    assert bench.stand_in.sessions["7"].status == "CONNECTED"
    [told] = [h for h in bench.of["shop"].happenings if h.kind == "key_regeneration"]
    assert told.detail == {"peer": PEER, "ok": False, "code": "still_connected"}


async def test_a_record_that_is_written_again_is_noticed(open_bench, eventually):
    bench = await open_bench()
    theirs = await bench.paired("7")
    await bench.open()
    session = bench.hold("shop", "7")
    await connected(bench, "7", eventually=eventually)
    await theirs.damage(PEER)
    bench.stand_in.faults.writes_when_down = True
    with pytest.raises(EngineError, match="written again") as caught:
        await session.regenerate_keys([PEER])
    assert caught.value.code == "written_back"
    assert theirs.status == "CONNECTED"  # it was started again all the same


async def test_a_start_that_is_refused_leaves_the_pairing_where_it_is(open_bench, eventually):
    bench = await open_bench()
    theirs = await bench.paired("7")
    await bench.open()
    session = bench.hold("shop", "7")
    await connected(bench, "7", eventually=eventually)
    bench.stand_in.faults.refuses_start = 500
    creds = (bench.auth("7") / "creds.json").read_bytes()
    with pytest.raises(EngineError, match="500 ERR_CREATING_SESSION") as caught:
        await session.regenerate_keys([PEER])
    assert caught.value.code == "remote_refused"
    assert (bench.auth("7") / "creds.json").read_bytes() == creds
    assert not (bench.auth("7") / f"session-{PEER}.0.json").exists()
    bench.stand_in.faults.refuses_start = 0
    await session.connect()
    await eventually(lambda: theirs.status, "CONNECTED")


async def test_damaged_creds_are_never_replaced_by_a_start(open_bench, eventually):
    """Baileys would begin with empty ones; while it runs it still has the good ones."""
    bench = await open_bench()
    theirs = await bench.paired("7")
    await bench.open()
    session = bench.hold("shop", "7")
    await connected(bench, "7", eventually=eventually)
    theirs.pace.write_every = 1000.0
    await eventually(lambda: theirs.rests, 1000.0)
    whole = (bench.auth("7") / "creds.json").read_bytes()
    (bench.auth("7") / "creds.json").write_bytes(whole[:20])
    for repair in (lambda: session.regenerate_keys([PEER]), session.restart):
        with pytest.raises(EngineError, match="its creds are damaged") as caught:
            await repair()
        assert caught.value.code == "session_damaged"
    assert theirs.status == "CONNECTED"
    assert (bench.auth("7") / f"session-{PEER}.0.json").exists()

    await theirs.end()
    theirs.status = "DISCONNECTED"
    claim = (await session.probe()).claim
    assert (claim.status, claim.reason) == (Status.AUTH_FAILURE, "session_damaged")
    with pytest.raises(EngineError, match="its creds are damaged"):
        await session.connect()
    assert (bench.auth("7") / "creds.json").read_bytes() == whole[:20]
    await session.renew(confirmed=True)
    [folder] = (bench.kept / "removed" / "7").iterdir()
    assert (folder / "files" / "creds.json").read_bytes() == whole[:20]


async def test_a_connected_session_without_stored_creds_is_left_connected(open_bench, eventually):
    bench = await open_bench(auth_folder="/nowhere/{id}")
    theirs = await bench.paired("7")
    await bench.open()
    session = bench.hold("shop", "7")
    await connected(bench, "7", eventually=eventually)
    with pytest.raises(EngineError) as caught:
        await session.regenerate_keys([PEER])
    assert caught.value.code in ("files", "session_missing")
    bench.stand_in.pace.write_every = 1000.0
    await eventually(lambda: theirs.rests, 1000.0)
    await bench.close()
    await bench.open(auth_folder=f"{bench.root}/auth/{{id}}")
    session = bench.hold("shop", "7")
    (bench.auth("7") / "creds.json").unlink()
    with pytest.raises(EngineError) as caught:
        await session.regenerate_keys([PEER])
    assert caught.value.code == "session_missing"
    assert theirs.status == "CONNECTED"
    assert not any("disconnect" in each for each in bench.stand_in.requests)


async def test_a_pairing_that_is_lost_on_the_way_is_said(open_bench, eventually):
    bench = await open_bench()
    await bench.paired("7")
    await bench.open()
    session = bench.hold("shop", "7")
    await connected(bench, "7", eventually=eventually)
    bench.stand_in.faults.loses_pairing = True
    with pytest.raises(EngineError, match="asks for a new pairing") as caught:
        await session.regenerate_keys([PEER])
    assert caught.value.code == "pairing_lost"
    claim = (await session.probe()).claim
    assert (claim.status, claim.paired) == (Status.QR_REQUIRED, False)


async def test_a_peer_without_keys_is_no_reason_to_interrupt_a_session(open_bench, eventually):
    """Nothing that takes nothing away is a repair: the ladder goes on to its next step."""
    bench = await open_bench()
    theirs = await bench.paired("7")
    await bench.open()
    session = bench.hold("shop", "7")
    await connected(bench, "7", eventually=eventually)
    starts, before = theirs.starts, contents(bench.auth("7"))
    for peers in (["5599888887777"], []):
        with pytest.raises(EngineError, match="no stored record is damaged") as caught:
            await session.regenerate_keys(peers)
        assert caught.value.code == "nothing_to_remove"
    assert (theirs.starts, theirs.status) == (starts, "CONNECTED")
    assert contents(bench.auth("7")) == before
    assert not (bench.kept / "removed").exists()


async def test_a_link_in_the_place_of_a_file_or_folder_is_refused(open_bench, eventually, tmp_path):
    bench = await open_bench()
    theirs = await bench.paired("7")
    await bench.open()
    session = bench.hold("shop", "7")
    await connected(bench, "7", eventually=eventually)
    precious = tmp_path / "precious"
    precious.write_text("mine")
    theirs.memory.pop(f"session-{PEER}.0")
    place = bench.auth("7") / f"session-{PEER}.0.json"
    place.unlink()
    place.symlink_to(precious)
    with pytest.raises(EngineError, match=r"cannot read .*session-5511999990001\.0\.json"):
        await session.regenerate_keys([PEER])
    assert precious.read_text() == "mine"
    assert place.is_symlink()
    assert (bench.auth("7") / f"session-{PEER}.12.json").exists()
    assert theirs.status == "CONNECTED"

    await session.disconnect()
    bench.auth("7").rename(tmp_path / "elsewhere")
    bench.auth("7").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EngineError, match="cannot open"):
        await session.regenerate_keys([PEER])
    assert len(contents(tmp_path / "elsewhere")) > 10


async def test_a_repair_whose_caller_left_brings_the_session_up(open_bench, eventually):
    bench = await open_bench()
    theirs = await bench.paired("7")
    await bench.open()
    session = bench.hold("shop", "7")
    await connected(bench, "7", eventually=eventually)
    asking = asyncio.create_task(session.regenerate_keys([PEER]))
    await eventually(lambda: theirs.status, "DISCONNECTED")
    asking.cancel()
    with pytest.raises(EngineError) as caught:
        await session.regenerate_keys([OTHER])
    assert caught.value.code == "busy"
    await eventually(lambda: theirs.status, "CONNECTED")
    assert not (bench.auth("7") / f"session-{PEER}.0.json").exists()


async def test_a_closing_worker_ends_the_round_that_has_begun(open_bench, eventually):
    bench = await open_bench()
    theirs = await bench.paired("7")
    await bench.open()
    session = bench.hold("shop", "7")
    await connected(bench, "7", eventually=eventually)
    asking = asyncio.create_task(session.regenerate_keys([PEER]))
    await eventually(lambda: theirs.status, "DISCONNECTED")
    await bench.close()
    assert theirs.status == "CONNECTED"
    await asking


# --- beginning again --------------------------------------------------------------------------


async def test_a_renewal_retires_the_whole_folder_and_shows_a_code(open_bench, eventually):
    bench = await open_bench()
    theirs = await bench.paired("7")
    await bench.paired("70")
    await bench.open()
    session = bench.hold("shop", "7")
    await connected(bench, "7", "70", eventually=eventually)
    before = contents(bench.auth("7"))
    await session.renew(confirmed=True)
    assert theirs.status == "qrcode"
    [folder] = (bench.kept / "removed" / "7").iterdir()
    assert contents(folder / "files") == before
    assert theirs.logouts == 0
    assert (await session.qr()).text == theirs.qrcode
    assert bench.stand_in.sessions["70"].status == "CONNECTED"
    # A person scans, and the pairing of before can still be had back.
    theirs.scan()
    await eventually(lambda: theirs.status, "CONNECTED")
    await session.command("restore_removed", {"name": folder.name})
    assert theirs.status == "CONNECTED"
    creds = json.loads((bench.auth("7") / "creds.json").read_text())
    assert creds["me"]["id"].startswith("551100000007")


async def test_a_renewal_puts_the_pairing_back_if_the_start_is_refused(open_bench, eventually):
    bench = await open_bench()
    theirs = await bench.paired("7")
    await bench.open()
    session = bench.hold("shop", "7")
    await connected(bench, "7", eventually=eventually)
    before = contents(bench.auth("7"))
    bench.stand_in.faults.refuses_start = 400
    with pytest.raises(EngineError, match="400"):
        await session.renew(confirmed=True)
    assert contents(bench.auth("7")) == before
    bench.stand_in.faults.refuses_start = 0
    await session.connect()
    await eventually(lambda: theirs.status, "CONNECTED")


@pytest.mark.parametrize("preset", ["saas"])
async def test_public_servers_renew_by_their_own_route_after_a_copy(open_bench, eventually, preset):
    bench = await open_bench(preset=preset)
    theirs = await bench.paired("7")
    await bench.open()
    session = bench.hold("shop", "7")
    await connected(bench, "7", eventually=eventually)
    before = contents(bench.auth("7"))
    await session.renew(confirmed=True)
    assert theirs.status == "qrcode"
    [folder] = (bench.kept / "removed" / "7").iterdir()
    assert contents(folder / "files") == before
    assert theirs.logouts == 0


# --- what the public servers cannot do -------------------------------------------------------


@pytest.mark.parametrize("preset", ["saas", "ticketz"])
async def test_a_route_that_logs_out_is_never_used_for_a_repair(open_bench, eventually, preset):
    bench = await open_bench(preset=preset)
    theirs = await bench.paired("7")
    await bench.open()
    session = bench.hold("shop", "7")
    await connected(bench, "7", eventually=eventually)
    before = set(contents(bench.auth("7")))
    for repair in (session.disconnect, lambda: session.regenerate_keys([PEER])):
        with pytest.raises(EngineError) as caught:
            await repair()
        assert caught.value.code == "not_supported"
        assert "pairing" in str(caught.value)
    assert (await session.probe()).claim.useless == ("reconnect",), "no repair tries it"
    await session.restart()
    await eventually(lambda: theirs.status, "CONNECTED")
    assert theirs.logouts == 0
    assert set(contents(bench.auth("7"))) == before
    route = {"ticketz": "GET /whatsappsession/refresh/7"}.get(preset, "POST /whatsappsession/7")
    assert route in bench.stand_in.requests
    assert not any(each.startswith("DELETE") for each in bench.stand_in.requests)


async def test_a_full_disk_removes_nothing(open_bench, eventually, small_disk):
    bench = await open_bench()
    theirs = await bench.paired("7")
    disk = small_disk("size=64k")
    await bench.open()
    session = bench.hold("shop", "7")
    (disk / "removed").mkdir()
    (bench.kept / "removed").symlink_to(disk / "removed")
    (disk / "filler").write_bytes(b"x" * 40_000)
    with (disk / "more").open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
        while True:
            file.write(b"x" * 4096)
    await connected(bench, "7", eventually=eventually)
    await session.probe()  # it has logged in
    before, asked = contents(bench.auth("7")), len(bench.stand_in.requests)
    for change in (lambda: session.regenerate_keys([PEER]), lambda: session.renew(confirmed=True)):
        with pytest.raises(EngineError, match="no space left") as caught:
            await change()
        assert caught.value.code == "disk_full"
    assert contents(bench.auth("7")) == before
    assert theirs.status == "CONNECTED"
    new = [line for line in bench.stand_in.requests[asked:] if "GET" not in line]
    assert new == [], "it was never taken down"


async def test_without_a_peer_the_damaged_records_are_taken_out(open_bench, eventually):
    bench = await open_bench()
    theirs = await bench.paired("7")
    await bench.open()
    session = bench.hold("shop", "7")
    await connected(bench, "7", eventually=eventually)
    await theirs.damage(PEER)
    await theirs.damage(OTHER)
    before = set(contents(bench.auth("7")))
    await session.regenerate_keys([])
    gone = before - set(contents(bench.auth("7")))
    assert gone == {f"session-{PEER}.0.json", f"session-{OTHER}.0.json"}
    assert (theirs.status, theirs.logouts) == ("CONNECTED", 0)
    assert theirs.receive(PEER)
    assert theirs.receive(OTHER)
