"""A session's files as a tree: walked, copied, compared and read back, following no link: each step
goes down by open folders."""

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import VaultError
from agent.vault.errors import explain, planted
from agent.vault.locate import Modes, names_in, open_folder

DEEPEST = 32
MOST_ENTRIES = 50_000
_CHUNK = 1 << 20
_COARSE = 0.05
"""Seconds: a file changed twice within one tick of the kernel's clock looks unchanged."""

Tick = Callable[[int], None]
"""Called with the size of each piece; an error that it raises ends the work."""
Excluded = Callable[[str], bool]
"""Gets a relative path; True for what belongs in no copy."""


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


@dataclass(frozen=True, slots=True)
class Open:
    """An open folder: its path is for people, the descriptor is what is used."""

    path: Path
    fd: int


@dataclass(frozen=True, slots=True)
class Found:
    """An entry while its folder is open."""

    path: str
    """Relative to where the walk began."""
    name: str
    status: os.stat_result
    parent: Open

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


Signature = tuple[int, ...]


def no_tick(_bytes: int) -> None:
    """For work without a progress display."""


def walk(top: Open, excluded: Excluded, verb: str = "copy") -> Iterator[Found]:
    """Folders before their content, by name. Anything but files and folders is refused."""
    for number, entry in enumerate(_walk(top, excluded, verb, ())):
        if number >= MOST_ENTRIES:
            raise VaultError(f"cannot {verb} {top.path}: it has more than {MOST_ENTRIES} entries")
        yield entry


def _walk(here: Open, excluded: Excluded, verb: str, way: tuple[str, ...]) -> Iterator[Found]:
    if len(way) >= DEEPEST:
        raise VaultError(f"cannot {verb} {here.path}: it is nested more than {DEEPEST} deep")
    try:
        names = names_in(here.fd)
    except OSError as error:
        raise explain(verb, here.path, error) from error
    for name in names:
        relative = "/".join((*way, name))
        if excluded(relative):
            continue
        path = here.path / name
        try:
            status = os.stat(name, dir_fd=here.fd, follow_symlinks=False)
        except OSError as error:
            raise explain(verb, path, error) from error
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise planted(verb, path)
        yield Found(relative, name, status, here)
        if stat.S_ISDIR(status.st_mode):
            with open_folder(path, name, here.fd) as inner:
                yield from _walk(Open(path, inner), excluded, verb, (*way, name))


def signatures(top: Open, excluded: Excluded, *, settled: bool = True) -> dict[str, Signature]:
    """A value per relative path that differs when the file changed. `settled=False`: of two changes
    within a tick of the clock the second may not show."""
    by_path, newest = _signatures(top, excluded)
    if settled and abs(time.time() - newest) < _COARSE:
        # Written a moment ago: a second write in the same tick would not show. Let the tick pass.
        time.sleep(_COARSE)
        by_path, _ = _signatures(top, excluded)
    return by_path


def _signatures(top: Open, excluded: Excluded) -> tuple[dict[str, Signature], float]:
    signed: dict[str, Signature] = {}
    newest = 0.0
    for entry in walk(top, excluded):
        status = entry.status
        if entry.is_folder:
            signed[entry.path] = (status.st_ino,)
        else:
            newest = max(newest, status.st_mtime, status.st_ctime)
            signed[entry.path] = (
                status.st_ino,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
            )
    return signed, newest


def first_difference(before: dict[str, Signature], after: dict[str, Signature]) -> str | None:
    """The path of an entry that changed, came or went; None when nothing did."""
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            return path
    return None


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
                while rest:
                    rest = rest[file.write(rest) :]
                digest.update(piece)
                size += len(piece)
                tick(len(piece))
            _give(fd, modes.file, modes.group)
    except OSError as error:
        raise explain("write", target.path / relative, error) from error
    return FileEntry(relative, size, digest.hexdigest())


@contextlib.contextmanager
def open_source(parent: Open, name: str) -> Iterator[int]:
    """A plain file for reading; a link or pipe in its place is refused."""
    # O_NONBLOCK: opening a planted pipe must not wait for a writer.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    path = parent.path / name
    try:
        fd = os.open(name, flags, dir_fd=parent.fd)
    except OSError as error:
        raise explain("read", path, error) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise planted("read", path)
        yield fd
    finally:
        os.close(fd)


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


def read_back(top: Open, listing: Listing, tick: Tick = no_tick, *, at_once: bool = False) -> None:
    """Put a copy on the disk and read it again: VaultError where it differs. `at_once`: the whole
    file system is flushed once, which is faster than a thousand small files."""
    if at_once:
        _sync_file_system(top)
    for file in listing.files:
        _sync_file(top, file.path, written=at_once)
    for file in listing.files:
        for _ in checked(top.path / file.path, read_file(top, file.path), file):
            tick(0)
    if not at_once:
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


def _sync_file_system(top: Open) -> None:
    import ctypes  # only a machine of a fleet flushes so

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(top.fd):
        number = ctypes.get_errno()
        raise explain("save", top.path, OSError(number, os.strerror(number)))


def _sync_file(top: Open, relative: str, *, written: bool) -> None:
    try:
        fd = os.open(relative, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top.fd)
        try:
            if not written:
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
