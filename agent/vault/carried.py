"""What a session keeps beside its files stays with its id while these are replaced. In between it
lies in a place of its own, from where it comes back after any crash."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.core.model import InstanceId
from agent.failpoint import failpoint
from agent.log import about, bound, going_on
from agent.vault.errors import doing
from agent.vault.folders import open_own
from agent.vault.identity import ids_in

CARRIED = ".carried"
KEPT = "messages"
"""The folder beside the session's files."""

_log = bound(name=__name__)


@contextmanager
def carried(root: Path, id: InstanceId) -> Iterator[None]:
    """Around all that replaces the folder of an instance. Its worker does not run."""
    if (root / id / KEPT).is_dir():
        with (
            open_own(root, CARRIED, shared=True) as (_, place),
            doing("lay by", root / id / KEPT),
            suppress(FileNotFoundError),
        ):
            os.rename(root / id / KEPT, f"{id}.{KEPT}", dst_dir_fd=place.fd)
            place.sync()
        failpoint("laid_by")
    try:
        yield
    finally:
        bring_back(root, id)


def bring_back(root: Path, wanted: InstanceId | None = None) -> None:
    """After a crash, too: what was laid by goes into the folder of its session, where that is.
    `wanted`: only this session's."""
    if not os.path.lexists(root / CARRIED):
        return
    with open_own(root, CARRIED, shared=True) as (_, place):
        for name in place.names():
            text, _, kept = name.partition(".")
            id = next(ids_in([text]), None)
            if id is None or wanted not in (None, id) or kept != KEPT:
                continue
            folder = root / id / kept
            if not os.path.lexists(folder.parent) or os.path.lexists(folder):
                waits = place.path / name
                _log.warning("%s waits for the folder of its session", waits, extra=about(id))
                continue
            with going_on(), doing("bring back", folder):
                os.rename(name, folder, src_dir_fd=place.fd)
