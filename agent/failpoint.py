"""Named points at which a test can kill this process or make it fail. Off unless asked for.
WA_FAILPOINT=before_commit:kill, or retire_moved:raise:3 (the third time it is passed)."""

import os
import signal

VARIABLE = "WA_FAILPOINT"


class FailpointHit(Exception):
    """Raised at a point that was set to `raise`."""


def failpoint(name: str) -> None:
    """Do what WA_FAILPOINT says for this point: nothing, in production."""
    # The environment is read each time so that no state hides here; one lookup costs nothing
    # beside the fsync that every one of these points stands next to.
    point, _, rest = os.environ.get(VARIABLE, "").partition(":")
    if point != name:
        return
    action, _, left = rest.partition(":")
    if left and int(left) > 1:
        os.environ[VARIABLE] = f"{point}:{action}:{int(left) - 1}"
    elif action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        raise FailpointHit(name)
