"""Two sessions that run as one linked device: the copy stops, or each would throw the other out."""

from agent.core.findings.operator import with_override
from agent.core.model import ConnectionStatus, JournalEntry, Override
from agent.supervise.devices import Devices
from agent.supervise.facts import Facts
from agent.supervise.story import entry


async def stop_copy(facts: Facts, devices: Devices, boot: str) -> list[JournalEntry]:
    """Stopped as by an operator, so that its `start` is refused while the other one runs."""
    if facts.instance.backend or not facts.unit.runs:
        return []
    claim = facts.run.claim
    if claim is not None and claim.claim.status is ConnectionStatus.CONNECTED:
        await devices.look_for_twin(facts)
    if (elder := devices.elder_of(facts.id)) is None:
        return []
    facts.record = with_override(facts.record, Override.STOPPED, boot)
    sentence = (
        f"stopped: instance {elder} is the same linked device, and two programs with one device end"
        f" each other's connections; delete the one that you do not want"
    )
    return [entry(facts, "same_device", sentence)]
