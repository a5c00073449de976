"""Makes an instance: checked, its folder laid out, recorded, and woken."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from agent.backends.declared import Backends
from agent.core.model import Instance, InstanceId
from agent.core.view import InstanceView
from agent.engines.catalog import check_settings, find_engine
from agent.errors import ConfigError, InvalidRequest, Refused
from agent.supervise.gate import Gate
from agent.supervise.registry import Registry


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class Creation:
    registry: Registry
    backends: Backends
    gate: Gate
    wake: Callable[[InstanceId], None]

    async def create(self, instance: Instance) -> InstanceView:
        self._check_engine(instance)
        if instance.id in self.registry.facts:
            raise Refused(
                f"cannot create {instance.id}: it exists already", field="id", code="exists"
            )
        made = replace(instance, created_wall=instance.created_wall or time.time())
        disabled = "" if made.enabled else ", disabled"
        facts = await self.registry.create(made, f"created with engine {made.engine}{disabled}")
        self.wake(facts.id)
        self.gate.note_wait(facts)
        return self.registry.view(facts.id)

    def _check_engine(self, instance: Instance) -> None:
        try:
            known = find_engine(instance.engine)
        except ConfigError as error:
            raise InvalidRequest(str(error), field="engine", code=error.code) from None
        check_settings_of(instance)
        check_among_others(self.registry, instance)
        if known.remote or instance.backend:
            self.backends.check_place(instance)


def check_settings_of(instance: Instance) -> None:
    """Refuse settings with which its worker could not start."""
    try:
        check_settings(instance.engine, instance.settings)
    except ConfigError as error:
        field = f"settings.{error.field}"
        raise InvalidRequest(str(error), field=field, code="invalid_settings") from None


def check_among_others(registry: Registry, instance: Instance) -> None:
    """Refuse one that names what agent.toml has not, or whose session another instance has."""
    registry.check(instance, [facts.instance for facts in registry.facts.values()])
