"""The last properties of the agent's units, kept fresh by systemd's signals. A unit is asked again
only when a signal or a listing shows a change."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.clock import slept
from agent.core.model import UNIT_ABSENT, InstanceId, UnitStatus
from agent.host.systemd.unit_facts import ENDING, LIFE, WANTED, read_unit


@dataclass(slots=True)
class _Entry:
    properties: dict[str, Any] = field(default_factory=dict)
    stale: bool = True
    absent: bool = False
    ended: dict[str, Any] = field(default_factory=dict)
    """How the run before ended; systemd itself forgets that at the next start."""


class UnitCache:
    def __init__(self) -> None:
        self._entries: dict[InstanceId, _Entry] = {}

    def known(self) -> list[InstanceId]:
        return list(self._entries)

    def keep_only(self, instances: frozenset[InstanceId]) -> None:
        for instance in self._entries.keys() - instances:
            del self._entries[instance]

    def note_absent(self, instance: InstanceId) -> None:
        """Not loaded. Asking for its properties would load it, and signal that, for ever."""
        self._entries[instance] = _Entry(stale=False, absent=True)

    def all_stale(self) -> None:
        for entry in self._entries.values():
            entry.stale = True

    def mark_stale(self, instance: InstanceId) -> None:
        self._entries.setdefault(instance, _Entry()).stale = True

    def begin_asking(self, instance: InstanceId) -> None:
        """Later signals count as newer than the answer."""
        self._entries.setdefault(instance, _Entry()).stale = False

    def answered(self, instance: InstanceId, properties: Mapping[str, Any]) -> UnitStatus:
        entry = self._entries.setdefault(instance, _Entry())
        entry.properties = dict(properties)
        entry.absent = False
        return _read(entry)

    def changed(
        self, instance: InstanceId, changed: Mapping[str, Any], invalidated: list[str]
    ) -> bool:
        """PropertiesChanged arrived; says whether there is something new to decide. A status text
        alone is for people; the worker's claims come over its link."""
        entry = self._entries.setdefault(instance, _Entry())
        different = {
            name: value
            for name, value in changed.items()
            if name in WANTED and entry.properties.get(name) != value
        }
        if WANTED.intersection(invalidated) or LIFE.intersection(different):
            entry.stale = True
        entry.properties.update(different)
        if different.get("Result", "success") != "success":
            entry.ended = {name: entry.properties.get(name) for name in ENDING}
        return entry.stale or bool(different.keys() - {"StatusText"})

    def differs(self, instance: InstanceId, active_state: str, job: int) -> bool:
        """Whether a listing differs from the cached state."""
        properties = self._entries.setdefault(instance, _Entry()).properties
        return (
            properties.get("ActiveState") != active_state or properties.get("Job", (0,))[0] != job
        )

    def status(self, instance: InstanceId) -> UnitStatus | None:
        """None: systemd must be asked."""
        entry = self._entries.get(instance)
        if entry is None or entry.stale:
            return None
        if entry.absent:
            return UNIT_ABSENT
        if not entry.properties:
            return None
        return _read(entry)


def _read(entry: _Entry) -> UnitStatus:
    properties = entry.properties
    if entry.ended and properties["NRestarts"] and properties["Result"] == "success":
        properties = {**properties, **entry.ended}
    # Rounded, or the moment between the two looks would make each answer a different one.
    return read_unit(properties, round(slept(), 3))
