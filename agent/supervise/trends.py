"""Takes a point of every instance's line each minute or so."""

import asyncio
import time
from collections.abc import Iterator, Mapping

from agent.core.model import InstanceId
from agent.core.trend import Trends
from agent.supervise.facts import Facts


async def keep_trends(trends: Trends, facts: Mapping[InstanceId, Facts]) -> None:
    while True:
        await asyncio.sleep(trends.step)
        trends.note(_seen(facts), time.time())


def _seen(facts: Mapping[InstanceId, Facts]) -> Iterator[tuple[InstanceId, int | None, int]]:
    for id, one in facts.items():
        memory = one.memory_bytes if one.unit.runs else None
        yield id, memory, one.messages["in"] + one.messages["out"]
