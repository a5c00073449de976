"""Whether a session should run, and whether the agent still tries to bring it back."""

from agent.core.model import ConnectionStatus as CS
from agent.core.model import Health
from agent.core.reasons import reason_of
from agent.core.recovery.ladder import needs_repair
from agent.core.recovery.repair import Ending
from agent.core.view import InstanceView

_BY_HAND_OR_TRIES = ("attempts_used_up", "conflict_foreign_owner")


def is_wanted(view: InstanceView) -> bool:
    """It should run now: an instance stopped by hand is enabled and not wanted."""
    return view.desired.should_run and not view.unit.masked


def has_given_up(view: InstanceView) -> bool:
    """Wanted, and the agent tries nothing until an operator acts."""
    verdict = view.verdict
    # A session that shows a code, or would on request, lacks only a scan.
    if not is_wanted(view) or view.status in (CS.CONNECTED, CS.QR_REQUIRED):
        return False
    if verdict.reason in _BY_HAND_OR_TRIES:
        return True
    if needs_repair(verdict):
        # Its ladder has begun, or begins in this pass.
        ending = view.repair.ending if view.repair is not None else Ending.NOT_YET
        # Without a pairing to lose the next repair begins by itself (`unpaired_pause`).
        given_up = ending is Ending.GAVE_UP and not verdict.should_cleanup
        return given_up or ending is Ending.NEEDS_PERSON
    reason = reason_of(verdict.reason)
    stays_down = verdict.health is Health.DEGRADED and verdict.state is CS.DISCONNECTED
    return (stays_down and not reason.slow) or (bool(verdict.reason) and reason.hopeless)
