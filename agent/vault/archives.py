"""A session as one file: a gzipped tar, its manifest first, for another machine or a safe place. It
is checked piece by piece while it is unpacked, and put in place whole."""

import fcntl
import gzip
import hashlib
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, cast

from agent.core.model import InstanceId, SessionFiles
from agent.engines import base, catalog
from agent.errors import InvalidRequest, TooLarge, VaultError
from agent.files import failpoint, opened
from agent.vault import restore, snapshots, tree
from agent.vault.folder import OURS, Folder, Modes, open_root
from agent.vault.folders import leave_room


@dataclass(frozen=True, slots=True)
class FoundSession:
    """One session in an archive or another program's store, looked at and not touched."""

    program: str
    """The program that wrote the session: "Baileys", "JSON", ..."""
    name: str
    account: str = ""
    device: str = ""
    """The linked device of the session; "" = unknown."""
    written: float | None = None
    """Unix time at which the source last wrote the session, as far as it tells."""
    pre_keys: int = 0
    records: int = 0
    problem: str = ""
    """Why the session cannot be moved; "" = it can."""
    code: str = ""
    """The stable word of that problem."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Kind → number of records that cannot be read or stored: they stay behind."""
    in_use: str = ""
    """Why the session counts as in use; "" = it does not."""
    keys: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Keys of another program's session, by Baileys' own names, as JSON text."""

    @property
    def left_out_sentence(self) -> str:
        if not self.left_out:
            return ""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.left_out.items()))
        return f"left out, for they cannot be read or stored: {kinds}; each is renewed when needed"

    @property
    def refused_while_used(self) -> "FoundSession":
        """Return the refusal of a session that its program uses. Files look damaged while they are
        written: that it is in use says more."""
        if not self.in_use or self.code not in ("", "damaged"):
            return self
        return replace(self, problem=self.in_use, code="in_use")


INNER = "session/"
"""Prefix of each file's path in the archive."""
BLOCK = 512


@dataclass(frozen=True, slots=True)
class Packed:
    size: int
    sha256: str
    """SHA-256 of the whole archive."""


def export_snapshot(
    root: Path, snapshot: snapshots.Snapshot, out: IO[bytes], *, tick: tree.Tick = tree.no_tick
) -> Packed:
    """Write the archive; VaultError when the snapshot does not match its manifest."""
    with snapshots.open_files(root, snapshot) as (files, manifest):
        return pack(manifest, files, out, tick)


def pack(
    manifest: snapshots.Manifest, files: Folder, out: IO[bytes], tick: tree.Tick = tree.no_tick
) -> Packed:
    """Write a folder with its manifest as an archive."""
    archive, raw = _Archive(out, manifest.taken_wall), snapshots.render_manifest(manifest)
    archive.add(snapshots.FILE, len(raw), [raw])
    for file in manifest.listing.files:
        archive.add(INNER + file.path, file.size, tree.read_checked(files, file), tick)
    return archive.finish()


def pack_session(
    session: Path,
    id: InstanceId,
    engine: str,
    out: IO[bytes],
    *,
    wall: float,
    account: str = "",
    needs_passkey: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Packed:
    """Pack a paired session's folder of another program, checked and listed as an own one."""
    with open_root(session) as top:
        files, folders = [], []
        for entry in tree.walk(top, engine, "pack"):
            if entry.is_folder:
                folders.append(entry.path)
            else:
                digest = hashlib.sha256()
                for piece in tree.read_file(top, entry.path):
                    digest.update(piece)
                files.append(tree.FileEntry(entry.path, entry.status.st_size, digest.hexdigest()))
        manifest = snapshots.Manifest(
            id=id,
            engine=engine,
            account=account,
            paired=True,
            taken_wall=wall,
            why="taken in from elsewhere",
            state=tree.inspect_session(top, engine, paired=True, modes=OURS).files,
            listing=tree.Listing(tuple(files), tuple(folders)),
            needs_passkey=needs_passkey,
            settings=settings or {},
        )
        return pack(manifest, top, out)


class _Archive:
    """A gzipped tar that is being written, with its sum. The gzip's head has no name and no time:
    the same session gives the same bytes."""

    def __init__(self, out: IO[bytes], wall: float) -> None:
        self._out, self._wall = out, wall
        self._zip = zlib.compressobj(6, wbits=31)
        self._digest, self._size = hashlib.sha256(), 0

    def add(
        self, name: str, size: int, pieces: Iterable[bytes], tick: tree.Tick = tree.no_tick
    ) -> None:
        import tarfile  # here alone, and below: an agent that moves no session needs none

        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = size, 0o600, int(self._wall)
        self._write(self._zip.compress(member.tobuf(tarfile.PAX_FORMAT)))
        for piece in pieces:
            self._write(self._zip.compress(piece))
            tick(len(piece))
        self._write(self._zip.compress(bytes(-size % BLOCK)))

    def finish(self) -> Packed:
        self._write(self._zip.compress(bytes(2 * BLOCK)) + self._zip.flush())
        return Packed(self._size, self._digest.hexdigest())

    def _write(self, piece: bytes) -> None:
        self._out.write(piece)
        self._digest.update(piece)
        self._size += len(piece)


# Folders that must not outlive a command: keys of sessions lie in them.

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder for this user alone. The next one deletes what a killed command left: each
    holds a lock for as long as its process lives."""
    prefix = f"wa-agent-{os.geteuid()}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError), opened(left, _FOLDER) as fd:  # in use, or of no wa-agent
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_uid == os.geteuid():
                shutil.rmtree(left)
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix))
        held = os.open(path, _FOLDER)
        fcntl.flock(held, fcntl.LOCK_EX)
        if path.exists():
            break
        os.close(held)  # another command swept it before it was locked
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(held)


# Reads a gzipped tar from anywhere: streamed, bounded in every direction, plain files only.

_PIECE = 1 << 16
LONGEST_HEADS = 1 << 16
"""Bytes before a member's content; the agent's archives extend the head of a long or foreign
path."""


@dataclass(frozen=True, slots=True)
class Limits:
    packed: int = 1 << 30
    unpacked: int = 4 << 30
    files: int = 200_000


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    size: int
    pieces: Iterator[bytes]
    """Pieces of the file, to be read before the next member."""


def refuse(cause: str) -> InvalidRequest:
    return InvalidRequest(f"cannot use the archive: {cause}", field="archive", code="bad_archive")


def too_large(cause: str, code: str) -> TooLarge:
    return TooLarge(f"cannot use the archive: {cause}", field="archive", code=code)


def read_members(source: IO[bytes], limits: Limits) -> Iterator[Member]:
    """Yield each plain file in the archive's order; InvalidRequest or TooLarge for the rest."""
    import tarfile

    stream, count, tar = _Unpacked(source, limits), 0, None
    while True:
        stream.of_heads = LONGEST_HEADS
        try:
            tar = tar or tarfile.TarFile(fileobj=cast(IO[bytes], stream), encoding="utf-8")
            head = tar.next()
        except (tarfile.TarError, ValueError):
            raise refuse("it is no tar, or a damaged one; nothing was changed") from None
        if head is None:
            break
        tar.members.clear()  # type: ignore[attr-defined]
        if not head.isreg() or head.issparse():
            raise refuse(f"{head.name!r:.80} is no plain file (type {head.type!r})")
        count += 1
        if count > limits.files:
            raise too_large(f"it has more than {limits.files} files", "too_many_files")
        yield Member(head.name, head.size, stream.content(head.size))
    stream.finish()


class _Packed:
    """The archive's bytes as they come, bounded in sum."""

    def __init__(self, source: IO[bytes], most: int) -> None:
        self._source, self._most, self._left = source, most, most

    def read(self, count: int = -1) -> bytes:
        raw = self._source.read(_PIECE if count < 0 else count)
        self._left -= len(raw)
        if self._left < 0:
            raise too_large(f"it has more than {self._most} bytes", TooLarge.code)
        return raw


class _Unpacked:
    """The unpacked stream, which tarfile reads as a file: forward, one piece of it in memory at a
    time, bounded in sum."""

    of_heads = 0
    """Bytes that may still be read as heads, which come into memory whole."""

    def __init__(self, source: IO[bytes], limits: Limits) -> None:
        packed, self._most = _Packed(source, limits.packed), limits.unpacked
        self._stream = gzip.GzipFile(fileobj=packed)  # type: ignore[call-overload]
        # Heads and filling are counted generously: a block or three for each file.
        self._left = limits.unpacked + 4 * BLOCK * limits.files
        self._at, self._last_head = 0, b""

    def tell(self) -> int:
        return self._at

    def seek(self, to: int) -> None:
        if to < self._at:
            raise refuse("it leads back to what was read")
        for _ in self.content(to - self._at):
            pass

    def read(self, count: int) -> bytes:
        self.of_heads -= count
        if count < 0 or self.of_heads < 0:
            raise refuse(f"an extended head of more than {LONGEST_HEADS} bytes")
        self._last_head = self._read(count)
        return self._last_head

    def content(self, size: int) -> Iterator[bytes]:
        for begun in range(0, size, _PIECE):
            piece = self._read(count := min(_PIECE, size - begun))
            if len(piece) < count:
                raise refuse("it ends too early")
            yield piece

    def finish(self) -> None:
        """Read to the end of the gzip, where its checksum is; only filling may follow."""
        if self._last_head != bytes(BLOCK):
            raise refuse("it ends too early, or in the middle of a head")
        filling = 0
        while piece := self._read(_PIECE):
            filling += len(piece)
            if piece.strip(b"\0") or filling > 1 << 20:
                raise refuse("data follows its end")

    def _read(self, count: int) -> bytes:
        try:
            piece: bytes = self._stream.read(count)
        except (gzip.BadGzipFile, zlib.error, EOFError):
            raise refuse("it is no gzip, or is damaged or cut off; nothing was changed") from None
        self._at += len(piece)
        self._left -= len(piece)
        if self._left < 0:
            raise too_large(f"unpacked it has more than {self._most} bytes", "unpacks_too_large")
        return piece


LARGEST_MANIFEST = 64 << 20


@dataclass(frozen=True, slots=True)
class Arrived:
    """An archive that was unpacked beside the sessions and is whole."""

    manifest: snapshots.Manifest
    state: SessionFiles
    problem: str
    """The session's own fault, for people, though the archive is whole."""
    linked: base.Linked


def read_archive_manifest(source: IO[bytes], limits: Limits) -> snapshots.Manifest:
    """Read only the manifest, from the archive's beginning."""
    return _read_manifest(read_members(source, limits), limits)


def unpack(
    root: Path, source: IO[bytes], id: InstanceId, limits: Limits, *, tick: tree.Tick = tree.no_tick
) -> Arrived:
    """Stage the archive's session under this id; InvalidRequest for an archive that is not whole.
    Each member must be the next of the manifest, with its size and checksum: so no link, device,
    second copy or path of its own can come in.
    """
    members = read_members(source, limits)
    manifest = _read_manifest(members, limits)
    leave_room(root, f"import into {root}", manifest.listing.size, len(manifest.listing))
    with open_root(root) as top, restore.staged(root, id, "import") as target:
        return _unpack_all(members, manifest, target, top.modes, tick)


def unpack_apart(folder: Path, source: IO[bytes], limits: Limits) -> Arrived:
    """Unpack into an empty folder that is no instance's, for another program's use."""
    members = read_members(source, limits)
    manifest = _read_manifest(members, limits)
    with open_root(folder) as target:
        return _unpack_all(members, manifest, target, OURS, tree.no_tick)


def _unpack_all(
    members: Iterator[Member],
    manifest: snapshots.Manifest,
    target: Folder,
    modes: Modes,
    tick: tree.Tick,
) -> Arrived:
    def pieces_of(file: tree.FileEntry) -> Iterator[bytes]:
        if (member := next(members, None)) is None:
            raise refuse(f"{file.path!r:.80} is missing")
        if member.name != INNER + file.path or member.size != file.size:
            raise refuse(f"{member.name!r:.80} is not what its manifest lists next")
        try:
            yield from tree.checked(Path(INNER), member.pieces, file)
        except VaultError as error:
            raise refuse(str(error)) from None

    tree.add_all(target, manifest.listing, pieces_of, modes, tick)
    if (further := next(members, None)) is not None:
        raise refuse(f"{further.name!r:.80} is not in its manifest")
    failpoint("import_unpacked")
    tree.read_back(target, manifest.listing, tick)
    report = tree.inspect_session(target, manifest.engine, manifest.paired, modes)
    linked = catalog.file_rules(manifest.engine).linked(target)
    return Arrived(manifest, report.files, report.problem, linked)


def _read_manifest(members: Iterator[Member], limits: Limits) -> snapshots.Manifest:
    if (first := next(members, None)) is None or first.name != snapshots.FILE:
        raise refuse(f"{snapshots.FILE} does not come first")
    if first.size > LARGEST_MANIFEST:
        raise refuse(f"its manifest has {first.size} bytes")
    try:
        manifest = snapshots.parse_manifest(b"".join(first.pieces), Path(snapshots.FILE))
    except VaultError as error:
        raise refuse(str(error)) from None
    if (size := manifest.listing.size) > limits.unpacked:
        cause = f"its session has {size} bytes, {limits.unpacked} are allowed"
        raise too_large(cause, "unpacks_too_large")
    if len(manifest.listing) > limits.files:
        raise too_large(f"it has more than {limits.files} files", "too_many_files")
    return manifest
