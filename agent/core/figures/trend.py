"""Memory and messages of each instance over the last hours: the charts of the dashboard. Arrays,
not objects: a thousand instances take half a megabyte."""

from array import array
from collections.abc import Iterable

from agent.core.model import InstanceId

POINTS = 60
_KIB = 1024
_MOST = {"I": 0xFFFF_FFFF, "H": 0xFFFF}


class Trend:
    """One instance's last points, oldest first."""

    __slots__ = ("_counted", "_memory", "_messages")

    def __init__(self) -> None:
        self._memory = array("I")
        """KiB; 0 = not known then."""
        self._messages = array("H")
        self._counted = 0

    def note(self, memory_bytes: int | None, counted: int) -> None:
        """`counted`: messages since the agent began; a smaller number was reset to 0 before."""
        since = counted - self._counted if counted >= self._counted else counted
        self._counted = counted
        _push(self._memory, (memory_bytes or 0) // _KIB)
        _push(self._messages, since)

    def memory(self) -> list[int | None]:
        """Bytes."""
        return [kib * _KIB or None for kib in self._memory]

    def messages(self) -> list[int]:
        """Messages in and out between two points."""
        return self._messages.tolist()


class Trends:
    """All instances' lines; they share their moments, `step` seconds apart."""

    def __init__(self, reach: float) -> None:
        self.step = reach / POINTS
        self.noted_wall: float | None = None
        """When the newest points were taken."""
        self._known: dict[InstanceId, Trend] = {}

    def note(self, seen: Iterable[tuple[InstanceId, int | None, int]], now_wall: float) -> None:
        """Memory and messages of all instances; deleted ones are forgotten."""
        before, self._known = self._known, {}
        for id, memory_bytes, counted in seen:
            trend = self._known[id] = before.get(id) or Trend()
            trend.note(memory_bytes, counted)
        self.noted_wall = now_wall

    def of(self, id: InstanceId) -> Trend | None:
        return self._known.get(id)


def _push(points: "array[int]", value: int) -> None:
    points.append(min(value, _MOST[points.typecode]))
    if len(points) > POINTS:
        del points[0]
