"""The phases of a worker's life on the process host, and systemd's word for each."""

from enum import Enum, auto

from agent.core.model import UnitState


class Phase(Enum):
    DEAD = auto()
    LAUNCHING = auto()
    STARTING = auto()
    RUNNING = auto()
    STOPPING = auto()
    ABORTING = auto()
    KILLING = auto()
    SWEEPING = auto()
    WAITING = auto()
    FAILED = auto()


STATE = {
    Phase.DEAD: UnitState.INACTIVE,
    Phase.LAUNCHING: UnitState.ACTIVATING,
    Phase.STARTING: UnitState.ACTIVATING,
    Phase.RUNNING: UnitState.ACTIVE,
    Phase.STOPPING: UnitState.DEACTIVATING,
    Phase.ABORTING: UnitState.DEACTIVATING,
    Phase.KILLING: UnitState.DEACTIVATING,
    Phase.SWEEPING: UnitState.DEACTIVATING,
    Phase.WAITING: UnitState.ACTIVATING,
    Phase.FAILED: UnitState.FAILED,
}
LIVE = (Phase.STARTING, Phase.RUNNING, Phase.STOPPING, Phase.ABORTING, Phase.KILLING)
AT_REST = (Phase.DEAD, Phase.FAILED)
