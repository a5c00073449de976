"""Makes an instance: checked, its folder laid out, recorded, and woken."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from agent.core.model import Instance, InstanceId, JournalEntry, SessionRecord
from agent.core.view import InstanceView
from agent.engines.catalog import check_settings, find_engine
from agent.errors import ConfigError, InvalidRequest, Refused
from agent.store.database import Store
from agent.supervise.backends.face import check_place
from agent.supervise.backends.registry import Backends
from agent.supervise.registry import Registry, identity_of
from agent.supervise.turns.memory import Room
from agent.vault.identity import create as create_folder


@dataclass(slots=True, eq=False, kw_only=True)
class Creation:
    registry: Registry
    store: Store
    session_root: Path
    backends: Backends
    room: Room
    wake: Callable[[InstanceId], None]

    async def create(self, instance: Instance) -> InstanceView:
        self._check_engine(instance)
        if instance.id in self.registry.facts:
            raise Refused(
                f"cannot create {instance.id}: it exists already", field="id", code="exists"
            )
        made = replace(instance, created_wall=instance.created_wall or time.time())
        # The folder first: a crash in between leaves an empty folder, never a lost session.
        await asyncio.to_thread(create_folder, self.session_root, made)
        record = SessionRecord(status_since_wall=time.time())
        said = JournalEntry(
            "created",
            f"created with engine {made.engine}" + ("" if made.enabled else ", disabled"),
            instance=made.id,
            wall=time.time(),
        )
        await self.store.add(made, record, said)
        facts = self.registry.add(made, record)
        facts.saved.identity = identity_of(facts)
        self.wake(facts.id)
        # A start that has to wait for memory says so in its answer.
        facts.wait_reason = facts.wait_reason or self.room.hold(facts)
        return self.registry.view(facts.id)

    def _check_engine(self, instance: Instance) -> None:
        try:
            known = find_engine(instance.engine)
        except ConfigError as error:
            raise InvalidRequest(str(error), field="engine", code=error.code) from None
        check_settings_of(instance)
        if known.remote or instance.backend:
            check_place(self.backends, instance)


def check_settings_of(instance: Instance) -> None:
    """Refuse settings with which its worker could not start."""
    try:
        check_settings(instance.engine, instance.settings)
    except ConfigError as error:
        field = f"settings.{error.field}"
        raise InvalidRequest(str(error), field=field, code="invalid_settings") from None
