"""A session as one file: a gzipped tar, its manifest first, for another machine or a safe place."""

import fcntl
import hashlib
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from agent.core.model import InstanceId
from agent.vault.check import inspect_session
from agent.vault.copies.snapshots import FILE, Manifest, Snapshot, open_files, render_manifest
from agent.vault.folder import OURS, Folder, open_root
from agent.vault.tree import FileEntry, Listing, Tick, no_tick, read_checked, read_file, walk

INNER = "session/"
"""Stands before each file's path in the archive."""
BLOCK = 512


@dataclass(frozen=True, slots=True)
class Packed:
    size: int
    sha256: str
    """Of the whole archive."""


def export_snapshot(
    root: Path, snapshot: Snapshot, out: IO[bytes], *, tick: Tick = no_tick
) -> Packed:
    """Write the archive; VaultError when the snapshot does not match its manifest."""
    with open_files(root, snapshot) as (files, manifest):
        return pack(manifest, files, out, tick)


def pack(manifest: Manifest, files: Folder, out: IO[bytes], tick: Tick = no_tick) -> Packed:
    """Any folder with its manifest as an archive."""
    archive, raw = _Archive(out, manifest.taken_wall), render_manifest(manifest)
    archive.add(FILE, len(raw), [raw])
    for file in manifest.listing.files:
        archive.add(INNER + file.path, file.size, read_checked(files, file), tick)
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
    """A paired session's folder of another program, checked and listed as an own one."""
    with open_root(session) as top:
        files, folders = [], []
        for entry in walk(top, engine, "pack"):
            if entry.is_folder:
                folders.append(entry.path)
            else:
                digest = hashlib.sha256()
                for piece in read_file(top, entry.path):
                    digest.update(piece)
                files.append(FileEntry(entry.path, entry.status.st_size, digest.hexdigest()))
        manifest = Manifest(
            id=id,
            engine=engine,
            account=account,
            paired=True,
            taken_wall=wall,
            why="taken in from elsewhere",
            state=inspect_session(top, engine, paired=True, modes=OURS).files,
            listing=Listing(tuple(files), tuple(folders)),
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

    def add(self, name: str, size: int, pieces: Iterable[bytes], tick: Tick = no_tick) -> None:
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
        _delete_unused(left)
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


def _delete_unused(path: Path) -> None:
    with suppress(OSError):  # in use, or of no wa-agent
        fd = os.open(path, _FOLDER)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_uid == os.geteuid():
                shutil.rmtree(path)
        finally:
            os.close(fd)
