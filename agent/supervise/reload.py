"""A running agent takes on the settings that were read again."""

import logging
from collections.abc import Sequence

from agent.clock import boot_now
from agent.config.config import Config, Declaration
from agent.config.load import changes_that_need_restart
from agent.config.tables import shared_sessions, worker_settings
from agent.errors import WaError
from agent.log import about
from agent.supervise.assemble import Supervision
from agent.supervise.facts import Facts
from agent.supervise.start_up import create_declared

log = logging.getLogger(__name__)


async def take_on(config: Config, supervision: Supervision) -> None:
    """Take on the settings; log the keys that wait for the agent's next start."""
    registry = supervision.registry
    before = supervision.settings.config
    supervision.settings.take(config)
    for key in changes_that_need_restart(before, config):
        log.warning("%s takes effect at the agent's next start", key)
    registry.take_settings_of_wings(worker_settings(config))
    await supervision.backends.take_on(config.backend)
    new = {declared.id for declared in config.instance if declared.id not in registry.facts}
    for declared in config.instance:
        if declared not in before.instance and declared.id not in new:
            log.warning(
                "%s exists: [[instance]] applies at its creation only",
                declared.id,
                extra=about(declared.id),
            )
    await _create([declared for declared in config.instance if declared.id in new], supervision)
    enabled = [its.instance for its in registry.facts.values() if its.instance.enabled]
    for one, other in shared_sessions(config, enabled):
        log.error("%s and %s run one session: agent.toml gives both the same place", one, other)
    for facts in registry.facts.values():
        _look_in_time(facts, config)
        supervision.wake(facts.id)


async def _create(declared: Sequence[Declaration], supervision: Supervision) -> None:
    try:
        await create_declared(supervision.registry, declared)
    except WaError as error:
        log.error("cannot create the instances that [[instance]] declares: %s", error)


def _look_in_time(facts: Facts, config: Config) -> None:
    """The next look was set by the old intervals, and may be far."""
    now = boot_now()
    facts.next_probe = min(facts.next_probe, now + config.health.interval)
    facts.next_deep = min(facts.next_deep, now + config.health.deep)
