"""Troubles: conditions that hold begin them and end them. The table of troubles is in
trouble_table.py; here is what its rows are made of, and what judges them."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from agent.core.health import HealthPolicy
from agent.core.memory import MemoryPolicy
from agent.core.session import BackendView, Session
from agent.core.setting import setting

MINUTE = 60.0
LONGEST = 1800.0
"""Seconds that the counters of a session are remembered for."""


class Severity(StrEnum):
    CRITICAL = "critical"
    WARNING = "warning"


class Of(StrEnum):
    """The kinds of things with troubles. The value is the label of the metric."""

    SESSION = "session"
    BACKEND = "backend"
    GROUP = "group"
    MACHINE = "machine"


Found = str | bool | None
"""A text: it holds, and this is the {value} of its sentence; True: it holds. None: it does not
hold just now, and may again within `hold`. False: it is over."""
Condition = Callable[["Sight", Any], Found]
"""Judges what the trouble is about: a session, a backend, an incident's code; None: the machine."""


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of trouble."""

    name: str
    condition: Condition
    sentence: str
    """For people; {who} stands for the name of the session, the backend or the group."""
    advice: str
    severity: Severity = Severity.WARNING
    of: Of = Of.SESSION
    wait: float = 0.0
    """Seconds for which it must hold before it begins."""
    hold: float = 0.0
    """Seconds for which it may not hold and goes on all the same."""
    window: float = 0.0
    """Seconds that its condition looks back at."""
    covers: tuple[str, ...] = ()
    """These are not told while this one goes on, and wait their time again after it."""
    of_incident: bool = False
    """The incident of a session speaks for it."""


@dataclass(frozen=True, slots=True)
class TroublesPolicy:
    """The [troubles] table."""

    cpu: float = setting(
        0.90, "share of the machine's cores in use that is a trouble", low=0.1, high=1
    )


Counted = Mapping[str, float]
"""Counters of one session, or of the agent, by name."""


class Windows:
    """How much counters rose lately."""

    def __init__(self) -> None:
        self._last: Mapping[str, Counted] = {}
        self._rose: dict[str, dict[str, list[tuple[float, float]]]] = {}
        """The values of counters that changed, with the time of the look that found each."""

    def note(self, counted: Mapping[str, Counted], now: float) -> None:
        """By whose they are; what is not named any more is forgotten."""
        before, self._last = self._last, counted
        self._rose = {who: past for who, past in self._rose.items() if who in counted}
        for who, values in counted.items():
            if values != (last := before.get(who, values)):  # most counters rest
                rose = self._rose.setdefault(who, {})
                for name in (name for name in values if values[name] != last[name]):
                    rose.setdefault(name, [(0.0, last[name])]).append((now, values[name]))
        for past in (past for its in self._rose.values() for past in its.values()):
            # The newest of those that are too old says what was so at the window's beginning.
            while len(past) > 1 and past[1][0] <= now - LONGEST:
                del past[0]

    def rise(self, who: str, name: str, seconds: float, now: float) -> float:
        if who not in self._rose or len(past := self._rose[who].get(name, [])) < 2:
            return 0.0
        then = next((at for at in reversed(past) if at[0] <= now - seconds), past[0])
        last, before = past[-1][1], then[1]
        return last - before if last >= before else last


@dataclass(frozen=True, slots=True)
class Sight:
    """Everything that a condition may look at."""

    now: float
    wall: float
    sessions: Mapping[str, Session] = field(default_factory=dict)
    """Those that should run."""
    backends: Mapping[str, BackendView] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    """The groups with an incident, each with the code of what its members fail with."""
    machine: Mapping[str, float] = field(default_factory=dict)
    """Figures by the name of their metric."""
    outbox_oldest: Mapping[str, float] = field(default_factory=dict)
    webhooks_oldest: float | None = None
    policy: TroublesPolicy = field(default_factory=TroublesPolicy)
    health: HealthPolicy = field(default_factory=HealthPolicy)
    memory: MemoryPolicy = field(default_factory=MemoryPolicy)
    windows: Windows = field(default_factory=Windows)
    not_kept: Collection[str] = ()
    """Sessions whose disk refuses what arrives."""
    outbox_lost: str = ""
    """The fault that the opening of the outbox found; "" = it was whole."""

    def rise(self, who: str, name: str, seconds: float) -> float:
        return self.windows.rise(who, name, seconds, self.now)

    def judged(self, of: Of) -> Mapping[str, Any]:
        """The sessions, backends, groups or the machine that rows of this kind judge, by name."""
        named: dict[Of, Mapping[str, Any]] = {Of.SESSION: self.sessions, Of.BACKEND: self.backends}
        return {**named, Of.GROUP: self.groups, Of.MACHINE: {"": None}}[of]

    def unknown(self) -> Mapping[bool, Collection[str]]:
        """Sessions that no row speaks of, for their server is down; and (True) those that a row
        `of_incident` leaves to their incident."""
        down = {name for name, backend in self.backends.items() if not backend.claim.up}
        away = {who for who, view in self.sessions.items() if view.instance.backend in down}
        return {False: away, True: away | {w for w, it in self.sessions.items() if it.in_incident}}


Key = tuple[str, str]
"""A row's name, and what it is about."""


@dataclass(frozen=True, slots=True)
class Trouble:
    row: Row
    who: str
    since: float
    """When its condition began to hold (boot clock)."""
    last: float
    """When it was last seen to hold."""
    value: str = ""
    begun_wall: float | None = None
    """None: its time to wait is not over."""
    stays_until: float = 0.0

    @property
    def key(self) -> Key:
        return self.row.name, self.who

    @property
    def named(self) -> str:
        return f"{self.row.name} of {self.who}" if self.who else self.row.name

    @property
    def sentence(self) -> str:
        return self.row.sentence.format(who=self.who, value=self.value)


Look = tuple[Mapping[Key, Trouble], list[Trouble], list[Trouble]]
"""Those that are present, those that begin, and those that are over."""


def look(table: Iterable[Row], before: Mapping[Key, Trouble], sight: Sight) -> Look:
    present: dict[Key, Trouble] = {}
    unknown = sight.unknown()
    for row in table:
        hidden = unknown[row.of_incident] if row.of is Of.SESSION else ()
        for who, judged in sight.judged(row.of).items():
            last = before.get((row.name, who)) if before else None
            if who in hidden:  # one that has begun goes on
                seen = last and last.begun_wall and replace(last, last=sight.now)
            else:
                found = row.condition(sight, judged)
                well = last is None and (found is None or found is False)
                seen = None if well else _seen(row, who, last, sight.now, found)
            if seen:
                present[seen.key] = seen
    began = [
        replace(trouble, begun_wall=sight.wall)
        for trouble in present.values()
        if trouble.begun_wall is None
        and trouble.last == sight.now  # it may be well by now
        and sight.now - trouble.since >= trouble.row.wait
    ]
    present.update((trouble.key, trouble) for trouble in began)
    for key in _covered(present):
        del present[key]
    over = [its for key, its in before.items() if its.begun_wall and key not in present]
    return present, [one for one in began if one.key in present], over


def _seen(row: Row, who: str, before: Trouble | None, now: float, found: Found) -> Trouble | None:
    if found or found == "":
        value = "" if found is True else found
        return replace(before or Trouble(row, who, now, now), last=now, value=value)
    if before is None or now < before.stays_until:
        return before
    return before if found is None and now - before.last < row.hold else None


def _covered(present: Mapping[Key, Trouble]) -> set[Key]:
    begun = [trouble for trouble in present.values() if trouble.begun_wall is not None]
    return {
        key
        for trouble in begun
        for key in present
        if key[0] in trouble.row.covers and (trouble.row.of is Of.MACHINE or key[1] == trouble.who)
    }
