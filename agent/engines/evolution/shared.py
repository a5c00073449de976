"""What all sessions of one server share, its list above all."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.engines.evolution.api import EvolutionApi
from agent.engines.evolution.hooks import Seen
from agent.engines.evolution.memory import Memory
from agent.engines.evolution.proof import Prover
from agent.engines.evolution.rows import Row, Rows
from agent.engines.evolution.settings import Pace
from agent.engines.evolution.subscription import Subscription
from agent.engines.remote.recent import Recent
from agent.errors import EngineError

_LIST_SHARE = 0.25
"""Of a probe's time; the list itself may come later."""


@dataclass(frozen=True, slots=True)
class Server:
    """What all sessions of one server share."""

    api: EvolutionApi
    rows: Recent[Rows]
    prover: Prover | None
    hooks: Subscription
    seen: Seen
    doubt: Callable[[], None]
    """Something sheds doubt on the whole server."""
    probe_limit: float
    pace: Pace
    memory: Memory
    folder: Path
    """For what sessions were before they were deleted."""


async def listed_row(server: Server, name: str) -> tuple[Row | None, float] | None:
    """A session's row in the list and the list's age; None when no list can be had in time."""
    pace = server.pace
    try:
        async with asyncio.timeout(server.probe_limit * _LIST_SHARE):
            await server.rows.get(holds=pace.old_list_holds if server.api.old else pace.list_holds)
    except (EngineError, TimeoutError):
        pass  # an older list may do
    last = server.rows.last()
    return None if last is None else (last[0].by_name.get(name), last[1])
