"""A session folder made apart, and put in place of another by renames that any crash may cut.

R/.staging/<id>.<kind> is being made; <id>.ready is whole, on the disk, and to be put in place. The
old folder goes to the trash first. `finish` after a crash: if the old one is still there, nothing
has happened; otherwise the new one belongs there.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from agent.core.model import InstanceId, parse_instance_id
from agent.errors import Refused, VaultError
from agent.failpoint import failpoint
from agent.folder_lock import folder_locked
from agent.log import bound
from agent.vault.carried import carried
from agent.vault.errors import doing
from agent.vault.folder import SESSION, Folder, open_instance
from agent.vault.folders import DOOMED, STAGING, doom, open_own, sweep_folder
from agent.vault.identity import Identity, ids_in, other_keys, put_identity
from agent.vault.trash import Retired, restore_trash, retire

_READY = ".ready"

Kind = Literal["restore", "import"]
"""What it is made for; one of each kind may be made for an id at a time."""

_log = bound(name=__name__)


@contextmanager
def staged(root: Path, id: InstanceId, kind: Kind) -> Iterator[Folder]:
    """An empty session folder that is being made; deleted when its making fails."""
    name = f"{parse_instance_id(id)}.{kind}"
    with open_own(root, STAGING) as (top, staging):
        _sweep(staging, name)
        staging.make(name, top.modes)
        try:
            with staging.inner(name) as made:
                made.make(SESSION, top.modes)
                with made.inner(SESSION) as session:
                    yield session
        except BaseException:
            doom(staging, name)
            raise


def discard(root: Path, id: InstanceId, kind: Kind) -> None:
    """Delete what was staged for this id."""
    with open_own(root, STAGING) as (_, staging):
        _sweep(staging, f"{id}.{kind}")


def put_in_place(
    root: Path,
    kind: Kind,
    identity: Identity,
    *,
    lineage: str,
    why: str,
    replace: bool,
) -> Retired | None:
    """Give the staged folder its identity and its place; return the retired one. The worker must
    not run; if it does, its lock stops this."""
    id = identity.instance.id
    name, ready, retired = f"{id}.{kind}", id + _READY, None
    with open_own(root, STAGING) as (top, staging), doing("put in place", root / id):
        try:
            with staging.inner(name) as made:
                others = other_keys(root, id) if replace else {}
                put_identity(made, identity, top.modes, {**others, "lineage": lineage})
                made.sync()
            with _no_worker(root, id), carried(root, id):
                if os.path.lexists(root / id) and not replace:
                    raise Refused(f"cannot put {id} in place: {root / id} exists", code="exists")
                failpoint("staging_made")
                staging.move(name, ready)
                staging.sync()
                failpoint("staging_ready")
                if os.path.lexists(root / id):
                    retired = retire(root, id, why)
                failpoint("staging_way_free")
                try:
                    _move_in(id, top, staging)
                except OSError:
                    if retired is not None:
                        restore_trash(root, retired.name)
                    raise
        finally:
            _sweep(staging, name)
            _sweep(staging, ready)
    return retired


def _move_in(id: InstanceId, top: Folder, staging: Folder) -> None:
    staging.move(id + _READY, id, top)
    failpoint("staging_in_place")
    top.sync()
    staging.sync()


def finish(root: Path) -> list[str]:
    """After a crash: finish folders that were being put in place, delete the rest; say what was
    done."""
    done = []
    with open_own(root, STAGING) as (top, staging):
        ready = (name.removesuffix(_READY) for name in staging.names() if name.endswith(_READY))
        for id in ids_in(ready):
            if not os.path.lexists(root / id):
                with doing("put in place", root / id):
                    _move_in(id, top, staging)
                done.append(f"the agent put the session folder of {id} in its place")
        for name in sweep_folder(staging, lambda _name: True):
            done.append(f"removed {STAGING}/{name}, which was never finished")
    return done


def _sweep(staging: Folder, unwanted: str) -> None:
    sweep_folder(staging, lambda name: name in (unwanted, DOOMED + unwanted))


@contextmanager
def _no_worker(root: Path, id: InstanceId) -> Iterator[None]:
    """Lock the session while it makes way: no worker may begin on it."""
    with ExitStack() as held:
        try:
            with open_instance(root, id) as folder:
                held.enter_context(folder_locked(Path(), within=folder.fd))
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                lock = os.open("lock", flags, dir_fd=folder.fd)
                held.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(
                f"cannot replace {root / id}: a worker still holds it", code="still_running"
            ) from error
        except (VaultError, OSError) as error:
            # No folder or no lock: no worker runs. A lock that may not be opened: the host knows.
            _log.debug("no lock of %s is held: %s", id, error)
        yield
