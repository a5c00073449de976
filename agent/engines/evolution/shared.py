"""What all sessions of one server share, its list above all."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.engines.evolution.api import EvolutionApi
from agent.engines.evolution.hooks import Seen
from agent.engines.evolution.known import Known
from agent.engines.evolution.proof import Prover
from agent.engines.evolution.rows import Row, Rows
from agent.engines.evolution.settings import Pace
from agent.engines.evolution.subscription import Subscription
from agent.engines.remote.recent import Recent
from agent.errors import EngineError


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
    folder: Path
    """For what sessions were before they were deleted."""


async def find_row(
    server: Server, known: Known, name: str, *, newer: bool = False
) -> tuple[Row | None, float] | None:
    """A session's row and its age; None when the list cannot be had in time.

    `newer`: than its present state, where the version shows something newer at all.
    """
    pace, old = server.pace, server.api.old
    holds = pace.old_list_holds if old else pace.list_holds
    if newer and not old:
        holds = min(holds, known.seconds())
    try:
        async with asyncio.timeout(pace.list_patience):
            await server.rows.get(holds=holds)
    except (EngineError, TimeoutError):
        pass  # an older list may do
    last = server.rows.last()
    if last is None or (newer and not old and last[1] > known.seconds()):
        return None
    return last[0].by_name.get(name), last[1]
