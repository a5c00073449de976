"""Which process of this machine uses a file or folder: a session in use is not moved.

Files and folders are compared by device and inode: a program in a container names them otherwise.
"""

import os
import re
import time
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path

_SERVERS = ("node", "bun", "deno")
RECENT = 120.0
"""Seconds: a program that last wrote its session so long ago may still run, here or elsewhere."""

_Identity = tuple[int, int]
"""Device and inode: the same in every mount namespace."""


def used_by(program: str) -> str:
    """Why a session is not moved while this program uses it; "" for no program."""
    return program and f"{program} uses it now; stop that first, or confirm it with --stopped"


def just_written(written: float) -> str:
    """The same for a session that was written at this time; "" = long enough ago."""
    ago = time.time() - written
    if abs(ago) >= RECENT:
        return ""
    return (
        f"a program wrote to it {max(ago, 0):.0f} s ago; stop that program, then confirm it with"
        f" --stopped, or wait until {RECENT:.0f} s have passed"
    )


def user_of_folder(folder: Path) -> str:
    """The Node program that runs above this folder or holds one of its files open.

    A Baileys bot opens each key only while it reads or writes it. Its working directory tells, for
    the folder of keys lies below it, its command line, which names the folder, or a mount of its
    own that shows the folder to it.
    """
    folder = folder.resolve()
    files = _identities(folder.iterdir())
    above = _identities([folder, *list(folder.parents)[:-1]])
    near = _identities([folder, folder.parent] if len(folder.parts) > 2 else [folder])
    own_mounts = _mounts(Path("/proc/self"))
    place = _place_of(folder, own_mounts)
    for process in _processes():
        if Path(_link(process / "exe")).name.startswith(_SERVERS) and (
            _identity(process / "cwd") in above
            or _names(process, near)
            or any(mount.shows(place) for mount in set(_mounts(process)).difference(own_mounts))
        ):
            return _named(process)
        if _has_open(process, files):
            return _named(process)
    return ""


def _processes() -> Iterator[Path]:
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            yield process


def _has_open(process: Path, files: Set[_Identity]) -> bool:
    try:
        return any(_identity(descriptor) in files for descriptor in (process / "fd").iterdir())
    except OSError:
        return False  # gone, or another user's


def _names(process: Path, wanted: Set[_Identity]) -> bool:
    """Whether its command line names one of these folders or a path below it."""
    try:
        line = os.fsdecode((process / "cmdline").read_bytes())
    except OSError:
        return False
    for argument in line.split("\0"):
        path = Path(argument.rpartition("=")[2])
        start = process / ("root" if path.is_absolute() else "cwd")
        for named in (path, *path.parents):
            if named.name and _identity(start / str(named).lstrip("/")) in wanted:
                return True
    return False


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder by its filesystem and its path in that."""

    device: str
    path: Path


@dataclass(frozen=True, slots=True)
class _Mount:
    root: _Place
    point: Path

    def shows(self, place: _Place) -> bool:
        """Whether it was made for this folder or one above it, not for a whole filesystem."""
        root = self.root
        whole = len(root.path.parts) == 1
        return not whole and root.device == place.device and place.path.is_relative_to(root.path)


def _mounts(process: Path) -> list[_Mount]:
    """In the order they were made; none of a process that we may not see."""
    try:
        lines = os.fsdecode((process / "mountinfo").read_bytes()).splitlines()
    except OSError:
        return []
    fields = [[_unescaped(field) for field in line.split(" ", 5)[2:5]] for line in lines]
    return [_Mount(_Place(device, Path(root)), Path(point)) for device, root, point in fields]


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


def _place_of(folder: Path, mounts: list[_Mount]) -> _Place:
    """Of two mounts at one point the later one is seen."""
    place, depth = _Place("", folder), 0
    for mount in mounts:
        if folder.is_relative_to(mount.point) and len(mount.point.parts) >= depth:
            path = mount.root.path / folder.relative_to(mount.point)
            place, depth = _Place(mount.root.device, path), len(mount.point.parts)
    return place


def _identity(path: Path) -> _Identity | None:
    try:
        seen = path.stat()
    except (OSError, ValueError):
        return None  # gone, or another user's
    return seen.st_dev, seen.st_ino


def _identities(paths: Iterable[Path]) -> Set[_Identity]:
    return {identity for path in paths if (identity := _identity(path)) is not None}


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _named(process: Path) -> str:
    try:
        name = (process / "comm").read_text().strip()
    except OSError:
        name = "a process"
    return f"{name} (process {process.name})"
