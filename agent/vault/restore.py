"""A snapshot becomes the session again: copied apart, checked, and put in place in one rename. All
that a session keeps beside its files stays with its id meanwhile."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from agent import errors, files, log
from agent.core.model import Instance, InstanceId, SessionFiles, parse_instance_id
from agent.engines.catalog import file_rules
from agent.vault import folders, snapshots, tree
from agent.vault.folder import SESSION, Folder, doing, open_instance, open_root, unless_unusable
from agent.vault.identity import Identity, ids_in, lineage_of, new_lineage, other_keys, put_identity

# The messages beside a session's files lie in `.carried` while the files are replaced, and come
# back from there after any crash.

CARRIED = ".carried"
MESSAGES = "messages"
"""The folder of messages, beside the session's files."""


@contextmanager
def carried(root: Path, id: InstanceId) -> Iterator[None]:
    """Carry the messages through a block that replaces an instance's folder. Its worker does not
    run."""
    if (root / id / MESSAGES).is_dir():
        with (
            folders.open_own(root, CARRIED, shared=True) as (_, place),
            doing("lay by", root / id / MESSAGES),
            suppress(FileNotFoundError),
        ):
            os.rename(root / id / MESSAGES, f"{id}.{MESSAGES}", dst_dir_fd=place.fd)
            place.sync()
        files.failpoint("laid_by")
    try:
        yield
    finally:
        bring_back(root, id)


def bring_back(root: Path, wanted: InstanceId | None = None) -> None:
    """After a crash, too: what was laid by goes into the folder of its session, where that is.
    `wanted`: only this session's."""
    if not os.path.lexists(root / CARRIED):
        return
    with folders.open_own(root, CARRIED, shared=True) as (_, place):
        for name in place.names():
            text, _, kept = name.partition(".")
            id = next(ids_in([text]), None)
            if id is None or wanted not in (None, id) or kept != MESSAGES:
                continue
            folder = root / id / kept
            if not os.path.lexists(folder.parent) or os.path.lexists(folder):
                log.warning("%s waits for its folder", place.path / name, extra=log.about(id))
                continue
            with log.going_on(), doing("bring back", folder):
                os.rename(name, folder, src_dir_fd=place.fd)


MARK = "give_back.json"


def note_own_files(root: Path, id: InstanceId, engine: str, account: str) -> None:
    """Before its folder is retired. Files that came back from an earlier end are noted again: that
    one may have been cut off among them."""
    with open_root(root) as top, top.inner(parse_instance_id(id)) as folder:
        with folder.inner(SESSION) as session, doing("look at", session.path):
            names = set(file_rules(engine).not_of(session, account))
            names |= set().union(*_noted(root, id).values()) & set(session.names())
        if names:
            folder.write(MARK, json.dumps(sorted(names)).encode(), top.modes)


def give_back(root: Path, id: InstanceId) -> list[str]:
    """Give files to the session's new folder, from each retired one with some; return names."""
    back: list[str] = []
    for retired, names in _noted(root, id).items():
        with unless_unusable():
            back += _from(root, retired, id, names)
    return back


def _noted(root: Path, id: InstanceId) -> dict[str, set[str]]:
    """Return, by the name in the trash, what that folder has to give back."""
    noted: dict[str, set[str]] = {}
    garbled = suppress(ValueError, TypeError, RecursionError)
    with folders.open_own(root, folders.TRASH, shared=True) as (_, trash):
        for name in (entry.name for entry in folders.list_trash(root) if entry.id == id):
            with unless_unusable(), garbled, trash.inner(name) as old:
                noted[name] = set(json.loads(old.content(MARK)))
    return noted


def _from(root: Path, retired: str, id: InstanceId, names: set[str]) -> Iterator[str]:
    with (
        folders.open_own(root, folders.TRASH, shared=True) as (top, trash),
        trash.inner(retired) as old,
        old.inner(SESSION) as source,
        top.inner(id, SESSION) as target,
        doing("give back what is in", source.path),
    ):
        for name in sorted(names & set(source.names()) - set(target.names())):
            # A folder of another user's that this one may not write to stays in the trash.
            with suppress(PermissionError):
                source.move(name, name, target)
                yield name
        target.sync()
        source.sync()
        os.unlink(MARK, dir_fd=old.fd)


# A session folder made apart, and put in place of another by renames that any crash may cut.
# R/.staging/<id>.<kind> is being made; <id>.ready is whole, on the disk, and to be put in place.
# The old folder goes to the trash first. `finish` after a crash: if the old one is still there,
# nothing has happened; otherwise the new one belongs there.

_READY = ".ready"

Kind = Literal["restore", "import"]
"""Purpose of a staged folder; an id may have one of each at a time."""


@contextmanager
def staged(root: Path, id: InstanceId, kind: Kind) -> Iterator[Folder]:
    """Yield an empty session folder to fill; it is deleted if the block fails."""
    name = f"{parse_instance_id(id)}.{kind}"
    with folders.open_own(root, folders.STAGING) as (top, staging):
        _sweep(staging, name)
        staging.make(name, top.modes)
        try:
            with staging.inner(name) as made:
                made.make(SESSION, top.modes)
                with made.inner(SESSION) as session:
                    yield session
        except BaseException:
            folders.doom(staging, name)
            raise


def discard(root: Path, id: InstanceId, kind: Kind) -> None:
    """Delete what was staged for this id."""
    with folders.open_own(root, folders.STAGING) as (_, staging):
        _sweep(staging, f"{id}.{kind}")


def put_in_place(
    root: Path, kind: Kind, identity: Identity, *, lineage: str = "", why: str, replace: bool
) -> folders.Retired | None:
    """Give the staged folder its identity and its place; return the retired one. The worker must
    not run; if it does, its lock stops this. `lineage`: "" = a new one."""
    id = identity.instance.id
    name, ready, retired, replaces = f"{id}.{kind}", id + _READY, None, False
    with (
        folders.open_own(root, folders.STAGING) as (top, staging),
        doing("put in place", root / id),
    ):
        try:
            with staging.inner(name) as made:
                others: dict[str, Any] = {}
                if replace:
                    with unless_unusable(), top.inner(id) as present:
                        others = other_keys(present)
                others["lineage"] = lineage or new_lineage()
                put_identity(made, identity, top.modes, others)
                made.sync()
            with _no_worker(root, id), carried(root, id):
                replaces = os.path.lexists(root / id)
                if replaces and not replace:
                    words = f"cannot put {id} in place: {root / id} exists"
                    raise errors.Refused(words, code="exists")
                files.failpoint("staging_made")
                _sweep(staging, ready)  # by a try whose disk failed
                staging.move(name, ready)
                staging.sync()
                files.failpoint("staging_ready")
                try:
                    if replaces:
                        retired = folders.retire(root, id, why)
                    files.failpoint("staging_way_free")
                    _move_in(id, top, staging)
                except (OSError, errors.VaultError):
                    if replaces and not os.path.lexists(root / id):
                        with log.going_on(f"the session of {id} waits for the next start"):
                            names = (it.name for it in folders.list_trash(root) if it.id == id)
                            folders.restore_trash(root, next(names))
                    raise
        finally:
            _sweep(staging, name)
            if not replaces or os.path.lexists(root / id):
                _sweep(staging, ready)
    return retired


def _move_in(id: InstanceId, top: Folder, staging: Folder) -> None:
    staging.move(id + _READY, id, top)
    files.failpoint("staging_in_place")
    top.sync()
    staging.sync()


def finish(root: Path) -> list[str]:
    """After a crash: finish folders that were being put in place, delete the rest; say what was
    done."""
    done = []
    with folders.open_own(root, folders.STAGING) as (top, staging):
        ready = (name.removesuffix(_READY) for name in staging.names() if name.endswith(_READY))
        for id in ids_in(ready):
            if not os.path.lexists(root / id):
                with doing("put in place", root / id):
                    _move_in(id, top, staging)
                done.append(f"the agent put the session folder of {id} in its place")
        for name in folders.sweep_folder(staging, lambda _name: True):
            done.append(f"removed {folders.STAGING}/{name}, which was never finished")
    return done


def _sweep(staging: Folder, unwanted: str) -> None:
    folders.sweep_folder(staging, lambda name: name in (unwanted, folders.DOOMED + unwanted))


@contextmanager
def _no_worker(root: Path, id: InstanceId) -> Iterator[None]:
    """Lock the session while it makes way: no worker may begin on it."""
    with ExitStack() as held:
        try:
            with open_instance(root, id) as folder:
                held.enter_context(files.folder_locked(Path(), within=folder.fd))
                # O_NONBLOCK: a pipe in its place would be waited for.
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                lock = os.open("lock", flags, dir_fd=folder.fd)
                held.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            why = f"cannot replace {root / id}: a worker still holds it"
            raise errors.Refused(why, code="still_running") from error
        except (errors.VaultError, OSError) as error:
            # No folder or no lock: no worker runs. A lock that may not be opened: the host knows.
            log.debug("no lock of %s is held: %s", id, error)
        yield


BLOCK, SPARE = 4096, 64 << 10
"""Bytes that each entry takes at least, and bytes for what is written beside them."""


@dataclass(frozen=True, slots=True)
class Restored:
    snapshot: snapshots.Snapshot
    manifest: snapshots.Manifest
    retired: folders.Retired | None
    """The session that was there before."""


def refuse_roll_back(root: Path, instance: Instance, snapshot: snapshots.Snapshot) -> None:
    """Raise Refused if this snapshot would do harm and `force` was not given."""
    manifest = snapshot.manifest
    if manifest is None:
        raise errors.VaultError(snapshot.problem, code="damaged")
    code = cause = ""
    if manifest.engine != instance.engine:
        code, cause = "other_engine", f"it is of engine {manifest.engine}, not {instance.engine}"
    elif manifest.state is not SessionFiles.WHOLE:
        code, cause = "not_good", f"its files are {manifest.state}; it was made as evidence"
    elif not snapshots.is_of_present(root, snapshot):
        code, cause = "other_session", "it is of an earlier session of that name, which ended since"
    elif file_rules(instance.engine).key_based:
        report = tree.inspect(root / instance.id, instance.engine)
        gone = report.files in (SessionFiles.ABSENT, SessionFiles.UNPAIRED)
        if not gone and _is_newer(root, instance, manifest):
            is_damaged = report.files is SessionFiles.DAMAGED
            present = f"has damaged files ({report.problem})" if is_damaged else "is newer"
            code, cost = "newer_session", "keys that go back in time cost each contact a retry"
            force = "--force puts the snapshot back all the same; the trash keeps the present files"
            cause = f"the present session {present}, and {cost}. {force}"
    if code:
        raise errors.Refused(f"cannot restore {snapshot.name} of {instance.id}: {cause}", code=code)


def _is_newer(root: Path, instance: Instance, manifest: snapshots.Manifest) -> bool:
    """True if the present session changed since the snapshot."""
    listed = {file.path: file for file in manifest.listing.files}
    with open_instance(root, instance.id, SESSION) as session:
        entries = tree.walk(session, instance.engine, "read")
        if {entry.path for entry in entries if not entry.is_folder} != set(listed):
            return True
        try:
            for file in listed.values():
                for _ in tree.read_checked(session, file):
                    pass
        except errors.VaultError as error:
            if error.code != "damaged":
                raise
            return True
    return False


def must_have_room(root: Path, snapshot: snapshots.Snapshot) -> None:
    """Raise VaultError if a copy would not fit. Asked before a worker is stopped for it."""
    if snapshot.manifest is None:
        return
    listing = snapshot.manifest.listing
    need = listing.size + len(listing) * BLOCK + SPARE
    # The reserve of other operations may be used for it: a session waits.
    what = f"restore snapshot {snapshot.name} of {snapshot.id}"
    folders.leave_room(root, what, need, len(listing), least=0)


def restore_snapshot(
    root: Path,
    instance: Instance,
    snapshot: snapshots.Snapshot,
    why: str,
    *,
    needs_passkey: bool = False,
    tick: tree.Tick = tree.no_tick,
) -> Restored:
    """Restore a snapshot. The worker must not run; the folder goes to the trash, its identity
    stays."""
    with (
        open_root(root) as top,
        staged(root, snapshot.id, "restore") as target,
        snapshots.open_files(root, snapshot) as (source, manifest),
    ):
        # Apart, each file with the checksum of the manifest.
        tree.add_all(target, manifest.listing, partial(tree.read_checked, source), top.modes, tick)
        files.failpoint("restore_copied")
        tree.read_back(target, manifest.listing, tick)
    identity = Identity(instance, manifest.paired, manifest.account, needs_passkey=needs_passkey)
    tick(0)
    lineage = manifest.lineage or lineage_of(root / instance.id)
    retired = put_in_place(root, "restore", identity, lineage=lineage, why=why, replace=True)
    return Restored(snapshot, manifest, retired)
