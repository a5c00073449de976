"""Snapshots: verified copies of a session, visible only when they are whole; listed, found, read
again, and all but a few deleted.

R/.snapshots/<id>/<UTC stamp>/ has manifest.json and files/. One is made under another name, put on
the disk, read back, and then renamed; what a crash leaves is swept.
"""

import json
import os
import shutil
import time
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, ValidationError, convert

from agent.core.model import Instance, InstanceId, SessionFiles, parse_instance_id
from agent.engines import base, catalog
from agent.errors import InvalidRequest, NotFound, Refused, VaultError
from agent.files import DEEPEST, failpoint
from agent.log import going_on
from agent.vault import folders, identity, tree
from agent.vault.folder import OURS, SESSION, Folder, doing, open_instance, unless_absent

FILE = "manifest.json"
HEAD = {"format": "wa-agent session", "version": 1, "consistent": True}
_NO_MANIFEST = (ValueError, OverflowError, RecursionError, AttributeError)
LONGEST_PATH = 1024
LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class Manifest:
    id: InstanceId
    engine: Annotated[str, Meta(min_length=1, max_length=64)]
    account: str
    paired: bool
    taken_wall: float
    why: str
    state: SessionFiles
    """State of the copied files, as their check found it."""
    listing: tree.Listing
    settings: Mapping[str, Any] = field(default_factory=dict)
    created_wall: float = 0.0
    lineage: str = ""
    """Lineage of the copied session: a new session of that name has another one."""
    backup: bool = False
    """True if made because of a fault: evidence, to which no repair goes back."""
    needs_passkey: bool = False
    """True if the account needs a passkey to link a device."""
    ended: str = ""
    """The reason code with which its pairing ended since; "" = none. Then a person alone may put
    the copy back."""

    @property
    def good(self) -> bool:
        """True for a paired, whole session from before any fault."""
        return self.state is SessionFiles.WHOLE and not self.backup


def render_manifest(manifest: Manifest) -> bytes:
    content = identity.by_name(manifest) | HEAD
    content |= {"settings": dict(manifest.settings), **asdict(content.pop("listing"))}
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def parse_manifest(raw: bytes, path: Path) -> Manifest:
    """Return the manifest, all fields checked; VaultError with code `damaged` otherwise."""
    try:
        # By json: the names of files may have bytes that are no UTF-8, which msgspec refuses.
        content = json.loads(raw)
        for key, known in HEAD.items():
            if (found := content.get(key)) != known:
                raise ValueError(f"its {key} is {found!r:.40}, this program knows {known!r}")
        listing = {key: content.pop(key, None) for key in ("files", "folders")}
        manifest = convert({**content, "listing": listing}, Manifest)
        parse_instance_id(manifest.id)
        _check_tree(manifest.listing)
    except (*_NO_MANIFEST, ValidationError, InvalidRequest) as error:
        raise VaultError(f"cannot use {path}: {error}", code="damaged") from None
    return manifest


def check_path(path: str) -> str:
    """Return the path if it is relative and stays below any folder; else ValueError."""
    if not 0 < len(path) <= LONGEST_PATH or "\0" in path:
        raise ValueError(f"a path is empty, too long or no text: {path!r:.80}")
    parts = path.split("/")
    if len(parts) > DEEPEST or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"a path leads out of its folder or nowhere: {path!r:.80}")
    try:
        longest = max(len(part.encode("utf-8", "surrogateescape")) for part in parts)
    except UnicodeEncodeError:
        raise ValueError(f"a path cannot be a file's name: {path!r:.80}") from None
    if longest > LONGEST_NAME:
        raise ValueError(f"a path has a name that is too long: {path!r:.80}")
    return path


def _check_tree(listing: tree.Listing) -> None:
    """Check that each name comes once, and each parent is a folder listed before its children."""
    is_folder = {"": True}
    kinds = ((listing.folders, True), ([file.path for file in listing.files], False))
    for paths, is_one in kinds:
        for path in map(check_path, paths):
            if path in is_folder:
                raise ValueError(f"a path is listed twice: {path!r:.80}")
            if not is_folder.get(path.rpartition("/")[0]):
                raise ValueError(f"a path is listed without its folder: {path!r:.80}")
            is_folder[path] = is_one


FILES = "files"


@dataclass(frozen=True, slots=True)
class Snapshot:
    name: str
    path: Path
    id: InstanceId
    manifest: Manifest | None
    problem: str = ""

    @property
    def good(self) -> bool:
        return self.manifest is not None and self.manifest.good


def list_snapshots(root: Path, id: InstanceId) -> list[Snapshot]:
    """Return a session's snapshots, newest first, the broken ones too, each with its problem."""
    with unless_absent(), open_shelf(root, id) as shelf:
        names = sorted(filter(folders.is_name, shelf.names()), key=folders.age_order, reverse=True)
        snapshots = [_describe(shelf, name, id) for name in names]
        # One that was deleted after its name was read is no broken one.
        return [each for each in snapshots if each.manifest or os.path.lexists(each.path)]
    return []


def find_snapshot(root: Path, id: InstanceId, name: str) -> Snapshot:
    """Return the snapshot of that name, with a manifest that can be read."""
    snapshot = next((each for each in list_snapshots(root, id) if each.name == name), None)
    if snapshot is None:
        raise NotFound(f"cannot find the snapshot {name!r:.80} of {id}: there is none of that name")
    if snapshot.manifest is None:
        raise VaultError(snapshot.problem, code="damaged")
    return snapshot


def newest_good(root: Path, id: InstanceId) -> Snapshot | None:
    """Return the newest whole snapshot of the present session; its files are checked on use."""
    good = (it for it in list_snapshots(root, id) if it.good and is_of_present(root, it))
    return next(good, None)


def end_copies(root: Path, id: InstanceId) -> None:
    """Mark the copies of a pairing that ends: no repair goes back to them, whatever of the folder,
    the database or the trash is lost or comes back. A copy that cannot be marked is logged."""
    with going_on(f"a copy of a pairing of {id} that ended is not marked"):
        for snapshot in list_snapshots(root, id):
            if (manifest := snapshot.manifest) is not None and not manifest.ended:
                ended = render_manifest(replace(manifest, ended="logout"))
                with open_shelf(root, id) as shelf, shelf.inner(snapshot.name) as copy:
                    copy.write(FILE, ended, points=False)


def is_of_present(root: Path, snapshot: Snapshot) -> bool:
    """True if it is of the pairing that the folder has, or lost. A lineage that is not recorded, of
    the folder or of the snapshot, names no other session: it went with a damaged identity file."""
    if snapshot.manifest is None or snapshot.manifest.ended:
        return False
    present, taken = identity.lineage_of(root / snapshot.id), snapshot.manifest.lineage
    return present == taken or "" in (present, taken)


@contextmanager
def open_files(root: Path, snapshot: Snapshot) -> Iterator[tuple[Folder, Manifest]]:
    with (
        open_shelf(root, snapshot.id) as shelf,
        shelf.inner(snapshot.name) as copy,
        copy.inner(FILES) as files,
    ):
        yield files, _read_manifest(copy, snapshot.id)


def linked_of(root: Path, snapshot: Snapshot) -> base.Linked:
    """Return account and device of a snapshot's files; none if they cannot be read."""
    with suppress(VaultError, OSError), open_files(root, snapshot) as (files, manifest):
        return catalog.file_rules(manifest.engine).linked(files)
    return base.Linked()


def _describe(shelf: Folder, name: str, id: InstanceId) -> Snapshot:
    path = shelf.path / name
    try:
        with shelf.inner(name) as copy:
            return Snapshot(name, path, id, _read_manifest(copy, id))
    except VaultError as error:
        return Snapshot(name, path, id, None, str(error))


def _read_manifest(copy: Folder, id: InstanceId) -> Manifest:
    path = copy.path / FILE
    manifest = parse_manifest(copy.content(FILE), path)
    if manifest.id != id:
        raise VaultError(f"cannot use {path}: it is of {manifest.id}", code="damaged")
    return manifest


def prune_snapshots(root: Path, id: InstanceId, keep: int) -> list[str]:
    """Delete all but the newest `keep`; the one that a repair would restore stays with them."""
    snapshots = list_snapshots(root, id)
    kept = [*snapshots[:keep], newest_good(root, id)]
    names = [snapshot.name for snapshot in snapshots if snapshot not in kept]
    with open_shelf(root, id, create=True) as shelf:
        return _delete(shelf, names)


def _delete(shelf: Folder, names: list[str]) -> list[str]:
    # A kill in between leaves the newer ones.
    in_order = sorted(names, key=folders.age_order)
    return [name for name in in_order if folders.doom(shelf, name, point="mid_prune")]


def sweep_unfinished(shelf: Folder) -> list[str]:
    """Delete what a killed agent left: snapshots half made and half deleted."""
    unfinished = (folders.MAKING, folders.DOOMED)
    return folders.sweep_folder(shelf, lambda name: name.startswith(unfinished))


def sweep_snapshots(
    root: Path, known: Container[InstanceId], keep: float, passed: float
) -> list[str]:
    """Remove snapshots of instances that sweeps saw gone for `keep` seconds. A folder that the
    agent leaves alone keeps its own. `passed`: seconds since the last sweep; 0 = the first one of
    this agent, which removes unfinished snapshots."""
    gone = []
    with folders.open_own(root, folders.SNAPSHOTS) as (_, own):
        ids = list(identity.ids_in(own.names()))
        left = [id for id in ids if not (id in known or (root / id).exists())]
        ages = folders.grow(own, left, passed)
        for id in ids:
            with own.inner(id) as shelf:
                if not passed:
                    gone += sweep_unfinished(shelf)
                if ages.get(id, -1.0) < keep:
                    continue
                names = list(filter(folders.is_name, shelf.names()))
                gone += [f"{id}/{name}" for name in _delete(shelf, names)]
            with suppress(OSError):
                os.rmdir(id, dir_fd=own.fd)
    return gone


@contextmanager
def open_shelf(root: Path, id: InstanceId, *, create: bool = False) -> Iterator[Folder]:
    checked = parse_instance_id(id)
    with folders.open_own(root, folders.SNAPSHOTS, create=create) as (_, own):
        if create and own.make(checked, OURS):
            own.sync()
        with own.inner(checked) as shelf:
            yield shelf


OUTSIDE = "keys_elsewhere"
LARGEST = 4 << 30
"""Bytes of a session: a larger one would fill the disk, copy by copy; no import takes it by
default."""

_OF_INSTANCE = ("id", "engine", "settings", "created_wall")


@dataclass(frozen=True, slots=True)
class Subject:
    """The session to copy, as the record knows it, and why."""

    instance: Instance
    paired: bool
    account: str
    why: str
    backup: bool = False
    needs_passkey: bool = False


def take_snapshot(
    root: Path, subject: Subject, *, now_wall: float | None = None, tick: tree.Tick = tree.no_tick
) -> Snapshot:
    """Copy the session as it is. VaultError `changing`: it changed meanwhile; ask again."""
    id = parse_instance_id(subject.instance.id)
    at_wall = time.time() if now_wall is None else now_wall
    with open_shelf(root, id, create=True) as shelf:
        sweep_unfinished(shelf)
        try:
            with doing("make a snapshot in", shelf.path):
                shelf.make(folders.MAKING, OURS)
                failpoint("snapshot_begun")
                with shelf.inner(folders.MAKING) as making:
                    manifest = _fill(root, subject, making, at_wall, tick)
                failpoint("snapshot_verified")
                tick(0)
                name = folders.next_name(shelf.names(), at_wall)
                shelf.move(folders.MAKING, name)
                failpoint("snapshot_visible")
                shelf.sync()
        finally:
            with suppress(OSError):
                shutil.rmtree(folders.MAKING, dir_fd=shelf.fd)
    return Snapshot(name, shelf.path / name, id, manifest)


def _fill(
    root: Path, subject: Subject, making: Folder, at_wall: float, tick: tree.Tick
) -> Manifest:
    said = identity.by_name(subject)
    instance = said.pop("instance")
    making.make(FILES, OURS)
    with making.inner(FILES) as files:
        listing = _copy_unchanged(root, instance, files, tick)
        failpoint("snapshot_copied")
        # The copy is checked, not the original: a restored session uses the copy.
        report = tree.inspect_session(files, instance.engine, subject.paired, OURS)
        said |= {name: getattr(instance, name) for name in _OF_INSTANCE}
        lineage = identity.lineage_of(root / instance.id)
        manifest = Manifest(
            **said, taken_wall=at_wall, state=report.files, listing=listing, lineage=lineage
        )
        tree.read_back(files, listing, tick)
    making.write(FILE, render_manifest(manifest))
    failpoint("snapshot_manifest")
    return manifest


def _copy_unchanged(
    root: Path, instance: Instance, target: Folder, tick: tree.Tick
) -> tree.Listing:
    """Copy while nothing changes, or not at all."""
    id, engine = instance.id, instance.engine
    path = root / id / SESSION
    with open_instance(root, id) as folder:
        if folder.is_empty(SESSION):
            raise Refused(f"cannot copy the session of {id}: it has none yet", code="no_session")
        with folder.inner(SESSION) as source:
            if place := catalog.file_rules(engine).outside(source):
                raise Refused(
                    f"cannot copy the session of {id}: its program keeps it in {place}, which is in"
                    " no copy; keep a copy of that place yourself",
                    code=OUTSIDE,
                )
            try:
                before = tree.signatures(source, engine)
                _check_room(root, before)
                listing = tree.copy_tree(source, target, engine, OURS, tick)
                after = tree.signatures(source, engine)
                moved = os.fstat(source.fd).st_ino != path.lstat().st_ino
            except (VaultError, FileNotFoundError) as error:
                if isinstance(error, VaultError) and error.code != "absent":
                    raise
                raise _changing(id, f"something in {path} went away meanwhile") from error
    changed = [name for name in before.keys() | after if before.get(name) != after.get(name)]
    if moved or changed:
        raise _changing(id, f"{path if moved else path / min(changed)} changed meanwhile")
    if not listing.files:
        raise Refused(f"cannot copy the session of {id}: it has no files yet", code="no_session")
    return listing


def _changing(id: InstanceId, cause: str) -> VaultError:
    return VaultError(f"cannot copy the session of {id}: {cause}", code="changing")


def _check_room(root: Path, signed: dict[str, tree.Signature]) -> None:
    sizes = {path: signature[1] for path, signature in signed.items() if len(signature) > 1}
    need, what = sum(sizes.values()), f"copy a session in {root}"
    if need > LARGEST:
        problem = f"its files have {need >> 20} MiB together, no session has {LARGEST >> 20}"
        problem += f"; the largest is {max(sizes, key=sizes.__getitem__)}"
        raise VaultError(f"cannot {what}: {problem}", code="too_large")
    folders.leave_room(root, what, need, len(signed))
