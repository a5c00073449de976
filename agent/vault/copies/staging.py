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
from agent.errors import InvalidRequest, Refused, VaultError
from agent.failpoint import failpoint
from agent.folder_lock import folder_locked
from agent.log import bound
from agent.vault.carried import carried
from agent.vault.errors import explain
from agent.vault.folders import DOOMED, STAGING, doom, open_own, sweep_folder
from agent.vault.identity import Identity, other_keys, put_identity
from agent.vault.locate import SESSION, make_folder, modes_of, names_in, open_folder, open_root
from agent.vault.trash import Retired, restore_trash, retire
from agent.vault.walk import Open

_READY = ".ready"

Kind = Literal["restore", "import"]
"""What it is made for; one of each kind may be made for an id at a time."""

_log = bound(name=__name__)


@contextmanager
def staged(root: Path, id: InstanceId, kind: Kind) -> Iterator[Open]:
    """An empty session folder that is being made; deleted when its making fails."""
    name = f"{parse_instance_id(id)}.{kind}"
    path = root / STAGING / name
    with open_own(root, STAGING) as (root_fd, staging_fd):
        modes = modes_of(root_fd)
        _sweep(path.parent, staging_fd, name)
        make_folder(path, name, staging_fd, modes)
        try:
            with open_folder(path, name, staging_fd) as fd:
                make_folder(path / SESSION, SESSION, fd, modes)
                with open_folder(path / SESSION, SESSION, fd) as session_fd:
                    yield Open(path / SESSION, session_fd)
        except BaseException:
            doom(path.parent, name, staging_fd)
            raise


def discard(root: Path, id: InstanceId, kind: Kind) -> None:
    """Delete what was staged for this id."""
    with open_own(root, STAGING) as (_, staging_fd):
        _sweep(root / STAGING, staging_fd, f"{id}.{kind}")


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
    name, ready = f"{id}.{kind}", id + _READY
    path = root / STAGING
    with open_own(root, STAGING) as (root_fd, staging_fd):
        try:
            with open_folder(path / name, name, staging_fd) as fd:
                present = other_keys(root, id) if replace else {}
                content = {**present, "lineage": lineage}
                put_identity(path / name, fd, identity, modes_of(root_fd), content)
                os.fsync(fd)
            with _no_worker(root / id), carried(root, id):
                if os.path.lexists(root / id) and not replace:
                    raise Refused(f"cannot put {id} in place: {root / id} exists", code="exists")
                failpoint("staging_made")
                os.rename(name, ready, src_dir_fd=staging_fd, dst_dir_fd=staging_fd)
                os.fsync(staging_fd)
                failpoint("staging_ready")
                retired = retire(root, id, why) if os.path.lexists(root / id) else None
                failpoint("staging_way_free")
                try:
                    _move_in(id, ready, root_fd, staging_fd)
                except OSError:
                    if retired is not None:
                        restore_trash(root, retired.name)
                    raise
        except OSError as error:
            raise explain("put in place", root / id, error) from error
        finally:
            _sweep(path, staging_fd, name)
            _sweep(path, staging_fd, ready)
    return retired


def _move_in(id: InstanceId, ready: str, root_fd: int, staging_fd: int) -> None:
    os.rename(ready, id, src_dir_fd=staging_fd, dst_dir_fd=root_fd)
    failpoint("staging_in_place")
    os.fsync(root_fd)
    os.fsync(staging_fd)


def finish(root: Path) -> list[str]:
    """After a crash: finish folders that were being put in place, delete the rest; say what was
    done."""
    done = []
    with open_own(root, STAGING) as (root_fd, staging_fd):
        for name in names_in(staging_fd):
            text, dot, _ = name.rpartition(".")
            if not dot or not name.endswith(_READY):
                continue
            try:
                id = parse_instance_id(text)
                if not os.path.lexists(root / id):
                    _move_in(id, name, root_fd, staging_fd)
                    done.append(f"the agent put the session folder of {id} in its place")
            except InvalidRequest:
                continue
            except OSError as error:
                raise explain("put in place", root / text, error) from error
        for name in sweep_folder(root / STAGING, staging_fd, lambda _name: True):
            done.append(f"removed {STAGING}/{name}, which was never finished")
    return done


def _sweep(path: Path, staging_fd: int, unwanted: str) -> None:
    for name in names_in(staging_fd):
        if name in (unwanted, DOOMED + unwanted):
            doom(path, name, staging_fd)


@contextmanager
def _no_worker(folder: Path) -> Iterator[None]:
    """Lock the session while it makes way: no worker may begin on it."""
    with ExitStack() as held:
        try:
            with (
                open_root(folder.parent) as root_fd,
                open_folder(folder, folder.name, root_fd) as fd,
            ):
                held.enter_context(folder_locked(Path(), within=fd))
                lock = os.open("lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
                held.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(
                f"cannot replace {folder}: a worker still holds it", code="still_running"
            ) from error
        except (VaultError, OSError) as error:
            # No folder or no lock: no worker runs. A lock that may not be opened: the host knows.
            _log.debug("no lock of %s is held: %s", folder.name, error)
        yield
