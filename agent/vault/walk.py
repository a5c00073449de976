"""Goes through the files of a session, following no link: each step goes down by open folders."""

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.errors import VaultError
from agent.vault.errors import explain, planted
from agent.vault.locate import names_in, open_folder

DEEPEST = 32
MOST_ENTRIES = 50_000
LARGEST_FILE = 256 << 20
"""Bytes: no engine writes a larger file. A stray one would fill the disk, copy by copy."""
_COARSE = 0.05
"""Seconds: a file changed twice within one tick of the kernel's clock looks unchanged."""
Signature = tuple[int, ...]


class Excluded(Protocol):
    """True for what belongs in no copy. `plain`: it is a folder, or a file of a sensible size."""

    def __call__(self, path: str, /, *, plain: bool = True) -> bool: ...


@dataclass(frozen=True, slots=True)
class Open:
    """An open folder: its path is for people, the descriptor is what is used."""

    path: Path
    fd: int


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry while its folder is open."""

    path: str
    """Relative to where the walk began."""
    name: str
    status: os.stat_result
    parent: Open

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


def walk(top: Open, excluded: Excluded, verb: str = "copy") -> Iterator[Entry]:
    """Folders before their content, by name. Anything but folders and files of a sensible size is
    refused, where the engine does not move it aside."""
    for number, entry in enumerate(_walk(top, excluded, verb, ())):
        if number >= MOST_ENTRIES:
            raise VaultError(f"cannot {verb} {top.path}: it has more than {MOST_ENTRIES} entries")
        yield entry


def _walk(here: Open, excluded: Excluded, verb: str, way: tuple[str, ...]) -> Iterator[Entry]:
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
        if fault := _fault(verb, path, status):
            if excluded(relative, plain=False):
                continue
            raise fault
        yield Entry(relative, name, status, here)
        if stat.S_ISDIR(status.st_mode):
            with open_folder(path, name, here.fd) as inner:
                yield from _walk(Open(path, inner), excluded, verb, (*way, name))


def _fault(verb: str, path: Path, status: os.stat_result) -> VaultError | None:
    if stat.S_ISDIR(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode):
        return planted(verb, path)
    if status.st_size <= LARGEST_FILE:
        return None
    size, most = status.st_size >> 20, LARGEST_FILE >> 20
    cause = f"it has {size} MiB, and no file of a session has more than {most}; move it away"
    return VaultError(f"cannot {verb} {path}: {cause}", code="too_large")


def signatures(top: Open, excluded: Excluded) -> dict[str, Signature]:
    """A value per relative path that differs when the file changed."""
    by_path, newest = _signatures(top, excluded)
    if abs(time.time() - newest) < _COARSE:
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
