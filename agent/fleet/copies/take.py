"""A small session's files in one archive, taken in memory while its worker runs.

Each file of a store is replaced in one step, so each is read whole. The files fit each other:
those that changed while the others were read are read again, until none did.
"""

import io
import time
import zlib
from array import array
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.core.model import InstanceId, SessionFiles
from agent.engines.catalog import file_rules
from agent.engines.files import FilesReport
from agent.errors import TooLarge, TryLater, VaultError
from agent.fleet.copies.change import pack_change
from agent.vault.archives.pack import pack_pieces
from agent.vault.archives.untar import Limits
from agent.vault.check import inspect_session
from agent.vault.copies.manifest import Manifest, render_manifest
from agent.vault.copies.snapshots import lineage_of
from agent.vault.formats import is_left_out, kept_outside
from agent.vault.identity import Identity
from agent.vault.locate import SESSION, Modes, modes_of, open_folder, open_instance, open_root
from agent.vault.tree import FileEntry, Listing, read_file, sum_up
from agent.vault.walk import Open, Signature, signatures

LARGEST = 32 << 20
"""Bytes of a packed copy: it is one value of one row."""
LARGEST_SEALED = LARGEST + 1024
LIMITS = Limits(packed=LARGEST, unpacked=256 << 20, files=20_000)
TRIES = 20
QUIET = 0.05
"""Seconds without a change after which the next change surely shows in a file's time."""

Stamp = tuple[int, int]
Content = Mapping[str, bytes | None]
"""By relative path, folders before what is in them; None for a folder."""


def look(session: Path) -> tuple[Stamp | None, bool]:
    """What changes with every change of a store, by one stat; None where there is no folder.

    Each write of a store renames a file into its folder. False: the last one was a moment ago.
    """
    try:
        status = session.stat(follow_symlinks=False)
    except OSError:
        return None, True
    quiet = abs(time.time() - status.st_mtime) >= QUIET
    return (status.st_ino, status.st_mtime_ns), quiet


@dataclass(frozen=True, slots=True)
class Seen:
    """Which files a copy holds, in few bytes."""

    signed: "array[int]"
    """A hash of each path with the file's signature."""
    names: bytes
    """The paths, packed."""

    @classmethod
    def of(cls, files: Mapping[str, Signature], wall: float) -> "Seen":
        """`wall`: before they were read. One that was written a moment before is not held for
        known: a second write in the same tick of the clock would not show."""
        paths = sorted(path for path, signed in files.items() if len(signed) > 1)
        last = int((wall - QUIET) * 1e9)
        sure = [hash(it) for it in files.items() if len(it[1]) > 1 and max(it[1][2:]) < last]
        return cls(array("q", sure), zlib.compress("\0".join(paths).encode()))

    def removed(self, files: Mapping[str, Signature]) -> list[str]:
        names = zlib.decompress(self.names).decode()
        return [path for path in names.split("\0") if path and path not in files]


@dataclass(frozen=True, slots=True)
class Taken:
    packed: bytes
    seen: Seen
    whole: bool
    """Else what changed since the copy that was known."""


def take_copy(
    root: Path, identity: Identity, *, exact: bool, wall: float, known: Seen | None = None
) -> Taken:
    """The archive, or what changed since a copy that is `known`; VaultError `not_whole` for files
    that no machine could go on with.

    `exact`: its worker does not run, and every write shows.
    """
    instance = identity.instance
    path = root / instance.id / SESSION
    with open_root(root) as root_fd:
        modes = modes_of(root_fd)
    with open_instance(root, instance.id) as folder, open_folder(path, SESSION, folder) as fd:
        if place := kept_outside(path, fd, instance.engine):
            cause = f"its program keeps the session in {place}"
            raise VaultError(f"cannot copy {instance.id} for the fleet: {cause}", code="not_whole")
        signed, content, report = _read_unchanged(
            Open(path, fd), identity, modes, exact=exact, known=known
        )
    paths = [path for path, it in signed.items() if len(it) > 1]
    files = [(path, piece) for path, piece in content.items() if piece is not None]
    listing = Listing(
        tuple(sum_up(path, (piece,)) for path, piece in files),
        tuple(path for path, it in signed.items() if len(it) == 1),
    )
    if problem := _problem(identity, report, paths):
        raise VaultError(f"cannot copy {instance.id} for the fleet: {problem}", code="not_whole")
    manifest = Manifest(
        id=instance.id,
        engine=instance.engine,
        account=identity.account,
        paired=identity.paired,
        taken_wall=wall,
        why="for the fleet",
        state=report.files,
        listing=listing,
        settings=instance.settings,
        created_wall=instance.created_wall,
        lineage=lineage_of(root / instance.id),
        needs_passkey=identity.needs_passkey,
        ended=identity.ended,
    )
    if known is None:
        return Taken(_packed(manifest, content), Seen.of(signed, wall), whole=True)
    change = pack_change(manifest, known.removed(signed), paths, dict(files))
    return Taken(change, Seen.of(signed, wall), whole=False)


def _problem(identity: Identity, report: FilesReport, paths: Collection[str]) -> str:
    if identity.paired and report.files is SessionFiles.WHOLE:
        return file_rules(identity.instance.engine).lacks(paths)
    if not identity.paired and report.files in (SessionFiles.WHOLE, SessionFiles.UNPAIRED):
        return ""
    return report.problem or f"it is paired, and its files are {report.files}"


def _read_unchanged(
    top: Open, identity: Identity, modes: Modes, *, exact: bool, known: Seen | None
) -> tuple[Mapping[str, Signature], Content, FilesReport]:
    """What the files hold at one moment, without those that are known, and what all are worth."""
    engine = identity.instance.engine
    excluded = is_left_out(engine)
    content: Content = {}
    before: dict[str, Signature] = {}
    same = frozenset(known.signed) if known is not None else frozenset()
    for _ in range(TRIES):
        try:
            files = signatures(top, excluded, settled=exact)
            _refuse_large(identity, files)
            content = {
                path: content[path] if before.get(path) == signed else _read(top, path, signed)
                for path, signed in files.items()
                if hash((path, signed)) not in same
            }
            before = files
            report = inspect_session(top.path, top.fd, engine, identity.paired, modes)
            if signatures(top, excluded, settled=exact) == files:
                return files, content, report
        except VaultError as error:
            if error.code != "absent":
                raise
    raise TryLater(
        f"cannot copy {identity.instance.id} for the fleet: its files changed {TRIES} times"
        " while they were read",
        code="changing",
    )


def _read(top: Open, path: str, signed: Signature) -> bytes | None:
    return None if len(signed) == 1 else b"".join(read_file(top, path))


def _refuse_large(identity: Identity, files: Mapping[str, Signature]) -> None:
    size = sum(signed[1] for signed in files.values() if len(signed) > 1)
    if size > LIMITS.unpacked or len(files) > LIMITS.files:
        raise _too_large(identity.instance.id, f"it has {len(files)} files of {size} bytes")


def _too_large(id: InstanceId, cause: str) -> TooLarge:
    return TooLarge(f"cannot copy {id} for the fleet: {cause}", code="copy_too_large")


def _packed(manifest: Manifest, content: Content) -> bytes:
    def pieces_of(file: FileEntry) -> Iterator[bytes]:
        yield content[file.path] or b""

    out = io.BytesIO()
    pack_pieces(render_manifest(manifest), manifest, pieces_of, out)
    if out.tell() > LARGEST:
        raise _too_large(manifest.id, f"packed it has {out.tell()} bytes, {LARGEST} are allowed")
    return out.getvalue()
