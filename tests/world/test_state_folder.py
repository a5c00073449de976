"""A database that is lost or not the newest, and identities without it."""

import contextlib
import json
import shutil
import sqlite3

from tests.waiting import connected


def copy_database(source, target):
    with (
        contextlib.closing(sqlite3.connect(source)) as db,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        db.backup(copy)


async def test_of_an_older_database_and_the_folders_the_newer_holds(agent, eventually):
    await connected(agent, eventually, "a", "b", "deleted")
    await agent.create("unscanned", scan="manual")
    await eventually(lambda: agent.status("unscanned"), "QR_REQUIRED")
    database, kept = agent.state / "agent.db", agent.state / "kept"
    copy_database(database, kept)

    await agent.do("POST", "/api/instance/b/disable")
    await agent.do("PATCH", "/api/instance/a", {"settings": {"scan": "auto", "scan_after": 0.07}})
    await agent.do("POST", "/api/instance/unscanned/sandbox/scan")
    await eventually(lambda: agent.status("unscanned"), "CONNECTED")
    await connected(agent, eventually, "new")
    await agent.do("DELETE", "/api/instance/deleted")
    assert await agent.stop() == 0
    agent.lose_database()
    kept.rename(database)

    await agent.start()
    for id in ("a", "unscanned", "new"):
        await eventually(lambda id=id: agent.status(id), "CONNECTED")
    assert (await agent.show("b"))["enabled"] is False
    assert (await agent.show("a"))["settings"]["scan_after"] == 0.07
    assert not await agent.knows("deleted")
    said = await agent.do("GET", "/api/events?limit=500&kind=database_older")
    assert len(said["events"]) == 1
    assert "folder_newer" in [kind for kind, _ in await agent.story("b")]
    assert "folder_newer" not in [kind for kind, _ in await agent.story("new")]


async def test_an_operators_stop_outlives_a_lost_database(agent, eventually):
    await connected(agent, eventually, "a", "b")
    await agent.do("POST", "/api/instance/a/stop")
    await eventually(lambda: agent.status("a"), "DISCONNECTED")
    await agent.stop()
    agent.lose_database()
    await agent.start()
    await eventually(lambda: agent.status("b"), "CONNECTED")
    (lost,) = (await agent.do("GET", "/api/troubles"))["troubles"]
    assert lost["kind"] == "database_lost" and "keys and history are lost" in lost["sentence"]
    shown = await agent.show("a")
    assert shown["sentence"] == "an operator stopped it"
    assert shown["unit"]["main_pid"] == 0
    await agent.do("POST", "/api/instance/a/start")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    identity = json.loads((agent.state / "sessions" / "a" / "instance.json").read_text())
    assert identity["override"] == "none"


async def test_a_repair_never_restores_the_backup_that_it_made_itself(agent, eventually):
    """It was of no known session: the good snapshots counted as an earlier one's from then on."""
    await connected(agent, eventually, "a", "b")
    await agent.do("POST", "/api/instance/a/snapshots")
    file = agent.state / "sessions" / "a" / "instance.json"
    lineage = json.loads(file.read_text())["lineage"]
    run, own = await agent.run_of("a"), file.read_bytes()

    def replace() -> None:
        file.unlink()
        file.symlink_to(agent.state / "sessions" / "b" / "instance.json")

    await agent.kill_worker("a", replace)

    async def is_named():
        return str(file) in (await agent.show("a"))["health"]["sentence"]

    await eventually(is_named)
    file.unlink()
    file.write_bytes(own)
    await eventually(lambda: agent.is_back("a", run))
    assert json.loads(file.read_text())["lineage"] == lineage


async def test_a_session_whose_record_and_identity_file_are_lost_waits_for_a_person(
    agent, eventually
):
    await connected(agent, eventually, "a", "d")
    device = agent.device("a")
    await agent.stop()
    agent.lose_database()
    file = agent.state / "sessions" / "a" / "instance.json"
    file.write_bytes(b"")
    await agent.start()
    await eventually(lambda: agent.status("d"), "CONNECTED")
    assert not await agent.knows("a")
    (lost,) = (await agent.do("GET", "/api/troubles"))["troubles"]
    assert f"folder of a alone: cannot read {file}: it is no JSON, so" in lost["sentence"]
    await agent.stop()
    file.write_text('{"version": 1, "id": "a", "engine": "sandbox", "enabled": true}')
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert agent.device("a") == device


async def test_what_no_session_needs_stops_neither_the_start_nor_a_repair(agent, eventually):
    await connected(agent, eventually, "a")
    await agent.stop()
    for name in (".trash", ".snapshots", ".staging", ".carried"):
        shutil.rmtree(agent.state / "sessions" / name, ignore_errors=True)
        (agent.state / "sessions" / name).write_text("no folder")
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")
    await agent.fault("a", "zombie")
    await eventually(lambda: agent.told("a", "repaired"))
    await eventually(lambda: agent.status("a"), "CONNECTED")
