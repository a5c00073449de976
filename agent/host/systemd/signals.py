"""Hears systemd's signals: which cache entries grow stale, which instances wake."""

import asyncio
from dataclasses import dataclass

from dbus_fast import Message

from agent.host import units
from agent.host.base import Wake
from agent.host.systemd.jobs import Jobs
from agent.host.systemd.unit_cache import UnitCache


@dataclass(slots=True, eq=False, repr=False)
class Signals:
    kind: units.Kind
    cache: UnitCache
    jobs: Jobs
    wake: Wake
    files_changed: asyncio.Event

    def hear(self, message: Message) -> None:
        if message.member == "PropertiesChanged":
            self._properties_changed(message)
        elif message.member == "JobRemoved":
            self._job_removed(message)
        elif message.member in ("UnitNew", "UnitRemoved"):
            self._unit_came_or_went(message)
        elif message.member == "UnitFilesChanged" or (
            message.member == "Reloading" and message.body == [False]
        ):
            self.files_changed.set()

    def _properties_changed(self, message: Message) -> None:
        unit = units.unit_of_path(message.path or "")
        instance = self.kind.id_of(unit) if unit else None
        if instance is None:
            return
        _, changed, invalidated = message.body
        plain = {name: value.value for name, value in changed.items()}
        if self.cache.changed(instance, plain, invalidated):
            self.wake(instance)

    def _job_removed(self, message: Message) -> None:
        _, path, unit, result = message.body
        instance = self.kind.id_of(unit)
        if instance is not None:
            self.cache.mark_stale(instance)
            self.jobs.removed(path, result)
            self.wake(instance)

    def _unit_came_or_went(self, message: Message) -> None:
        instance = self.kind.id_of(message.body[0])
        if instance is not None:
            # Ask the unit, do not believe the signal: a reload removes each unit and makes it
            # again.
            self.cache.mark_stale(instance)
            self.wake(instance)
