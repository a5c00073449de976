"""What the sessions of one server share: its list, webhooks, proofs and memory."""

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
"""The share of a probe's time that it waits for the list."""


@dataclass(frozen=True, slots=True)
class Server:
    """Handed to each session of one server."""

    api: EvolutionApi
    rows: Recent[Rows]
    prover: Prover | None
    hooks: Subscription
    seen: Seen
    doubt: Callable[[], None]
    """Call it where the server itself may be down."""
    probe_limit: float
    pace: Pace
    memory: Memory
    folder: Path
    """For rows and settings of deleted sessions."""


async def listed_row(server: Server, name: str) -> tuple[Row | None, float] | None:
    """A session's row in the list and the list's age; None where no list comes in time."""
    pace = server.pace
    try:
        async with asyncio.timeout(server.probe_limit * _LIST_SHARE):
            await server.rows.get(holds=pace.old_list_holds if server.api.old else pace.list_holds)
    except (EngineError, TimeoutError):
        pass  # an older list may do
    last = server.rows.last()
    return None if last is None else (last[0].by_name.get(name), last[1])
