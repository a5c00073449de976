"""Turn systemd's properties of a unit into a `UnitStatus`."""

from collections.abc import Mapping
from typing import Any

from agent.core.model import UnitState, UnitStatus

UNIT = "org.freedesktop.systemd1.Unit"
SERVICE = "org.freedesktop.systemd1.Service"

PROPERTIES: tuple[tuple[str, str], ...] = (
    (UNIT, "ActiveState"),
    (UNIT, "LoadState"),
    (UNIT, "Job"),
    (UNIT, "InvocationID"),
    (UNIT, "StateChangeTimestampMonotonic"),
    (SERVICE, "MainPID"),
    (SERVICE, "NRestarts"),
    (SERVICE, "Result"),
    (SERVICE, "ExecMainStatus"),
    (SERVICE, "StatusText"),
)
WANTED = frozenset(name for _, name in PROPERTIES)

LIFE = frozenset({"ActiveState", "MainPID", "NRestarts"})
"""A change of one of these may come with a new InvocationID, which no signal has."""

ENDING = ("Result", "ExecMainStatus")

_STATES = {
    "active": UnitState.ACTIVE,
    "reloading": UnitState.ACTIVE,
    "activating": UnitState.ACTIVATING,
    "deactivating": UnitState.DEACTIVATING,
    "failed": UnitState.FAILED,
    "inactive": UnitState.INACTIVE,
    "maintenance": UnitState.INACTIVE,
}


def unit_state(active_state: str) -> UnitState:
    return _STATES.get(active_state, UnitState.INACTIVE)


def read_unit(properties: Mapping[str, Any], sleep_offset: float) -> UnitStatus:
    """`sleep_offset`: what the boot clock counts more than the monotonic one."""
    changed = int(properties["StateChangeTimestampMonotonic"])
    job_id = properties["Job"][0]
    return UnitStatus(
        state=unit_state(properties["ActiveState"]),
        run=bytes(properties["InvocationID"]).hex(),
        main_pid=int(properties["MainPID"]),
        restarts=int(properties["NRestarts"]),
        result=str(properties["Result"]),
        exit_status=int(properties["ExecMainStatus"]),
        status_text=str(properties["StatusText"]),
        job_pending=job_id != 0,
        masked=properties["LoadState"] == "masked",
        since=changed / 1e6 + sleep_offset if changed else 0.0,
    )
