"""Why an instance waits for something other than itself; a reader sees the first reason."""

from dataclasses import dataclass

from agent.backends.declared import Backends
from agent.supervise.facts import Facts
from agent.supervise.turns.incidents import Incidents
from agent.supervise.turns.turns import Turns


@dataclass(frozen=True, slots=True)
class WaitReasons:
    backends: Backends
    turns: Turns
    incidents: Incidents

    def first(self, facts: Facts) -> str:
        """What it cannot do without, then others that fail alike, then room on the machine."""
        return (
            self.away(facts)
            or self.incidents.wait_reason(facts)
            or self.turns.room.wait_reason(facts)
        )

    def away(self, facts: Facts) -> str:
        """Of the backend and the address that it needs, the one that is not there."""
        return self.backends.wait_reason(facts) or self.turns.reaching.wait_reason(facts)
