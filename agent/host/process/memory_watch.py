"""Which workers use more memory than they may, where no control group limits them."""

from collections.abc import Callable, Mapping

from agent.host.machine.memory import machine_memory
from agent.host.machine.proc_table import proportional_bytes
from agent.host.machine.process_tree import find_trees

LOOK_ANYWAY = 4
"""Seconds after which each process is looked at, whatever the machine's memory says."""
SHARE = 4
"""A part of the room of the worker that is nearest to its limit."""


class MemoryWatch:
    """Looks at all processes only when the machine's available memory fell: a worker that grew took
    it from there, unless others gave back as much; then the look after EVERY finds it."""

    def __init__(self, available: Callable[[], int] = lambda: machine_memory().available) -> None:
        self._available = available
        self._limits: Mapping[int, int] = {}
        self._room = 0
        self._most = 0
        """The most that was available since the last look at all processes."""
        self._spared = 0

    def over_limit(self, limits: Mapping[int, int]) -> dict[int, int]:
        """Main pid → bytes used by its whole tree, for those above their limit."""
        available = self._available()
        self._most = max(self._most, available)
        still = limits == self._limits and available > self._most - self._room
        if still and self._spared + 1 < LOOK_ANYWAY:
            self._spared += 1
            return {}
        trees = find_trees(frozenset(limits))
        resident = {pid: sum(its.rss_bytes for its in tree) for pid, tree in trees.items()}
        least = min(max(limit - resident[pid], 0) for pid, limit in limits.items())
        self._limits, self._room = limits, least // SHARE
        self._most, self._spared = available, 0
        over = {}
        for leader, limit in limits.items():
            if resident[leader] > limit:
                # It counts shared pages for each process, so it is an upper bound.
                used = sum(proportional_bytes(its.pid) for its in trees[leader])
                if used > limit:
                    over[leader] = used
        return over
