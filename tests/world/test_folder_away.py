"""A session whose folder or identity file is away for a while: named, and healed when it is back.

Rights that are taken away for a while: tests/vault/test_check.py, where another user looks.
"""

import json

import pytest

from tests.world.test_lost_folder import connected, reason, troubles


async def test_a_folder_that_was_moved_away_is_named_and_served_again_when_it_is_back(
    agent, eventually
):
    folder = await connected(agent, eventually)
    away = agent.state / "away"
    folder.rename(away)
    await eventually(lambda: reason(agent), "folder_lost")
    assert f"; put back what was at {folder}" in (await agent.show("a"))["sentence"]
    await agent.do("POST", "/api/instance/a/restart")
    await eventually(lambda: troubles(agent), ["given_up"], within=60.0)
    shown = await agent.show("a")
    assert (shown["connection_status"], shown["unit"]["main_pid"]) == ("AUTH_FAILURE", 0)
    await agent.do("POST", "/api/health/check")
    assert not folder.exists(), "nothing is laid out or restored in its place"
    away.rename(folder)
    await eventually(lambda: agent.status("a"), "CONNECTED")
    story = await agent.told("a", "action")
    assert len(story) <= 4 and story[-1].startswith("start: its folder is back"), story


async def test_a_session_behind_a_link_is_named_and_nothing_is_put_in_its_place(agent, eventually):
    """The operator moved it to another disk and left a link: its pairing is whole."""
    folder = await connected(agent, eventually)
    session, elsewhere = folder / "session", agent.state / "elsewhere"
    await agent.do("POST", "/api/instance/a/stop")
    await eventually(lambda: not agent.machine.worker("a").status.runs)
    session.rename(elsewhere)
    session.symlink_to(elsewhere)
    before = sorted(path.name for path in elsewhere.iterdir())
    await agent.do("POST", "/api/instance/a/start")
    await eventually(lambda: reason(agent), "session_unreadable")
    shown = await agent.show("a")
    assert f"{session}: it is a symbolic link" in shown["sentence"]
    assert "session_storage_path" in shown["sentence"]
    await agent.do("POST", "/api/health/check")
    assert session.is_symlink() and before == sorted(path.name for path in elsewhere.iterdir())
    assert not (await agent.do("GET", "/api/trash"))["trash"]
    session.unlink()
    elsewhere.rename(session)
    await eventually(lambda: agent.status("a"), "CONNECTED")
    story = await agent.story("a")
    assert not [kind for kind, _ in story if kind in ("recovery", "snapshot")], story


@pytest.mark.parametrize("killed", ["its worker", "the agent and its worker"])
async def test_an_identity_file_of_another_engine_is_named_and_written_again(
    agent, eventually, caplog, killed
):
    """Also where it counts as newer than the database: an instance keeps its engine for life."""
    file = await connected(agent, eventually) / "instance.json"
    content = json.loads(file.read_bytes())
    content |= {"engine": "baileys", "generation": content["generation"] + 5}
    file.write_text(json.dumps(content))
    if killed == "its worker":
        await agent.kill_worker("a")
        await eventually(lambda: str(file) in caplog.text)
    else:
        await agent.kill()
        await agent.kill_worker("a")
        await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert f"{file} names engine 'baileys', not sandbox" in caplog.text
    assert json.loads(file.read_bytes())["engine"] == "sandbox"
    assert (await agent.show("a"))["engine"] == "sandbox"
    assert not (await agent.do("GET", "/api/trash"))["trash"], "it kept its pairing"


@pytest.mark.parametrize("when", ["without an agent", "under its workers", "without their names"])
async def test_two_folders_that_were_swapped_are_named_and_served_again_when_swapped_back(
    agent, eventually, when
):
    a, b = [await connected(agent, eventually, id) for id in "ab"]
    away = when != "under its workers"
    if away:
        await agent.stop()
    for folder in (a, b) if (nameless := when == "without their names") else ():
        (folder / "instance.json").unlink()
    before = [content(folder) for folder in (b, a)]
    swap(a, b)
    await (agent.start() if away else agent.do("POST", "/api/instance/a/restart"))
    for id, whose in ("ab", "ba"):
        await eventually(lambda id=id: reason(agent, id), "session_unreadable", within=15.0)
        words = "whose it is" if nameless else f"names '{whose}', whose session this is"
        assert words in (await agent.show(id))["sentence"]
    await agent.do("POST", "/api/health/check")
    assert [content(folder) for folder in (a, b)] == before
    swap(a, b)
    for id in "ab":
        await eventually(lambda id=id: agent.status(id), "CONNECTED")
    assert not (await agent.do("GET", "/api/trash"))["trash"]


def content(folder):
    return [it.read_bytes() for it in sorted(folder.glob("**/*.json"))]


def swap(one, other):
    aside = one.with_name(".aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
