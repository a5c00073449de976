"""Named points at which a test can kill this process or make it fail. Off unless asked for.
WA_FAILPOINT=before_commit:kill,retire_moved:raise:3 (the third time it is passed; default 1)."""

import os
import signal
from collections.abc import Mapping

from agent.errors import ConfigError

POINTS = frozenset(
    {
        "after_tmp_write",
        "after_rename",
        "before_commit",
        "after_commit",
        "mid_migration",
        "mid_set_aside",
        "mid_rebuild",
        "retire_manifest",
        "retire_moved",
        "mid_sweep",
        "snapshot_begun",
        "snapshot_copied",
        "snapshot_manifest",
        "snapshot_verified",
        "snapshot_visible",
        "mid_prune",
        "restore_copied",
        "import_unpacked",
        "staging_made",
        "staging_ready",
        "staging_way_free",
        "staging_in_place",
        "repair_begun",
        "repair_done",
        "repair_disconnected",
        "repair_stopped",
        "cleanup_reset",
        "action_begun",
        "renew_done",
        "set_aside",
        "deletion_begun",
        "deletion_retired",
        "laid_by",
        "outbox_file",
        "outbox_accepted",
        "outbox_begun",
        "outbox_sent",
        "outbox_noted",
    }
)

VARIABLE = "WA_FAILPOINT"


class FailpointHit(Exception):
    """Raised at a point that was set to `raise`."""


def failpoint(name: str) -> None:
    """Do what WA_FAILPOINT says for this point: nothing, in production."""
    # The environment is read each time so that no state hides here; one lookup costs nothing
    # beside the fsync that every one of these points stands next to.
    if not (wanted := os.environ.get(VARIABLE)):
        return
    for point, (action, left) in parse_failpoints(wanted).items():
        if point != name:
            continue
        if left > 1:
            os.environ[VARIABLE] = wanted.replace(
                f"{point}:{action}:{left}", f"{point}:{action}:{left - 1}"
            )
        elif action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            raise FailpointHit(name)


def parse_failpoints(text: str) -> Mapping[str, tuple[str, int]]:
    """Action and count by point; a typo must not make a test pass that tests nothing."""
    points = {}
    for part in text.split(","):
        point, _, rest = part.partition(":")
        action, _, count = rest.partition(":")
        if point not in POINTS or action not in ("kill", "raise") or not (count or "1").isdigit():
            raise ConfigError(f"cannot use {VARIABLE}={part}: it must be POINT:kill or POINT:raise")
        points[point] = (action, int(count or 1))
    return points
