"""Copies a session's files and reads copies back, following no link."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import VaultError
from agent.vault.errors import explain
from agent.vault.locate import Modes, open_folder
from agent.vault.walk import Excluded, Open, open_source, walk

_CHUNK = 1 << 20

Tick = Callable[[int], None]
"""Called with the size of each piece; an error that it raises ends the work."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a copy. The path is relative, with slashes."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What a copy has in it."""

    files: tuple[FileEntry, ...]
    folders: tuple[str, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def no_tick(_bytes: int) -> None:
    """For work without a progress display."""


def copy_tree(
    source: Open, target: Open, *, excluded: Excluded, modes: Modes, tick: Tick = no_tick
) -> Listing:
    """Copy into an empty folder. Only after `read_back` is it on the disk for sure."""
    files, folders = [], []
    for entry in walk(source, excluded):
        if entry.is_folder:
            add_folder(target, entry.path, modes)
            folders.append(entry.path)
        else:
            with open_source(entry.parent, entry.name) as fd:
                files.append(add_file(target, entry.path, _pieces(fd), modes, tick))
    return Listing(tuple(files), tuple(folders))


def add_folder(target: Open, relative: str, modes: Modes) -> None:
    try:
        os.mkdir(relative, 0o700, dir_fd=target.fd)
        with open_folder(target.path / relative, relative, target.fd) as fd:
            _give(fd, modes.folder, modes.group)
    except OSError as error:
        raise explain("create", target.path / relative, error) from error


def add_file(
    target: Open, relative: str, pieces: Iterable[bytes], modes: Modes, tick: Tick
) -> FileEntry:
    """Write a new file from pieces; the entry has the size and checksum of what was written."""
    digest, size = hashlib.sha256(), 0
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(relative, flags, 0o600, dir_fd=target.fd)
        with os.fdopen(fd, "wb", buffering=0) as file:
            for piece in pieces:
                rest = memoryview(piece)
                if not any(piece):  # a hole stays one: it takes no room
                    file.seek(len(piece), os.SEEK_CUR)
                    rest = rest[:0]
                while rest:
                    rest = rest[file.write(rest) :]
                digest.update(piece)
                size += len(piece)
                tick(len(piece))
            file.truncate(size)
            _give(fd, modes.file, modes.group)
    except OSError as error:
        raise explain("write", target.path / relative, error) from error
    return FileEntry(relative, size, digest.hexdigest())


def _pieces(fd: int) -> Iterator[bytes]:
    while piece := os.read(fd, _CHUNK):
        yield piece


def read_file(top: Open, relative: str) -> Iterator[bytes]:
    """The pieces of one file below an open folder, each folder on the way opened plainly."""
    folder, _, rest = relative.partition("/")
    path = top.path / folder
    if rest:
        with open_folder(path, folder, top.fd) as fd:
            yield from read_file(Open(path, fd), rest)
        return
    with open_source(top, relative) as fd:
        try:
            yield from _pieces(fd)
        except OSError as error:
            raise explain("read", path, error) from error


def sum_up(relative: str, pieces: Iterable[bytes]) -> FileEntry:
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    return FileEntry(relative, size, digest.hexdigest())


def read_back(top: Open, listing: Listing, tick: Tick = no_tick) -> None:
    """Put a copy on the disk and read it again: VaultError where it differs."""
    for file in listing.files:
        _sync_file(top, file.path)
        tick(0)
    for file in listing.files:
        for _ in checked(top.path / file.path, read_file(top, file.path), file):
            tick(0)
    _sync_folders(top, listing.folders)


def checked(path: Path, pieces: Iterable[bytes], expected: FileEntry) -> Iterator[bytes]:
    """The same pieces; VaultError `damaged` at their end when they differ from `expected`."""
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
        yield piece
    if size != expected.size:
        raise VaultError(
            f"cannot use {path}: it has {size} bytes instead of {expected.size}", code="damaged"
        )
    if digest.hexdigest() != expected.sha256:
        raise VaultError(
            f"cannot use {path}: its content does not fit its checksum", code="damaged"
        )


def _sync_file(top: Open, relative: str) -> None:
    try:
        fd = os.open(relative, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top.fd)
        try:
            os.fsync(fd)
            # So that reading it again asks the disk and not the memory, where it can.
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
    except OSError as error:
        raise explain("save", top.path / relative, error) from error


def _sync_folders(top: Open, folders: Sequence[str]) -> None:
    try:
        for relative in folders:
            fd = os.open(relative, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=top.fd)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        os.fsync(top.fd)
    except OSError as error:
        raise explain("save", top.path, error) from error


def _give(fd: int, mode: int, group: int | None) -> None:
    if group is not None and os.fstat(fd).st_gid != group:
        os.fchown(fd, -1, group)
    os.fchmod(fd, mode)
