"""Where sessions run: the machine itself, and the backends, servers of someone else's.

Each has an address of its own, so each has its own login limit and its own outages.
"""

import random
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from scripts.simulation import faults
from scripts.simulation.faults import CHANGE, OUTAGES, REMOTE, SOCKET, WEB, Span, merged


class Times:
    """Spans without overlaps; asked for hundreds of thousands of moments of a day."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self.spans = merged(spans)
        self._begins = [span.begin for span in self.spans]

    def covers(self, at: float) -> bool:
        last = bisect_right(self._begins, at) - 1
        return last >= 0 and at < self.spans[last].end

    def within(self, begin: float, end: float) -> list[Span]:
        """Their parts between `begin` and `end`."""
        first = max(bisect_right(self._begins, begin) - 1, 0)
        last = bisect_left(self._begins, end, first)
        return [
            Span(max(span.begin, begin), min(span.end, end))
            for span in self.spans[first:last]
            if begin < span.end
        ]


@dataclass(slots=True, eq=False)
class Place:
    """The machine (name "") or one backend."""

    name: str
    cut: Times
    """When none of its sessions reaches WhatsApp: the network, or the whole server, is away."""
    unseen: Times
    """When it cannot be asked from here. A backend's sessions may serve on meanwhile."""
    starting: int = 0
    """Starts that load it; those that only wait for WhatsApp do not."""
    recent_logins: deque[float] = field(default_factory=deque)
    away: dict[str, Times] = field(default_factory=dict)
    """By engine: when no agent could bring a session back."""
    silent: Times = field(init=False)
    """When no login from it can come to anything: `cut`, or WhatsApp itself."""
    unlooked: Times = field(init=False)
    """When WhatsApp's address does not even answer."""

    def __post_init__(self) -> None:
        self.silent = Times((*self.cut.spans, *OUTAGES))
        self.unlooked = Times((*self.cut.spans, OUTAGES[0]))
        spans = (*self.silent.spans, *self.unseen.spans)
        engines = (REMOTE,) if self.name else (WEB, SOCKET)
        self.away = dict.fromkeys(engines, Times(spans))
        if not self.name:
            self.away[WEB] = Times((*spans, CHANGE))

    def can_be_asked(self, at: float) -> bool:
        return not self.unseen.covers(at)

    def shows_itself(self, at: float) -> bool:
        """What a look at WhatsApp's address finds: it answers while it only refuses logins."""
        return not self.unlooked.covers(at)

    def reaches_whatsapp(self, at: float) -> bool:
        return not self.silent.covers(at)

    def count_login(self, at: float) -> int:
        """Logins from its address within the last minute, this one included."""
        logins = self.recent_logins
        logins.append(at)
        while logins[0] < at - 60:
            logins.popleft()
        return len(logins)


def make_places(dice: random.Random) -> tuple[Place, list[Place]]:
    """The machine, and the backends that it watches over the same network."""
    network = faults.network_spans(dice)
    backends = []
    for number in range(faults.BACKENDS):
        gone, mute = faults.backend_outages(dice)
        unseen = Times((*network, *gone, *mute))
        backends.append(Place(f"b{number}", Times(gone), unseen))
    return Place("", Times(network), Times(())), backends
