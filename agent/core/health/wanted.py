"""Whether a session should run, and whether the agent still tries to bring it back."""

from agent.core.model import ConnectionStatus as CS
from agent.core.model import Health
from agent.core.reasons import reason_of
from agent.core.recovery.ladder import needs_repair
from agent.core.recovery.repair import Ending
from agent.core.session import Session

_BY_HAND_OR_TRIES = ("attempts_used_up", "conflict_foreign_owner")


def is_wanted(session: Session) -> bool:
    """It should run now: an instance stopped by hand is enabled and not wanted."""
    return session.desired.should_run and not session.unit.masked


def has_given_up(session: Session) -> bool:
    """Wanted, and the agent tries nothing until an operator acts."""
    verdict = session.verdict
    # A session that shows a code, or would on request, lacks only a scan.
    if not is_wanted(session) or session.status in (CS.CONNECTED, CS.QR_REQUIRED):
        return False
    if verdict.reason in _BY_HAND_OR_TRIES:
        return True
    if needs_repair(verdict):
        # Its ladder has begun, or begins in this pass.
        ending = session.repair.last.ending if session.repair.last is not None else Ending.NOT_YET
        # Without a pairing to lose the next repair begins by itself (`unpaired_pause`).
        given_up = ending is Ending.GAVE_UP and not verdict.should_cleanup
        return given_up or ending is Ending.NEEDS_PERSON
    reason = reason_of(verdict.reason)
    stays_down = verdict.health is Health.DEGRADED and verdict.state is CS.DISCONNECTED
    return (stays_down and not reason.slow) or (bool(verdict.reason) and reason.hopeless)
