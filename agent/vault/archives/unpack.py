"""A session from an archive: checked piece by piece while it is unpacked, then put in place."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from agent.core.model import InstanceId, SessionFiles
from agent.engines.files import Linked
from agent.errors import TooLarge, VaultError
from agent.failpoint import failpoint
from agent.vault.archives.pack import INNER
from agent.vault.archives.untar import Limits, Member, read_members, refuse
from agent.vault.check import inspect_session
from agent.vault.copies.manifest import FILE, Manifest, parse_manifest
from agent.vault.copies.staging import staged
from agent.vault.folders import OURS
from agent.vault.formats import linked_session
from agent.vault.free_space import look_for_room
from agent.vault.locate import Modes, modes_of, open_root
from agent.vault.tree import FileEntry, Tick, add_file, add_folder, checked, no_tick, read_back
from agent.vault.walk import Open

LARGEST_MANIFEST = 16 << 20


@dataclass(frozen=True, slots=True)
class Arrived:
    """An archive that was unpacked beside the sessions and is whole."""

    manifest: Manifest
    state: SessionFiles
    problem: str
    """What is wrong with the session itself, though the archive is whole."""
    linked: Linked


def read_archive_manifest(source: IO[bytes], limits: Limits) -> Manifest:
    """Only the manifest, from the archive's beginning."""
    return _read_manifest(read_members(source, limits), limits)


def unpack(
    root: Path,
    source: IO[bytes],
    id: InstanceId,
    limits: Limits,
    *,
    tick: Tick = no_tick,
) -> Arrived:
    """Stage the archive's session under this id; InvalidRequest for an archive that is not whole.
    Each member must be the next of the manifest, with its size and checksum: so no link, device,
    second copy or path of its own can come in.
    """
    members = read_members(source, limits)
    manifest = _read_manifest(members, limits)
    _check_room(root, manifest)
    with staged(root, id, "import") as target:
        with open_root(root) as root_fd:
            modes = modes_of(root_fd)
        return _unpack_all(members, manifest, target, modes, tick)


def unpack_apart(folder: Path, source: IO[bytes], limits: Limits) -> Arrived:
    """Into an empty folder that is no instance's, for another program's use."""
    members = read_members(source, limits)
    manifest = _read_manifest(members, limits)
    with open_root(folder) as fd:
        return _unpack_all(members, manifest, Open(folder, fd), OURS, no_tick)


def _unpack_all(
    members: Iterator[Member],
    manifest: Manifest,
    target: Open,
    modes: Modes,
    tick: Tick,
) -> Arrived:
    for folder in manifest.listing.folders:
        add_folder(target, folder, modes)
    for file in manifest.listing.files:
        member = next(members, None)
        if member is None:
            raise refuse(f"{file.path!r:.80} is missing")
        if member.name != INNER + file.path or member.size != file.size:
            raise refuse(f"{member.name!r:.80} is not what its manifest lists next")
        add_file(target, file.path, _as_listed(member, file), modes, tick)
    if (further := next(members, None)) is not None:
        raise refuse(f"{further.name!r:.80} is not in its manifest")
    failpoint("import_unpacked")
    read_back(target, manifest.listing, tick)
    report = inspect_session(target.path, target.fd, manifest.engine, manifest.paired, modes)
    linked = linked_session(target.path, target.fd, manifest.engine)
    return Arrived(manifest, report.files, report.problem, linked)


def _read_manifest(members: Iterator[Member], limits: Limits) -> Manifest:
    first = next(members, None)
    if first is None or first.name != FILE:
        raise refuse(f"{FILE} does not come first")
    if first.size > LARGEST_MANIFEST:
        raise refuse(f"its manifest has {first.size} bytes")
    try:
        manifest = parse_manifest(b"".join(first.pieces), Path(FILE))
    except VaultError as error:
        raise refuse(str(error)) from None
    listing = manifest.listing
    if listing.size > limits.unpacked:
        raise TooLarge(
            f"cannot use the archive: its session has {listing.size} bytes,"
            f" {limits.unpacked} are allowed",
            field="archive",
            code="unpacks_too_large",
        )
    if len(listing.files) + len(listing.folders) > limits.files:
        raise TooLarge(
            f"cannot use the archive: it has more than {limits.files} files",
            field="archive",
            code="too_many_files",
        )
    return manifest


def _as_listed(member: Member, file: FileEntry) -> Iterator[bytes]:
    try:
        yield from checked(Path(member.name), member.pieces, file)
    except VaultError as error:
        raise refuse(str(error)) from None


def _check_room(root: Path, manifest: Manifest) -> None:
    listing = manifest.listing
    room = look_for_room(root)
    if problem := room.problem(listing.size, len(listing.files) + len(listing.folders)):
        raise VaultError(f"cannot import into {root}: {problem}", code="disk_full")
