"""A copy of a state folder that is in use, and one whose agent is dead."""

import asyncio
import shutil
import subprocess

from tests.waiting import alive, connected


def copy(source, target):
    subprocess.run(["cp", "-aT", source, target], check=True)


async def reason(agent, id):
    return (await agent.show(id))["reason"]


async def refused(agent):
    """Return the log of an agent that does not start."""
    await agent.start(ready=False)
    async with asyncio.timeout(60):
        assert await agent.process.wait() == 75
    return agent.log.read_text()


async def test_an_agent_refuses_to_start_on_a_copy_of_a_running_agents_state(
    agent, make_agent, eventually
):
    await connected(agent, eventually, "a", "b")
    pids = [await agent.pid(id) for id in ("a", "b")]
    other = make_agent(name="copy")
    copy(agent.state, other.state)
    said = await refused(other)
    assert f"cannot start on {other.state}: another agent of this machine runs on a copy" in said
    assert "adopted" not in said
    assert [await agent.pid(id) for id in ("a", "b")] == pids
    assert [await agent.status(id) for id in ("a", "b")] == ["CONNECTED"] * 2
    await agent.kill()
    await other.start()
    await eventually(lambda: reason(other, "a"), "held_elsewhere")
    assert [alive(pid) for pid in pids] == [True, True]
    await other.stop()
    await agent.start()
    assert [await agent.pid(id) for id in ("a", "b")] == pids
    await agent.stop()
    await other.start()
    for id in ("a", "b"):
        await eventually(lambda id=id: other.status(id), "CONNECTED")
    assert f"cannot start on {agent.state}: another agent" in await refused(agent)


async def test_a_copy_at_the_same_path_starts_after_the_first_is_dead(agent, eventually, tmp_path):
    await connected(agent, eventually, "a")
    copy(agent.state, tmp_path / "image")
    await agent.stop()
    shutil.rmtree(agent.state)
    copy(tmp_path / "image", agent.state)
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")


async def test_a_second_agent_on_the_same_sessions_does_not_start(agent, make_agent, eventually):
    await connected(agent, eventually, "a")
    pid = await agent.pid("a")
    other = make_agent(name="second")
    text = other.config.read_text()
    assert "[agent]\n" in text
    other.config.write_text(
        text.replace("[agent]\n", f'[agent]\nsession_storage_path = "{agent.state}/sessions"\n')
    )
    said = await refused(other)
    assert f"cannot use the sessions in {agent.state}/sessions: another agent runs them" in said
    assert await agent.pid("a") == pid and alive(pid)
    assert await agent.status("a") == "CONNECTED"
    await agent.stop()
    await other.start()
    await eventually(lambda: other.status("a"), "CONNECTED")
