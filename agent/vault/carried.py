"""What a session keeps beside its files stays with its id while these are replaced: the folders of
wings. They lie in a place of their own in between, from where they come back after any crash."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.core.model import InstanceId, parse_instance_id
from agent.errors import InvalidRequest
from agent.failpoint import failpoint
from agent.log import about, bound
from agent.vault.errors import explain
from agent.vault.folders import open_own
from agent.vault.locate import names_in
from agent.wing import kept_folders

CARRIED = ".carried"

_log = bound(name=__name__)


@contextmanager
def carried(root: Path, id: InstanceId) -> Iterator[None]:
    """Around all that replaces the folder of an instance. Its worker does not run."""
    _lay_by(root, id)
    try:
        yield
    finally:
        bring_back(root, id)


def bring_back(root: Path, wanted: InstanceId | None = None) -> None:
    """After a crash, too: what was laid by goes into the folder of its session, where that is.
    `wanted`: only this session's."""
    if not os.path.lexists(root / CARRIED):
        return
    with open_own(root, CARRIED, shared=True) as (_, fd):
        for name in names_in(fd):
            id = _id_of(name)
            if id is None or wanted not in (None, id):
                continue
            folder = root / id / name.partition(".")[2]
            if not os.path.lexists(folder.parent) or os.path.lexists(folder):
                waits = "%s waits for the folder of its session"
                _log.warning(waits, root / CARRIED / name, extra=about(id))
                continue
            try:
                os.rename(name, folder, src_dir_fd=fd)
            except OSError as error:
                why = explain("bring back", root / CARRIED / name, error)
                _log.error("%s", why, extra=about(id))


def _lay_by(root: Path, id: InstanceId) -> None:
    for folder in kept_folders():
        if not (root / id / folder).is_dir():
            continue
        with open_own(root, CARRIED, shared=True) as (_, fd):
            with suppress(FileNotFoundError):
                try:
                    os.rename(root / id / folder, f"{id}.{folder}", dst_dir_fd=fd)
                    os.fsync(fd)
                except OSError as error:
                    raise explain("lay by", root / id / folder, error) from error
            failpoint("laid_by")


def _id_of(name: str) -> InstanceId | None:
    id, _, folder = name.partition(".")
    if folder not in kept_folders():
        return None
    try:
        return parse_instance_id(id)
    except InvalidRequest:
        return None
