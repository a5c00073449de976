"""What a session keeps beside its files stays with its id while these are replaced. In between it
lies in a place of its own, from where it comes back after any crash."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.core.model import InstanceId, parse_instance_id
from agent.engines.catalog import file_rules
from agent.files import failpoint
from agent.log import about, going_on
from agent.vault.folder import SESSION, doing, open_root
from agent.vault.folders import open_own
from agent.vault.identity import ids_in
from agent.vault.trash import TRASH, list_trash

CARRIED = ".carried"
KEPT = "messages"
"""The folder beside the session's files."""

_log = logging.getLogger(__name__)


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
                _log.warning("%s waits for its folder", place.path / name, extra=about(id))
                continue
            with going_on(), doing("bring back", folder):
                os.rename(name, folder, src_dir_fd=place.fd)


MARK = "give_back.json"


def note_own_files(root: Path, id: InstanceId, engine: str, account: str) -> None:
    """Before its folder is retired."""
    with open_root(root) as top, top.inner(parse_instance_id(id)) as folder:
        with folder.inner(SESSION) as session:
            names = file_rules(engine).not_of(session, account)
        if names:
            folder.write(MARK, json.dumps(sorted(names)).encode(), top.modes)


def give_back(root: Path, id: InstanceId) -> list[str]:
    """Into the session's new folder, from each retired one that still has some: their names."""
    back: list[str] = []
    for retired in list_trash(root):
        if retired.id == id and (retired.path / MARK).exists():
            back += _from(root, retired.name, id)
    return back


def _from(root: Path, retired: str, id: InstanceId) -> Iterator[str]:
    with (
        open_own(root, TRASH, shared=True) as (top, trash),
        trash.inner(retired) as old,
        old.inner(SESSION) as source,
        top.inner(id, SESSION) as target,
    ):
        noted: set[str] = set()
        with suppress(ValueError, TypeError, RecursionError):
            noted = set(json.loads(old.content(MARK)))
        for name in sorted(noted & set(source.names()) - set(target.names())):
            # A folder of another user's that this one may not write to stays in the trash.
            with suppress(OSError):
                source.move(name, name, target)
                yield name
        target.sync()
        source.sync()
        os.unlink(MARK, dir_fd=old.fd)
