"""What an operator did to a worker with systemctl, concluded from its unit."""

from dataclasses import replace

from agent.core.model import Override, SessionRecord, UnitState, UnitStatus
from agent.core.reasons import reason_of


def stopped_by_hand(record: SessionRecord, unit: UnitStatus, boot: str) -> bool:
    """Its last run of this boot is over, and the agent did not stop it."""
    return (
        unit.state is UnitState.INACTIVE
        and record.seen_boot == boot
        and record.seen_run != ""
        and not (record.override is Override.STOPPED and record.override_boot == boot)
        and record.stopped_run != record.seen_run
    )


def started_by_hand(
    record: SessionRecord, unit: UnitStatus, boot: str, *, our_run: str, enabled: bool
) -> bool:
    """A new run that neither the agent nor systemd's Restart= began, and that is not wanted."""
    if not unit.runs or unit.restarts or unit.run in ("", record.seen_run, our_run):
        return False
    if unit.state is UnitState.DEACTIVATING:
        return False
    held = record.override is Override.STOPPED and record.override_boot == boot
    # At boot systemd starts what is enabled, this unit too; a later start is an operator's.
    again = has_ended(record) and record.seen_boot == boot
    return held or again or not enabled


def has_ended(record: SessionRecord) -> bool:
    """Whether WhatsApp ended it for good."""
    return bool(record.reason) and reason_of(record.reason).final


def with_override(record: SessionRecord, override: Override, boot: str) -> SessionRecord:
    """The record with an operator's order, which holds for this boot."""
    in_boot = "" if override is Override.NONE else boot
    return replace(record, override=override, override_boot=in_boot)
