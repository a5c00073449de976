"""Existing snapshots: listed, found, read again, and all but a few deleted."""

import os
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from agent.core.model import InstanceId, parse_instance_id
from agent.engines.files import Linked
from agent.errors import InvalidRequest, NotFound, VaultError
from agent.failpoint import failpoint
from agent.vault.ages import grow
from agent.vault.atomic import read_plain_file
from agent.vault.copies.manifest import FILE, Manifest, parse_manifest
from agent.vault.errors import explain
from agent.vault.folders import (
    DOOMED,
    MAKING,
    OURS,
    SNAPSHOTS,
    age_order,
    doom,
    is_name,
    open_own,
    sweep_folder,
)
from agent.vault.formats import linked_session
from agent.vault.identity import read_identity
from agent.vault.locate import make_folder, names_in, open_folder
from agent.vault.walk import Open

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
    try:
        with open_shelf(root, id) as shelf:
            names = sorted(filter(is_name, names_in(shelf.fd)), key=age_order, reverse=True)
            snapshots = [_describe(shelf, name, id) for name in names]
            # One that was deleted after its name was read is no broken one.
            return [its for its in snapshots if its.manifest or os.path.lexists(its.path)]
    except VaultError as error:
        if error.code == "absent":
            return []
        raise


def find_snapshot(root: Path, id: InstanceId, name: str) -> Snapshot:
    """The snapshot of that name, with a manifest that can be read."""
    if not is_name(name):
        raise NotFound(f"cannot find the snapshot {name!r:.80} of {id}: it is no such name")
    try:
        with open_shelf(root, id) as shelf:
            snapshot = _describe(shelf, name, id)
    except VaultError as error:
        if error.code != "absent":
            raise
        snapshot = None
    if snapshot is None or (snapshot.manifest is None and not snapshot.path.exists()):
        raise NotFound(f"cannot find the snapshot {name} of {id}: there is none of that name")
    if snapshot.manifest is None:
        raise VaultError(snapshot.problem, code="damaged")
    return snapshot


def newest_good(root: Path, id: InstanceId) -> Snapshot | None:
    """The newest whole one of the present session; its files are checked when it is used."""
    for snapshot in list_snapshots(root, id):
        if snapshot.good and is_of_present(root, snapshot):
            return snapshot
    return None


def is_of_present(root: Path, snapshot: Snapshot) -> bool:
    """Not of an earlier session of that name. A lineage that is not recorded, of the folder or of
    the snapshot, names no other session: it went with a damaged identity file."""
    if snapshot.manifest is None:
        return False
    present, taken = lineage_of(root / snapshot.id), snapshot.manifest.lineage
    return present == taken or "" in (present, taken)


@contextmanager
def open_files(root: Path, snapshot: Snapshot) -> Iterator[tuple[Open, Manifest]]:
    """A snapshot's copied files, open, and its manifest."""
    path = snapshot.path
    with (
        open_shelf(root, snapshot.id) as shelf,
        open_folder(path, snapshot.name, shelf.fd) as inner,
        open_folder(path / FILES, FILES, inner) as fd,
    ):
        yield Open(path / FILES, fd), _read_manifest(path, inner, snapshot.id)


def linked_of(root: Path, snapshot: Snapshot) -> Linked:
    """The account and device of a snapshot's files; of none where they cannot be read."""
    try:
        with open_files(root, snapshot) as (files, manifest):
            return linked_session(files.path, files.fd, manifest.engine)
    except (VaultError, InvalidRequest, OSError):
        return Linked()


def raw_manifest(root: Path, snapshot: Snapshot) -> bytes:
    with (
        open_shelf(root, snapshot.id) as shelf,
        open_folder(snapshot.path, snapshot.name, shelf.fd) as inner,
    ):
        return read_plain_file(snapshot.path, inner, FILE)


def lineage_of(folder: Path) -> str:
    """The session that the folder belongs to; "" = it is not recorded."""
    try:
        return read_identity(folder).lineage
    except VaultError:
        return ""


def _describe(shelf: Open, name: str, id: InstanceId) -> Snapshot:
    path = shelf.path / name
    try:
        with open_folder(path, name, shelf.fd) as inner:
            return Snapshot(name, path, id, _read_manifest(path, inner, id))
    except VaultError as error:
        return Snapshot(name, path, id, None, str(error))


def _read_manifest(path: Path, fd: int, id: InstanceId) -> Manifest:
    manifest = parse_manifest(read_plain_file(path, fd, FILE), path / FILE)
    if manifest.id != id:
        raise VaultError(f"cannot use {path / FILE}: it is of {manifest.id}", code="damaged")
    return manifest


def prune_snapshots(root: Path, id: InstanceId, keep: int) -> list[str]:
    """Delete all but the newest `keep`; the one that a repair would restore stays with them."""
    snapshots = list_snapshots(root, id)
    useful = newest_good(root, id)
    kept = snapshots[:keep] + ([useful] if useful else [])
    kept_names = {snapshot.name for snapshot in kept}
    return _delete(
        root, id, [snapshot.name for snapshot in snapshots if snapshot.name not in kept_names]
    )


def _delete(root: Path, id: InstanceId, names: list[str]) -> list[str]:
    gone = []
    with open_shelf(root, id, create=True) as shelf:
        # A kill in between leaves the newer ones.
        for name in sorted(names, key=age_order):
            doomed = DOOMED + name
            try:
                os.rename(name, doomed, src_dir_fd=shelf.fd, dst_dir_fd=shelf.fd)
            except OSError as error:
                raise explain("delete", shelf.path / name, error) from error
            failpoint("mid_prune")
            if doom(shelf.path, doomed, shelf.fd):
                gone.append(name)
    return gone


def sweep_unfinished(shelf: Open) -> list[str]:
    """Delete what a killed agent left: snapshots half made and half deleted."""
    return sweep_folder(shelf.path, shelf.fd, lambda name: name.startswith((MAKING, DOOMED)))


def sweep_snapshots(
    root: Path, known: Container[InstanceId], keep: float, passed: float
) -> list[str]:
    """Remove unfinished snapshots, and those of instances that sweeps saw gone for `keep` seconds.
    `passed`: seconds since the last sweep."""
    gone = []
    with open_own(root, SNAPSHOTS) as (_, fd):
        ids = [id for name in names_in(fd) if (id := _id_of(name))]
        unknown = [id for id in ids if id not in known]
        ages = grow(root / SNAPSHOTS, fd, unknown, passed)
    for id in ids:
        with open_shelf(root, id) as shelf:
            gone += sweep_unfinished(shelf)
            names = names_in(shelf.fd)
        if id in ages and ages[id] >= keep:
            gone += [f"{id}/{name}" for name in _delete(root, id, names)]
            with open_own(root, SNAPSHOTS) as (_, fd), suppress(OSError):
                os.rmdir(id, dir_fd=fd)
    return gone


def _id_of(name: str) -> InstanceId | None:
    try:
        return parse_instance_id(name)
    except InvalidRequest:
        return None


@contextmanager
def open_shelf(root: Path, id: InstanceId, *, create: bool = False) -> Iterator[Open]:
    """The folder of one instance's snapshots."""
    checked = parse_instance_id(id)
    path = root / SNAPSHOTS / checked
    with open_own(root, SNAPSHOTS, create=create) as (_, fd):
        if create and make_folder(path, checked, fd, OURS):
            os.fsync(fd)
        with open_folder(path, checked, fd) as inner:
            yield Open(path, inner)
