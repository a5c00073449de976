"""A state folder that is not the right one, or not there."""

import asyncio
import shutil

from tests.waiting import alive, connected


async def test_s4_a_late_mount_that_hides_the_cache_too_is_no_first_start(
    make_agent, tmp_path, eventually
):
    """As after a boot: no worker runs, and the cache is on the mount that is away."""
    used = tmp_path / "state-used"
    agent, env = make_agent(), {"WA_STATE_USED": str(used)}
    agent.state.mkdir()
    await agent.start()
    await connected(agent, eventually, "a")
    await agent.stop()
    assert "[WARN] [SYSTEM] [-] a new state begins in the empty " in agent.log.read_text()
    used.touch()  # as root does once the service is up
    away = agent.state.with_name("away")
    agent.state.rename(away)

    agent.state.mkdir()  # the mount point
    await agent.start(env, ready=False)
    async with asyncio.timeout(60):
        assert await agent.process.wait() == 75
    said = f"cannot start on {agent.state}: it is empty, but {used} says that an agent used"
    assert said in agent.log.read_text()
    assert "stop those workers" not in agent.log.read_text()
    assert not (agent.state / "agent.db").exists()
    shutil.rmtree(agent.state)
    away.rename(agent.state)
    await agent.start(env)
    await eventually(lambda: agent.status("a"), "CONNECTED")


async def test_workers_that_a_state_folder_does_not_know_keep_it_from_starting(agent, eventually):
    """Another state was put in place of the one from which the workers were started."""
    await connected(agent, eventually, "other")
    await agent.stop()
    assert "[INFO] [SYSTEM] [-] a new state begins in the empty " in agent.log.read_text()
    foreign = agent.state.with_name("foreign")
    agent.state.rename(foreign)
    agent.state.mkdir()
    (agent.state / "lock").touch()  # of a first start that failed
    await agent.start()
    await connected(agent, eventually, "a")
    assert "[WARN] [SYSTEM] [-] a new state" not in agent.log.read_text()
    pid = await agent.pid("a")
    await agent.kill()
    run = agent.state / "run"
    run.rename(foreign / "run.now")
    agent.state.rename(agent.state.with_name("away"))
    if (foreign / "run").exists():
        (foreign / "run").rename(foreign / "run.old")
    (foreign / "run.now").rename(foreign / "run")
    foreign.rename(agent.state)
    await agent.start(ready=False)
    assert await agent.process.wait() == 75
    assert "the workers of a run, and this state folder knows none of them" in agent.log.read_text()
    assert alive(pid)
