"""A world takes the same way each time."""

import asyncio
from pathlib import Path

from tests.world.virtual import Loop, virtual_time
from tests.world.world import WorldAgent


async def play(folder: Path) -> list[tuple[str, str]]:
    """An outage, a zombie and a killed agent: what is told, and when."""
    begun = asyncio.get_running_loop().time()
    config = folder / "agent.toml"
    config.write_text('[agent]\nhost = "process"\n')
    agent = WorldAgent(folder / "state", config)
    await agent.start()
    for id in "abc":
        await agent.create(id)
    await asyncio.sleep(60)
    for id in "abc":
        await agent.fault(id, "drop", 900)
    await asyncio.sleep(1200)
    await agent.fault("a", "zombie")
    await asyncio.sleep(600)
    await agent.kill()
    await agent.start()
    await asyncio.sleep(600)
    told = (await agent.do("GET", "/api/events?limit=500"))["events"]
    await agent.close()
    lasted = asyncio.get_running_loop().time() - begun
    return [(one["kind"], one["sentence"]) for one in told] + [("lasted", f"{lasted:.0f} s")]


def test_the_same_story_is_told_each_time(tmp_path: Path) -> None:
    stories = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        with virtual_time(), asyncio.Runner(loop_factory=Loop) as runner:
            stories.append(runner.run(play(tmp_path / str(number))))
    first, second = stories
    assert len(first) > 50
    assert [one for one in first if "snapshot" not in one[0]] == [
        one for one in second if "snapshot" not in one[0]
    ]
