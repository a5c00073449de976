"""What the limits on starts and logins cost: the same day with each of them lifted.

The agent's own limits are [start] stagger, parallel and logins. The world's are what a machine
starts at once without becoming slower, and what one address is granted in a minute. Three failed
pings make a zombie, so their interval is a limit too.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from agent.core.admission import StartPolicy
from scripts.simulation.agent import Agent
from scripts.simulation.lanes import STARTS
from scripts.simulation.report import seconds_text
from scripts.simulation.tally import Tally
from scripts.simulation.world import Machine

NONE = StartPolicy(stagger=0.0, parallel=1_000_000, login_every=0.0)


class WithoutStagger(Agent):
    starts = replace(STARTS, stagger=0.0)


class WithoutLimits(Agent):
    starts = NONE


class QuickPings(WithoutLimits):
    ping = 5.0


class EndlessMachine(Machine):
    """It starts all at once as fast as one, and its address is granted every login."""

    capacity = 1_000_000
    logins_a_minute = 1_000_000


BUDGETS: Mapping[str, tuple[type[Machine], Callable[[Machine], Agent]]] = {
    "all limits, as above": (Machine, Agent),
    "no `[start] stagger`": (Machine, WithoutStagger),
    "no limit of the agent's": (Machine, WithoutLimits),
    "no limit of anybody's": (EndlessMachine, WithoutLimits),
    "... and a ping every 5 s": (EndlessMachine, QuickPings),
}


def budget_rows(tallies: Mapping[str, Tally]) -> tuple[list[str], list[list[str]]]:
    head = ["back once it could be", "median", "95 %", "99 %", "logins", "worst minute"]
    rows = []
    for name, tally in tallies.items():
        back = [seconds_text(tally.back_within(share)) for share in (0.5, 0.95, 0.99)]
        rows.append([name, *back, f"{sum(tally.logins):,}", f"{tally.worst_minute:,}"])
    return head, rows
