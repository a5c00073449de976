"""Whether this machine has room for one more worker: on its disk, and in its memory. The limits
count, not present use: sessions grow. No running worker is stopped for it, and a restarted one
keeps its room.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from agent.core.findings.memory import lacks_room
from agent.core.model import InstanceId
from agent.supervise.facts import Facts

MEMORY_FULL = "memory_full"
DISK_FULL = "disk_full"
LACKS = frozenset({MEMORY_FULL, DISK_FULL})
"""The holds of here, which have a sentence of their own."""


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class MemoryRoom:
    """Counts the memory promised to workers, and which sessions wait for room. `wanted`: whether a
    session should run at all."""

    limit: Callable[[Facts], int]
    budget: Callable[[], int]
    wanted: Callable[[Facts], bool]
    wake: Callable[[InstanceId], None]
    _promised: dict[InstanceId, int] = field(init=False, default_factory=dict)
    _sum: int = field(init=False, default=0)
    _waiting: dict[InstanceId, None] = field(init=False, default_factory=dict)

    def note(self, facts: Facts) -> None:
        """The worker was looked at: while it runs it has its room."""
        if facts.unit.runs:
            self.promise(facts)
        else:
            self._take_back(facts.id)

    def promise(self, facts: Facts) -> None:
        if facts.instance.backend:
            return
        limit = self.limit(facts)
        self._sum += limit - self._promised.get(facts.id, 0)
        self._promised[facts.id] = limit
        self._waiting.pop(facts.id, None)

    def forget(self, id: InstanceId) -> None:
        self._waiting.pop(id, None)
        self._take_back(id)

    def wait_reason(self, facts: Facts) -> str:
        """Why it may not start now; "" when it may, when it runs, or when it should not run."""
        if facts.unit.runs or not self.wanted(facts) or not self.lacks(facts):
            return ""
        self._waiting.setdefault(facts.id)
        return DISK_FULL if facts.folder.disk_problem else MEMORY_FULL

    def lacks(self, facts: Facts) -> str:
        """The sentence with the numbers; "" = its worker would fit."""
        if facts.instance.backend or facts.id in self._promised:
            return ""
        return facts.folder.disk_problem or lacks_room(
            self._sum, len(self._promised), self.limit(facts), self.budget()
        )

    def _take_back(self, id: InstanceId) -> None:
        if id in self._promised:
            self._sum -= self._promised.pop(id)
            for waiting in self._waiting:  # a session that still lacks room is added again
                self.wake(waiting)
            self._waiting.clear()
