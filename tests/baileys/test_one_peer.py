"""The proof on real files: only what is corrupted is removed, and the same client goes on."""

import time
from pathlib import Path

import pytest

from agent.core.findings.crypto_patterns import CryptoFinding, CryptoLogReader
from agent.engines.whaticket.keys.folder import AuthFolder
from tests.baileys.conftest import ACCOUNT, NEIGHBOUR, PEER, Bed, is_read

pytestmark = pytest.mark.slow


def session_of(bed: Bed, who: str) -> Path:
    """The file of the keys with one person; 7.x names it after the LID."""
    name = f"session-1{who}_1.0.json" if bed.package == "baileys" else f"session-{who}.0.json"
    return bed.auth / name


def address_of(bed: Bed, who: str) -> str:
    return f"1{who}_1" if bed.package == "baileys" else who


def remove_peer(auth: Path, who: str) -> set[str]:
    """By the agent's own rule, and by nothing of the agent but the rule."""
    place = AuthFolder(str(auth.parent / "{id}"))
    gone = place.names(auth.name, place.other_names(auth.name, {who}))
    for name in gone:
        (auth / name).unlink()
    return set(gone)


def read_log(text: str) -> list[CryptoFinding]:
    reader, found = CryptoLogReader(), []
    for line in text.splitlines():
        reader, told = reader.feed(line)
        found += told
    return [*found, *reader.flush()[1]]


async def break_session(bed: Bed, who: str) -> None:
    """The file of the keys with one person comes from an old copy, as after a bad restore."""
    bed.server.disconnect()
    old = session_of(bed, who).read_bytes()
    bed.server.start_session()
    await bed.connected()
    await bed.talk(who, "two")
    await bed.talk(who, "three")
    bed.server.disconnect()
    session_of(bed, who).write_bytes(old)
    bed.server.start_session()
    await bed.connected()


async def test_a_corrupted_peer_is_healed_and_nothing_else_is_touched(bed: Bed) -> None:
    await bed.pair()
    await bed.talk(NEIGHBOUR, "one")
    await bed.talk(PEER, "one")
    await break_session(bed, PEER)

    # The client itself says so, on its console, and names the peer by its Signal address.
    bed.whatsapp.answers_retries(PEER, False)
    begun = len(bed.log.read_text())
    lost = [bed.whatsapp.say(PEER, ACCOUNT, f"lost {number}") for number in range(2)]
    await bed.eventually(
        lambda: all("retry" in bed.whatsapp.receipts(ACCOUNT, each) for each in lost), within=60
    )
    said = bed.log.read_text()[begun:]
    assert "Session error:Error: Bad MAC Error: Bad MAC" in said
    bad = [each for each in read_log(said) if each.name == "bad_mac"]
    assert [each.peer for each in bad] == [address_of(bed, PEER)] * 2

    bed.server.disconnect()
    before = bed.files()
    removed = remove_peer(bed.auth, PEER)
    assert session_of(bed, PEER).name in removed
    kept = {name: raw for name, raw in before.items() if name not in removed}
    started = time.time_ns()
    bed.server.start_session()
    await bed.connected()
    assert bed.codes_shown() == 1, "it came back without a QR"

    # A login writes creds.json again, with the same in it; no other file is different or new.
    creds = bed.auth / "creds.json"
    await bed.eventually(lambda: creds.stat().st_mtime_ns > started and creds.stat().st_size)
    await bed.eventually(lambda: bed.files() == kept)

    # The neighbour's keys go on as if nothing had been; the peer's are made again.
    begun = len(bed.log.read_text())
    old = bed.whatsapp.say(NEIGHBOUR, ACCOUNT, "with the keys of before")
    await bed.eventually(lambda: is_read(bed.whatsapp.receipts(ACCOUNT, old)), within=60)
    assert "retry" not in bed.whatsapp.receipts(ACCOUNT, old)
    bed.whatsapp.answers_retries(PEER, True)
    assert await bed.send(PEER, "new keys") == "pkmsg"
    await bed.hear(PEER, "got them")
    await bed.talk(PEER, "and they go on")
    assert not [each for each in read_log(bed.log.read_text()[begun:]) if each.name == "bad_mac"]
