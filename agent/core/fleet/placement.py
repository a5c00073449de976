"""On which machine a session runs: labels, a wish by name, capacity, and even filling."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Place:
    """A machine that runs sessions."""

    name: str
    capacity: int
    """Sessions that it has memory for."""
    used: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    engines: frozenset[str] = frozenset()
    drained: bool = False


@dataclass(frozen=True, slots=True)
class Placing:
    """A session that needs a machine."""

    id: str
    engine: str
    labels: Mapping[str, str] = field(default_factory=dict)
    on: str = ""
    """The only machine that may run it; "" = any."""


@dataclass(frozen=True, slots=True)
class Placement:
    on: Mapping[str, str]
    """The machine's name, by the session's id."""
    waiting: Mapping[str, str]
    """Why a session waits for a machine, by its id."""


def place(sessions: Sequence[Placing], places: Iterable[Place]) -> Placement:
    """Choose a machine for each session, the choosiest sessions first."""
    free = {machine.name: machine for machine in places}
    on: dict[str, str] = {}
    waiting: dict[str, str] = {}
    for session in sorted(sessions, key=lambda it: (not it.on, -len(it.labels), it.id)):
        if refusal := _why_nowhere(session, free.values()):
            waiting[session.id] = refusal
            continue
        fitting = [machine for machine in free.values() if not _why_not(session, machine)]
        chosen = min(fitting, key=lambda machine: _order(session, machine))
        on[session.id] = chosen.name
        free[chosen.name] = replace(chosen, used=chosen.used + 1)
    return Placement(on, waiting)


def place_first(session: Placing, first: str, places: Iterable[Place]) -> Placement:
    """On this machine where it can run the session, else as `place` chooses."""
    every = list(places)
    there = place([session], [machine for machine in every if machine.name == first])
    return there if there.on else place([session], every)


def _order(session: Placing, machine: Place) -> tuple[float, bytes]:
    """The emptiest machine by its capacity; among equals the same one at every try."""
    tie = hashlib.blake2b(f"{session.id}\0{machine.name}".encode(), digest_size=8).digest()
    return machine.used / machine.capacity, tie


def _why_not(session: Placing, machine: Place) -> str:
    if session.on not in ("", machine.name):
        return f"it may only run on {session.on}"
    if machine.drained:
        return "is drained"
    if session.engine not in machine.engines:
        return f"has no engine {session.engine}"
    for label, value in session.labels.items():
        if machine.labels.get(label) != value:
            return f"lacks the label {label}={value}"
    if machine.used >= machine.capacity:
        return "has no room for another session"
    return ""


def _why_nowhere(session: Placing, machines: Iterable[Place]) -> str:
    """A sentence that names what stands against each machine; "" when one can run it."""
    against: dict[str, list[str]] = {}
    named = [machine for machine in machines if session.on in ("", machine.name)]
    for machine in named:
        reason = _why_not(session, machine)
        if not reason:
            return ""
        against.setdefault(reason, []).append(machine.name)
    if not named:
        return f"no machine {session.on} is alive" if session.on else "no machine is alive"
    return "; ".join(f"{', '.join(sorted(who))} {reason}" for reason, who in against.items())
