"""A pairing that a person ended comes back by no way of the agent's own."""

import asyncio

import pytest

from agent.engines.sandbox.engine import SavedSession
from tests.world.test_state_folder import copy_database
from tests.world.test_vault import connected
from tests.world.virtual import kill

A = "/api/instance/a"


@pytest.fixture
async def paired(agent, eventually):
    """It has a good snapshot."""
    await connected(agent, eventually)
    await agent.do("POST", f"{A}/snapshots")
    return agent


async def stays_ended(agent):
    """A quarter of an hour is longer than any repair waits."""
    await asyncio.sleep(900)
    assert "snapshot_restored" not in dict(await agent.story("a"))
    assert await agent.status("a") != "CONNECTED"


async def end(agent, how):
    await agent.do("POST", f"{A}/{how}", {"confirm": True})


async def test_its_unpaired_folder_comes_out_of_the_trash(paired, eventually):
    await end(paired, "logout")
    await eventually(lambda: paired.status("a"), "QR_REQUIRED")
    (unpaired,) = (await paired.do("GET", "/api/trash"))["trash"]
    await paired.do("DELETE", A)
    await paired.kill()
    await paired.start()
    await paired.do("POST", f"/api/trash/{unpaired['name']}/restore", {})
    await paired.do("POST", f"{A}/start")
    await eventually(lambda: paired.status("a"), "QR_REQUIRED")
    await stays_ended(paired)


async def test_a_logout_while_it_restarts_waits_for_that(paired, eventually):
    await paired.do("POST", f"{A}/restart")
    status, _ = await paired.ask("POST", f"{A}/logout", {"confirm": True})
    if status == 409:  # its worker does not run yet
        await eventually(lambda: paired.status("a"), "CONNECTED")
        await end(paired, "logout")
    await eventually(lambda: paired.status("a"), "QR_REQUIRED")


async def test_agent_and_worker_die_before_the_logout_is_recorded(paired, monkeypatch):
    unpair = SavedSession.unpair

    def unpair_and_die(session):
        unpair(session)
        session.save()
        kill(paired._run)

    monkeypatch.setattr(SavedSession, "unpair", unpair_and_die)
    await paired.dies(end(paired, "logout"))
    await paired.kill_worker("a")
    await paired.start()
    await stays_ended(paired)


async def test_an_older_database_names_it_and_its_folder_is_in_the_trash(paired):
    database, older = paired.state / "agent.db", paired.state / "older"
    copy_database(database, older)
    await paired.stop()
    await paired.start("set_aside:kill")
    await paired.dies(end(paired, "cleanup"))
    paired.lose_database()
    older.rename(database)
    await paired.start()
    await stays_ended(paired)


async def test_another_session_of_that_name_loses_its_files(paired, eventually):
    await paired.do("DELETE", A)
    await connected(paired, eventually)
    await paired.stop()
    folder = paired.state / "sessions" / "a"
    (folder / "instance.json").unlink()
    (folder / "session" / "sandbox.json").write_bytes(b"")
    await paired.start()
    await paired.do("POST", f"{A}/enable")
    await stays_ended(paired)


async def test_a_folder_that_is_away_was_not_deleted_with_an_earlier_one(paired, eventually):
    await paired.do("DELETE", A)
    await asyncio.sleep(2)
    await connected(paired, eventually)
    await paired.stop()
    (paired.state / "sessions" / "a").rename(paired.state / "away")
    await paired.start()
    assert await paired.knows("a")
