"""The script for cron and containers, on a server whose sessions are real Baileys clients."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.baileys.conftest import ACCOUNT, NEIGHBOUR, PEER, Bed, one_package
from tests.baileys.test_one_peer import break_session, session_of
from tests.standin.baileys.run import TOKEN

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "scripts" / "auto-fix-sessions.sh"


def run_round(bed: Bed) -> str:
    place = bed.folder.parent
    settings = {
        "PATH": os.environ["PATH"],
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


@one_package
async def test_a_round_by_the_script_heals_a_real_session(bed: Bed) -> None:
    await bed.pair()
    await bed.talk(NEIGHBOUR, "one")
    await bed.talk(PEER, "one")
    await break_session(bed, PEER)
    run_round(bed)  # the first one: what the log held before does not count
    assert session_of(bed, PEER).exists()

    bed.whatsapp.answers_retries(PEER, False)
    begun = len(bed.log.read_text())
    for number in range(5):
        bed.whatsapp.say(PEER, ACCOUNT, f"lost {number}")
    await bed.eventually(lambda: bed.log.read_text()[begun:].count("Session error:") >= 5)

    before = bed.files()
    run_round(bed)
    await bed.connected()
    assert bed.codes_shown() == 1
    removed = set(before) - set(bed.files())
    assert session_of(bed, PEER).name in removed
    assert not {name for name in removed if NEIGHBOUR in name or name.startswith("pre-key-")}
    kept = {name: raw for name, raw in before.items() if name not in removed}
    await bed.eventually(lambda: bed.files() == kept)
    (copy,) = (bed.folder.parent / "state").rglob(session_of(bed, PEER).name)
    assert copy.read_bytes() == before[session_of(bed, PEER).name]

    bed.whatsapp.answers_retries(PEER, True)
    await bed.talk(PEER, "with new keys")
    await bed.hear(NEIGHBOUR, "with the old ones")
