"""What the fleet's database keeps of a session, so that another machine can go on with it."""

from agent.core.model import Instance, Override, SessionRecord
from agent.engines.catalog import entry_of
from agent.fleet.coordinator import NewSession

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
