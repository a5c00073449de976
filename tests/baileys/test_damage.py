"""Which records are damaged is judged on what real clients store, and on what stops them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.backends.whaticket.keys import JUDGED, is_record
from tests.baileys.conftest import ACCOUNT, NEIGHBOUR, PEER, Bed, is_read, one_package, session_of
from tests.standin.baileys.run import TOKEN

pytestmark = pytest.mark.slow

GROUP = "120363000000000001@g.us"


async def hear(bed: Bed, sender: str, text: str) -> None:
    """A contact writes to the group, and the account's client can read it."""
    id = bed.whatsapp.say_in_group(sender, ACCOUNT, GROUP, text)
    await bed.eventually(lambda: is_read(bed.whatsapp.receipts(ACCOUNT, id)), within=60)


def sender_key_of(bed: Bed, who: str) -> str:
    """The account's own device is number 1, a phone is number 0."""
    user = f"1{who}_1" if bed.package == "baileys" else who
    return f"sender-key-{GROUP}--{user}--{int(who == ACCOUNT)}.json"


SCRIPT = Path(__file__).parents[2] / "scripts" / "auto-fix-sessions.sh"


def run_round(bed: Bed) -> str:
    place = bed.folder.parent
    settings = {
        "PATH": os.environ["PATH"],
        "PYTHON": sys.executable,
        "BACKEND_URL": bed.server.url,
        "BACKEND_TOKEN": TOKEN,
        "LOG_FILE": str(bed.log),
        "SESSIONS_DIR": str(bed.folder),
        "STATE_DIR": str(place / "state"),
        "AUDIT_LOG": str(place / "audit.log"),
        "WA_AGENT_SOCKET": str(place / "no-agent.sock"),
    }
    done = subprocess.run(
        [SCRIPT, "all"], env=settings, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def damaged(bed: Bed) -> list[str]:
    stored = {name.removesuffix(".json"): raw for name, raw in bed.files().items()}
    bad = [it for it, raw in stored.items() if JUDGED.fullmatch(it) and not is_record(it, raw)]
    return [f"{name}.json" for name in bad]


async def test_no_record_of_a_working_client_is_called_damaged(bed: Bed) -> None:
    await bed.pair()
    await bed.talk(NEIGHBOUR, "one")
    await bed.talk(PEER, "one")
    bed.whatsapp.make_group(GROUP, [ACCOUNT, PEER, NEIGHBOUR])
    await hear(bed, PEER, "in the group")
    bed.server.send(GROUP, "and back")
    await bed.eventually(lambda: bed.heard(PEER, "and back"), within=60)
    bed.server.disconnect()
    judged = {name.removesuffix(".json"): raw for name, raw in bed.files().items()}
    judged = {name: raw for name, raw in judged.items() if JUDGED.fullmatch(name)}
    kinds = ("session-", "pre-key-", "sender-key-120", "sender-key-memory-")
    for kind in kinds:
        assert any(name.startswith(kind) for name in judged), kind
    assert damaged(bed) == []
    for name, raw in judged.items():
        if raw != b"null":
            assert not is_record(name, raw[: len(raw) // 2]), name


@one_package
async def test_damaged_records_that_no_log_line_names_are_found_and_the_client_reads_again(
    bed: Bed,
) -> None:
    """A session and a group's sender key that are JSON, and still nothing that libsignal can use:
    the client fails on them for ever, with lines that name no peer."""
    await bed.pair()
    await bed.talk(NEIGHBOUR, "one")
    await bed.talk(PEER, "one")
    bed.whatsapp.make_group(GROUP, [ACCOUNT, PEER, NEIGHBOUR])
    await hear(bed, PEER, "in the group")
    run_round(bed)  # the first one: what the log held before does not count
    bed.server.disconnect()
    session, group = session_of(bed, PEER), bed.auth / sender_key_of(bed, PEER)
    told = json.loads(session.read_bytes())
    next(iter(told["_sessions"].values()))["currentRatchet"]["rootKey"] = ""
    session.write_text(json.dumps(told))
    group.write_text('{"type":"Buffer","data":"e30="}')
    assert sorted(damaged(bed)) == sorted([session.name, group.name])
    bed.server.start_session()
    await bed.connected()
    with bed.log.open("a") as log:
        log.write("Session error:Error: Bad MAC Error: Bad MAC\n    at x (y.js)\n\n" * 5)
    before = bed.files()
    assert "recovered" in run_round(bed)
    await bed.connected()
    assert bed.codes_shown() == 1
    assert set(before) - set(bed.files()) == {session.name, group.name}
    await bed.talk(PEER, "with new keys")
    await hear(bed, PEER, "again")
    assert damaged(bed) == []
