"""A session as one file: a gzipped tar, its manifest first, for another machine or a safe place."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from agent.core.model import InstanceId
from agent.vault.check import inspect_session
from agent.vault.copies.manifest import FILE, Manifest, render_manifest
from agent.vault.copies.snapshots import Snapshot, open_files, raw_manifest
from agent.vault.folders import OURS
from agent.vault.formats import is_left_out
from agent.vault.locate import open_root
from agent.vault.tree import Listing, Tick, checked, no_tick, read_file, sum_up
from agent.vault.walk import Open, walk

INNER = "session/"
"""Stands before each file's path in the archive."""


@dataclass(frozen=True, slots=True)
class Packed:
    size: int
    sha256: str
    """Of the whole archive."""


def export_snapshot(
    root: Path, snapshot: Snapshot, out: IO[bytes], *, tick: Tick = no_tick
) -> Packed:
    """Write the archive; VaultError when the snapshot does not match its manifest."""
    raw = raw_manifest(root, snapshot)
    with open_files(root, snapshot) as (files, manifest):
        return pack(raw, manifest, files, out, tick)


def pack(
    raw: bytes, manifest: Manifest, files: Open, out: IO[bytes], tick: Tick = no_tick
) -> Packed:
    """Any folder with its manifest as an archive."""
    digesting = _Digesting(out)
    # No name and no time in the head: the same session gives the same bytes.
    with (
        gzip.GzipFile("", "wb", 6, digesting, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        _add(tar, FILE, len(raw), manifest.taken_wall, io.BytesIO(raw))
        for file in manifest.listing.files:
            pieces = checked(files.path / file.path, read_file(files, file.path), file)
            source = _Pieces(pieces, tick)
            _add(tar, INNER + file.path, file.size, manifest.taken_wall, source)
            source.finish()
    return Packed(digesting.size, digesting.digest.hexdigest())


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
    with open_root(session) as fd:
        top = Open(session, fd)
        files, folders = [], []
        for entry in walk(top, is_left_out(engine), "pack"):
            if entry.is_folder:
                folders.append(entry.path)
            else:
                files.append(sum_up(entry.path, read_file(top, entry.path)))
        report = inspect_session(session, fd, engine, paired=True, modes=OURS)
        manifest = Manifest(
            id=id,
            engine=engine,
            account=account,
            paired=True,
            taken_wall=wall,
            why="taken in from elsewhere",
            state=report.files,
            listing=Listing(tuple(files), tuple(folders)),
            needs_passkey=needs_passkey,
            settings=settings or {},
        )
        return pack(render_manifest(manifest), manifest, top, out)


def _add(tar: "tarfile.TarFile", name: str, size: int, wall: float, source: io.IOBase) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, int(wall)
    tar.addfile(member, source)


class _Digesting(io.RawIOBase):
    """Passes on what is written, and knows its sum."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self.digest = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, piece: bytes) -> int:  # type: ignore[override]
        self._out.write(piece)
        self.digest.update(piece)
        self.size += len(piece)
        return len(piece)


class _Pieces(io.RawIOBase):
    """Pieces as a file that can be read once."""

    def __init__(self, pieces: Iterator[bytes], tick: Tick) -> None:
        self._pieces = pieces
        self._tick = tick
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int) -> bytes:  # type: ignore[override]
        # As much as was asked for: less would be taken for the file's end.
        while len(self._rest) < size and (piece := next(self._pieces, None)) is not None:
            self._rest += piece
        taken, self._rest = self._rest[:size], self._rest[size:]
        self._tick(len(taken))
        return taken

    def finish(self) -> None:
        """Read to the end: the check there may raise."""
        for _ in self._pieces:
            pass
