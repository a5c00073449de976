"""What operators order of a session is written into the fleet's database: it holds on the next
machine too."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.core.model import Instance, InstanceId, Override, SessionRecord
from agent.engines.catalog import entry_of
from agent.errors import TryLater
from agent.fleet.coordinator import NewSession, Owned
from agent.fleet.fleet import Fleet
from agent.log import about
from agent.supervise.facts import Facts
from agent.supervise.fleet.ownership import Ownership

log = logging.getLogger(__name__)

RUNNING, STOPPED, DISABLED = "running", "stopped", "disabled"
"""stopped: by an operator's stop, which holds until a start."""


def wanted_of(instance: Instance, record: SessionRecord, boot: str) -> str:
    override = record.override if record.override_boot == boot else Override.NONE
    if override is Override.STOPPED:
        return STOPPED
    return RUNNING if instance.enabled or override is Override.STARTED else DISABLED


def default_failover(instance: Instance) -> str:
    """A browser's older profile risks the pairing; a backend's session lives on its server."""
    known = entry_of(instance.engine)
    return "wait" if known.remote or instance.backend or known.name == "web" else "newest"


def new_session(instance: Instance, record: SessionRecord, boot: str, machine: str) -> NewSession:
    """A backend's session stays with the machine that has the [[backend]]."""
    return NewSession(
        instance.id,
        instance.engine,
        wanted_of(instance, record, boot),
        default_failover(instance),
        only_on=machine if instance.backend else "",
        settings=dict(instance.settings),
    )


@dataclass(slots=True, eq=False, repr=False)
class Orders:
    fleet: Fleet
    ownership: Ownership
    boot: str
    _written: dict[InstanceId, tuple[int, str, Mapping[str, Any]]] = field(
        init=False, default_factory=dict
    )
    """The session's epoch, and what the database has of wanted and settings."""

    async def write_all(self, here: Iterable[Facts]) -> None:
        for facts in here:
            if (owned := self.ownership.mine(facts.id)) is None:
                continue
            if self._written.get(facts.id, (-1,))[0] != owned.epoch:
                self._written[facts.id] = (owned.epoch, owned.wanted, dict(owned.settings))
            await self._write(facts, owned)

    async def write(self, facts: Facts) -> None:
        if (owned := self.ownership.mine(facts.id)) is not None:
            await self._write(facts, owned)

    async def _write(self, facts: Facts, owned: Owned) -> None:
        wanted = wanted_of(facts.instance, facts.record, self.boot)
        ordered = (owned.epoch, wanted, dict(facts.instance.settings))
        if self._written.get(facts.id) == ordered:
            return
        try:
            await self.fleet.coordinator.update(
                self.fleet.keeper.member, facts.id, owned.epoch, wanted=wanted, settings=ordered[2]
            )
        except TryLater as error:
            sentence = "%s; the agent writes the order into the fleet's database later"
            log.warning(sentence, error, extra=about(facts.id))
            return
        self._written[facts.id] = ordered
