"""What all sessions of one server share."""

from dataclasses import dataclass
from pathlib import Path

from agent.engines.evolution.api import EvolutionApi
from agent.engines.evolution.hooks import Seen
from agent.engines.evolution.proof import Prover
from agent.engines.evolution.rows import Rows
from agent.engines.evolution.settings import Pace
from agent.engines.evolution.subscription import Subscription
from agent.engines.remote.recent import Recent


@dataclass(frozen=True, slots=True)
class Server:
    """What all sessions of one server share."""

    api: EvolutionApi
    rows: Recent[Rows]
    prover: Prover | None
    hooks: Subscription
    seen: Seen
    pace: Pace
    folder: Path
    """For what sessions were before they were deleted."""
