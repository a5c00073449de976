"""What it costs sessions that rest to keep messages: the same sandbox sessions under an agent that
keeps none, under one that keeps them, and under that one after messages came and were taken."""

import asyncio
import statistics
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from scripts.benches.processes import spent_in, uss
from scripts.benches.report import OURS, Goal, Row
from scripts.limits.bed import PEOPLE, SETTINGS, Target
from scripts.messages.beds import until
from tests.daemon.conftest import RunningAgent

WITHOUT = "keep = false"
MORE = 1.0
"""MiB that a session may need more."""
AS_MUCH = 1.25
"""Of the processor time: windows of one program differ by as much."""
MESSAGES = 1000
REST = 10.0


async def measure_idle(root: Path, sessions: int, seconds: float) -> list[Row]:
    root.mkdir()
    async with _sessions(root / "without", sessions, "keep = false\n") as (agent, _, ids):
        bare = await _resting(agent, ids, seconds)
        await _say(agent, ids)
        heard = await _resting(agent, ids, seconds)
    async with _sessions(root / "with", sessions, "") as (agent, target, ids):
        keeps = await _resting(agent, ids, seconds)
        await _say(agent, ids)
        await target.until(sessions * MESSAGES, 60.0 + sessions * MESSAGES / 20)
        kept = await _resting(agent, ids, seconds)
    return [
        _row("a session that rests: memory of its worker (USS)", "MiB", bare[0], keeps[0]),
        _row(f"… after {MESSAGES:,} messages, all taken", "MiB", heard[0], kept[0]),
        _row("a session that rests: processor time", "ms/min", bare[1], keeps[1]),
        _row(f"… after {MESSAGES:,} messages, all taken", "ms/min", heard[1], kept[1]),
    ]


async def _say(agent: RunningAgent, ids: Sequence[str]) -> None:
    for id in ids:
        said = {"contact": PEOPLE[0], "text": "x" * 100, "count": MESSAGES}
        await agent.do("POST", f"/api/instance/{id}/sandbox/say", said)


def _row(measure: str, unit: str, without: Sequence[float], ours: Sequence[float]) -> Row:
    base = statistics.median(without)
    if unit == "MiB":
        goal = Goal(f"{WITHOUT} + {MORE:g}", base + MORE)
    else:
        goal = Goal(f"{WITHOUT} x {AS_MUCH}", base * AS_MUCH)
    return Row(measure, unit, {OURS: ours, WITHOUT: without}, goal)


async def _resting(
    agent: RunningAgent, ids: Sequence[str], seconds: float
) -> tuple[list[float], list[float]]:
    """MiB of each worker; milliseconds of the processor a minute, of all by their number."""
    await asyncio.sleep(REST)
    pids = [await agent.pid(id) for id in ids]
    spent = await spent_in(pids, seconds)
    return [uss(pid) for pid in pids], [spent * 1000 / len(ids)]


@asynccontextmanager
async def _sessions(
    root: Path, count: int, keep: str
) -> AsyncIterator[tuple[RunningAgent, Target, Sequence[str]]]:
    async with AsyncExitStack() as stack:
        root.mkdir()
        target = Target()
        stack.push_async_callback(target.close)
        await target.open()
        settings = SETTINGS.format(port=target.port)
        config = root / "agent.toml"
        config.write_text(settings.replace("[messages]\n", f"[messages]\n{keep}"))
        agent = RunningAgent(root / "state", config)
        agent.inside = ("env",)  # not forked from this program, whose memory it would begin with
        stack.push_async_callback(agent.close)
        agent.state.mkdir(mode=0o700)
        await agent.start({})
        ids = [f"s{number}" for number in range(count)]
        for id in ids:
            await agent.create(id)
        for id in ids:
            await until(agent, id, "CONNECTED")
        yield agent, target, ids
