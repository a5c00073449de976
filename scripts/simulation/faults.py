"""What goes wrong in a day, and how often: every rate in one place, each a setting of the world.

Rates are per instance and day unless they say otherwise. They are chosen, not measured: the
same day is played to every way of supervising, so the comparison does not hang on them.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

DAY = 86_400.0
HOUR = 3_600.0

WEB, SOCKET, REMOTE = "web", "socket", "evolution"
WEB_SHARE = 0.3
REMOTE_SHARE = 0.2
"""Share of the sessions that live on a backend: a server of someone else's."""
BACKENDS = 2
"""Backends that one machine watches."""
MACHINE = 200
"""Instances on one machine."""
CAPACITY = 8
"""Starts that a machine carries at once; more make each other slower."""
HEAVY = {WEB: 0.7, SOCKET: 0.3}
"""Share of a new worker's start that loads its machine; in the rest it waits for WhatsApp."""
LOGINS_A_MINUTE = 120
"""More logins from one address are refused, half of them."""

RATES = {
    "drop": 4.0,
    "restart_required": 1.0,
    "crash": 0.5,
    "zombie": 0.3,
    "keys_peer": 0.2,
    "keys_account": 0.01,
    "logout": 0.005,
    "ban": 0.0005,
    "temporary_ban": 0.003,
    "conflict": 0.005,
    "foreign_owner": 0.001,
    "damaged": 0.002,
}
STUCK_START = 0.02
"""Share of starts that hang in one of their phases."""
NETWORK_FAILURES = 1.5
"""Per machine and day."""
BACKEND_FAILURES = 1.5
"""Per backend and day: mostly minutes; in SERVES_ON of them only its API is away."""
SERVES_ON = 0.3
LONG_FAILURE = 0.1
"""Share of backends that are away for hours, once."""
RECONNECTS_ITSELF = 0.85
"""Share of drops after which a backend connects the session again by itself."""
REBOOTS = 0.1
"""Share of machines that reboot in the same minute at six."""

STUCK_PHASES = {
    WEB: ("loaded", "injected", "login", "sync"),
    SOCKET: ("login", "sync"),
    REMOTE: ("connecting",),
}
HEAVY_PHASES = frozenset({"loaded", "injected", "connecting"})
"""Of these: a start that hangs here goes on loading where it runs."""
NOT_ELSEWHERE = frozenset({"crash", "damaged"})
"""What befalls a worker's process or its files; a backend's outage is its own kind."""


@dataclass(frozen=True, slots=True)
class Span:
    begin: float
    end: float

    def holds(self, at: float) -> bool:
        return self.begin <= at < self.end


OUTAGES = (Span(3 * HOUR, 3 * HOUR + 1500), Span(17 * HOUR, 17 * HOUR + 240))
"""WhatsApp itself is away for everyone. In the first its address does not answer; in the second
it answers and takes no login."""
CHANGE = Span(14 * HOUR, 15.5 * HOUR)
"""WhatsApp changes its web client: no start of a web session gets past injection."""
CHANGE_RELOADS = 0.4
"""Share of web sessions whose page reloads within ten minutes of the change."""
REBOOT_AT = 6 * HOUR


def network_spans(dice: random.Random) -> list[Span]:
    """When one machine has no network: mostly a minute or two, seldom half an hour."""
    spans, at = [], 0.0
    while (at := at + dice.expovariate(NETWORK_FAILURES / DAY)) < DAY:
        spans.append(Span(at, at + min(dice.lognormvariate(4.5, 1.0), 1800.0)))
    return spans


def backend_outages(dice: random.Random) -> tuple[list[Span], list[Span]]:
    """When one backend is gone with its sessions, and when only its API is."""
    gone: list[Span] = []
    mute: list[Span] = []
    at = 0.0
    while (at := at + dice.expovariate(BACKEND_FAILURES / DAY)) < DAY:
        span = Span(at, at + min(dice.lognormvariate(4.8, 1.5), 2 * HOUR))
        (mute if dice.random() < SERVES_ON else gone).append(span)
    if dice.random() < LONG_FAILURE:
        begin = dice.uniform(0, 18) * HOUR
        gone.append(Span(begin, begin + dice.uniform(2, 5) * HOUR))
    return gone, mute


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same times without overlaps."""
    found: list[Span] = []
    for span in sorted(spans, key=lambda one: one.begin):
        if found and span.begin <= found[-1].end:
            found[-1] = Span(found[-1].begin, max(found[-1].end, span.end))
        else:
            found.append(span)
    return found


def instance_faults(dice: random.Random, engine: str) -> Iterator[tuple[float, str]]:
    for kind, rate in RATES.items():
        if engine == REMOTE and kind in NOT_ELSEWHERE:
            continue
        at = 0.0
        while (at := at + dice.expovariate(rate / DAY)) < DAY:
            yield at, kind
    if engine == WEB and dice.random() < CHANGE_RELOADS:
        yield CHANGE.begin + dice.random() * 600, "reload"
