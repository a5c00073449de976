"""Existing snapshots: listed, found, read again, and all but a few deleted."""

import json
import os
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, ValidationError, convert

from agent.core.model import InstanceId, SessionFiles, parse_instance_id
from agent.engines.catalog import file_rules
from agent.engines.files import Linked
from agent.errors import InvalidRequest, NotFound, VaultError
from agent.files import failpoint
from agent.log import going_on
from agent.vault.errors import doing
from agent.vault.folder import OURS, Folder, unless_absent
from agent.vault.folders import (
    DOOMED,
    MAKING,
    SNAPSHOTS,
    age_order,
    doom,
    grow,
    is_name,
    open_own,
    sweep_folder,
)
from agent.vault.identity import by_name, ids_in, lineage_of
from agent.vault.tree import DEEPEST, Listing

# The manifest of a snapshot or an archive: its session, time, reason, and every file.


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
    """What the check of the copied files found."""
    listing: Listing
    settings: Mapping[str, Any] = field(default_factory=dict)
    created_wall: float = 0.0
    lineage: str = ""
    """Which folder of that name it is of: a new session of that name has another lineage."""
    backup: bool = False
    """Made because of a fault: evidence, to which no repair goes back."""
    needs_passkey: bool = False
    """Its account needs a passkey to link a device."""
    ended: str = ""
    """The reason code with which its pairing ended since; "" = none. Then a person alone may put
    the copy back."""

    @property
    def good(self) -> bool:
        """A paired, whole session from before any fault."""
        return self.state is SessionFiles.WHOLE and not self.backup


def render_manifest(manifest: Manifest) -> bytes:
    content = by_name(manifest) | HEAD
    content |= {"settings": dict(manifest.settings), **asdict(content.pop("listing"))}
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def parse_manifest(raw: bytes, path: Path) -> Manifest:
    """The manifest, all fields checked; VaultError with code `damaged` otherwise."""
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
    """A relative path that stays below any folder."""
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


def _check_tree(listing: Listing) -> None:
    """Each name once, and each parent is a listed folder that stands before its children."""
    is_folder = {"": True}
    kinds = ((listing.folders, True), ([file.path for file in listing.files], False))
    for paths, folders in kinds:
        for path in map(check_path, paths):
            if path in is_folder:
                raise ValueError(f"a path is listed twice: {path!r:.80}")
            if not is_folder.get(path.rpartition("/")[0]):
                raise ValueError(f"a path is listed without its folder: {path!r:.80}")
            is_folder[path] = folders


FILES = "files"


@dataclass(frozen=True, slots=True)
class Snapshot:
    name: str
    path: Path
    id: InstanceId
    manifest: Manifest | None
    problem: str = ""
    """Why it cannot be used."""

    @property
    def good(self) -> bool:
        return self.manifest is not None and self.manifest.good


def list_snapshots(root: Path, id: InstanceId) -> list[Snapshot]:
    """Newest first, the broken ones too, each with its problem."""
    with unless_absent(), open_shelf(root, id) as shelf:
        names = sorted(filter(is_name, shelf.names()), key=age_order, reverse=True)
        snapshots = [_describe(shelf, name, id) for name in names]
        # One that was deleted after its name was read is no broken one.
        return [its for its in snapshots if its.manifest or os.path.lexists(its.path)]
    return []


def find_snapshot(root: Path, id: InstanceId, name: str) -> Snapshot:
    """The snapshot of that name, with a manifest that can be read."""
    snapshot = next((its for its in list_snapshots(root, id) if its.name == name), None)
    if snapshot is None:
        raise NotFound(f"cannot find the snapshot {name!r:.80} of {id}: there is none of that name")
    if snapshot.manifest is None:
        raise VaultError(snapshot.problem, code="damaged")
    return snapshot


def newest_good(root: Path, id: InstanceId) -> Snapshot | None:
    """The newest whole one of the present session; its files are checked when it is used."""
    for snapshot in list_snapshots(root, id):
        if snapshot.good and is_of_present(root, snapshot):
            return snapshot
    return None


def end_copies(root: Path, id: InstanceId) -> None:
    """Mark the copies of a pairing that ends: no repair goes back to them, whatever of the folder,
    the database or the trash is lost or comes back. A copy that cannot be marked is logged."""
    with going_on(f"a copy of a pairing of {id} that ended is not marked"):
        for snapshot in list_snapshots(root, id):
            if (manifest := snapshot.manifest) is not None and not manifest.ended:
                with open_shelf(root, id) as shelf, shelf.inner(snapshot.name) as copy:
                    copy.write(
                        FILE, render_manifest(replace(manifest, ended="logout")), points=False
                    )


def is_of_present(root: Path, snapshot: Snapshot) -> bool:
    """True if it is of the pairing that the folder has, or lost. A lineage that is not recorded, of
    the folder or of the snapshot, names no other session: it went with a damaged identity file."""
    if snapshot.manifest is None or snapshot.manifest.ended:
        return False
    present, taken = lineage_of(root / snapshot.id), snapshot.manifest.lineage
    return present == taken or "" in (present, taken)


@contextmanager
def open_files(root: Path, snapshot: Snapshot) -> Iterator[tuple[Folder, Manifest]]:
    """A snapshot's copied files, open, and its manifest."""
    with (
        open_shelf(root, snapshot.id) as shelf,
        shelf.inner(snapshot.name) as copy,
        copy.inner(FILES) as files,
    ):
        yield files, _read_manifest(copy, snapshot.id)


def linked_of(root: Path, snapshot: Snapshot) -> Linked:
    """The account and device of a snapshot's files; of none where they cannot be read."""
    with suppress(VaultError, OSError), open_files(root, snapshot) as (files, manifest):
        return file_rules(manifest.engine).linked(files)
    return Linked()


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
    gone = []
    # A kill in between leaves the newer ones.
    for name in sorted(names, key=age_order):
        with doing("delete", shelf.path / name):
            shelf.move(name, DOOMED + name)
        failpoint("mid_prune")
        if doom(shelf, DOOMED + name):
            gone.append(name)
    return gone


def sweep_unfinished(shelf: Folder) -> list[str]:
    """Delete what a killed agent left: snapshots half made and half deleted."""
    return sweep_folder(shelf, lambda name: name.startswith((MAKING, DOOMED)))


def sweep_snapshots(
    root: Path, known: Container[InstanceId], keep: float, passed: float
) -> list[str]:
    """Remove snapshots of instances that sweeps saw gone for `keep` seconds. `passed`: seconds
    since the last sweep; 0 = the first one of this agent, which removes unfinished snapshots."""
    gone = []
    with open_own(root, SNAPSHOTS) as (_, own):
        ids = list(ids_in(own.names()))
        ages = grow(own, [id for id in ids if id not in known], passed)
        for id in ids:
            with own.inner(id) as shelf:
                gone += [] if passed else sweep_unfinished(shelf)
                if ages.get(id, -1.0) < keep:
                    continue
                names = list(filter(is_name, shelf.names()))
                gone += [f"{id}/{name}" for name in _delete(shelf, names)]
            with suppress(OSError):
                os.rmdir(id, dir_fd=own.fd)
    return gone


@contextmanager
def open_shelf(root: Path, id: InstanceId, *, create: bool = False) -> Iterator[Folder]:
    """The folder of one instance's snapshots."""
    checked = parse_instance_id(id)
    with open_own(root, SNAPSHOTS, create=create) as (_, own):
        if create and own.make(checked, OURS):
            own.sync()
        with own.inner(checked) as shelf:
            yield shelf
