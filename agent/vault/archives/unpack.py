"""A session from an archive: checked piece by piece while it is unpacked, then put in place."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from agent.core.model import InstanceId, SessionFiles
from agent.engines.catalog import file_rules
from agent.engines.files import Linked
from agent.errors import VaultError
from agent.failpoint import failpoint
from agent.vault.archives.pack import INNER
from agent.vault.archives.untar import Limits, Member, read_members, refuse, too_large
from agent.vault.check import inspect_session
from agent.vault.copies.manifest import FILE, Manifest, parse_manifest
from agent.vault.copies.staging import staged
from agent.vault.folder import OURS, Folder, Modes, open_root
from agent.vault.free_space import look_for_room
from agent.vault.tree import FileEntry, Tick, add_all, checked, no_tick, read_back

LARGEST_MANIFEST = 64 << 20


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
    if problem := look_for_room(root).problem(manifest.listing.size, len(manifest.listing)):
        raise VaultError(f"cannot import into {root}: {problem}", code="disk_full")
    with open_root(root) as top, staged(root, id, "import") as target:
        return _unpack_all(members, manifest, target, top.modes, tick)


def unpack_apart(folder: Path, source: IO[bytes], limits: Limits) -> Arrived:
    """Into an empty folder that is no instance's, for another program's use."""
    members = read_members(source, limits)
    manifest = _read_manifest(members, limits)
    with open_root(folder) as target:
        return _unpack_all(members, manifest, target, OURS, no_tick)


def _unpack_all(
    members: Iterator[Member],
    manifest: Manifest,
    target: Folder,
    modes: Modes,
    tick: Tick,
) -> Arrived:
    def pieces_of(file: FileEntry) -> Iterator[bytes]:
        member = next(members, None)
        if member is None:
            raise refuse(f"{file.path!r:.80} is missing")
        if member.name != INNER + file.path or member.size != file.size:
            raise refuse(f"{member.name!r:.80} is not what its manifest lists next")
        try:
            yield from checked(Path(member.name), member.pieces, file)
        except VaultError as error:
            raise refuse(str(error)) from None

    add_all(target, manifest.listing, pieces_of, modes, tick)
    if (further := next(members, None)) is not None:
        raise refuse(f"{further.name!r:.80} is not in its manifest")
    failpoint("import_unpacked")
    read_back(target, manifest.listing, tick)
    report = inspect_session(target, manifest.engine, manifest.paired, modes)
    linked = file_rules(manifest.engine).linked(target)
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
    if (size := manifest.listing.size) > limits.unpacked:
        cause = f"its session has {size} bytes, {limits.unpacked} are allowed"
        raise too_large(cause, "unpacks_too_large")
    if len(manifest.listing) > limits.files:
        raise too_large(f"it has more than {limits.files} files", "too_many_files")
    return manifest
