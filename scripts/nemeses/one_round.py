"""What a fault of a round may use, and what it tells."""

import random
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from tests.fleet.agent import TTL, FleetAgent
from tests.fleet.agents import FleetOfAgents
from tests.standin.clock import SteppedClock


@dataclass(frozen=True, slots=True)
class Round:
    fleet: FleetOfAgents
    chance: random.Random
    ended: AsyncExitStack
    """What ends the faults of this round, the last one first."""
    owners: Mapping[str, str]
    """Session → machine, before the faults."""
    clocks: Mapping[str, SteppedClock]
    """Of each machine, and of the database."""
    done: list[str] = field(default_factory=list)
    """To what the faults were done, and how."""

    def machine(self) -> FleetAgent:
        chosen = self.chance.choice(list(self.fleet.agents.values()))
        self.done.append(chosen.name)
        return chosen

    def beyond(self) -> float:
        """Seconds that end somewhere around a takeover, or well after it."""
        return self.chance.uniform(0.5, 1.8) * TTL
