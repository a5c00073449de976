"""What sessions save when their machine stops in order is in the fleet's database."""

import io
import tarfile
from pathlib import Path

from agent.fleet.copies.take import LIMITS
from agent.fleet.key import copy_context
from agent.vault.archives.pack import INNER
from agent.vault.archives.unpack import read_archive_manifest
from tests.conftest import Eventually
from tests.fleet.agents import FleetOfAgents, fleet_of_agents

LONG_LAG = {"WA_AGENT_FLEET__COPY_LAG": "60"}


async def stored_session(fleet: FleetOfAgents, id: str) -> bytes | None:
    """The session's file in its stored copy."""
    for session, epoch, packed in await fleet.rows(
        "SELECT session, epoch, packed FROM wa_agent.copy"
    ):
        if session == id:
            archive = fleet.key.open(copy_context(id, epoch), packed)
            assert read_archive_manifest(io.BytesIO(archive), LIMITS).paired
            with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
                inside = tar.extractfile(f"{INNER}sandbox.json")
                assert inside is not None
                return inside.read()
    return None


async def test_n17_an_ordered_stop_stores_what_sessions_save_at_their_end(
    tmp_path: Path, eventually: Eventually
) -> None:
    """Its copies are late by `copy_lag`; the machine may be away for ever from now on."""
    async with fleet_of_agents(["a"], tmp_path, env=LONG_LAG) as fleet:
        await fleet.create("x", on="a")
        machine = fleet["a"]
        await eventually(lambda: machine.status("x"), "CONNECTED", within=30)
        assert await machine.stop() == 0
        file = machine.state / "sessions" / "x" / "session" / "sandbox.json"
        assert await stored_session(fleet, "x") == file.read_bytes()
        assert "store what they saved for the fleet: done" in machine.log.read_text()


async def test_n17_a_stop_without_its_database_ends_and_names_what_is_not_stored(
    tmp_path: Path, eventually: Eventually
) -> None:
    async with fleet_of_agents(["a"], tmp_path, env=LONG_LAG) as fleet:
        await fleet.create("x", on="a")
        machine = fleet["a"]
        await eventually(lambda: machine.status("x"), "CONNECTED", within=30)
        fleet.database.kill()
        assert await machine.stop() == 0
        told = machine.log.read_text()
        assert "the fleet's database lacks the last changes of 1 sessions: x" in told
