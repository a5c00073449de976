"""Removed keys: one folder per removal, with a manifest, kept for seven days. Blocking; runs in a
thread. Nothing leaves a server before it was read, and what was moved is read again afterwards."""

import errno
import hashlib
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agent.engines.whaticket.keys.files import (
    LARGEST,
    cause_of,
    failed,
    make_private,
    read_json,
    write_json,
)
from agent.errors import EngineError, InvalidRequest

FOLDER = "removed"
FILES = "files"
KEYS = "keys.json"
MANIFEST = "manifest.json"
FORMAT = "wa-agent removed keys"
KEEP = 7 * 86400.0
PUT_BACK_ALREADY = "put_back_already"
"""The error's code where a removal was put back before: nothing was touched."""
_NAME = re.compile(r"\d{8}T\d{6}Z(?:\.\d{1,4})?")
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class FileEntry:
    name: str
    size: int
    sha256: str
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Removal:
    """What was taken away once, and where it lies."""

    path: Path
    remote: str
    why: str
    wall: float
    state: str
    """begun, done, put_back"""
    source: str = ""
    """The folder that the files were in."""
    whole: bool = False
    """The folder itself was moved, not single files."""
    files: tuple[FileEntry, ...] = ()
    keys: int = 0
    keys_sha256: str = ""

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def empty(self) -> bool:
        return not self.files and not self.keys and not self.whole

    def shown(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "at": self.wall,
            "why": self.why,
            "state": self.state,
            "files": len(self.files),
            "keys": self.keys,
            "whole": self.whole,
        }


@dataclass(frozen=True, slots=True)
class RemovedKeys:
    """All removals of one backend."""

    root: Path
    clock: Callable[[], float] = field(default=time.time)
    folder: str = FOLDER
    keep: float = KEEP
    """Seconds after which `sweep` deletes."""

    def begin(self, remote: str, why: str) -> Removal:
        """A new empty one, on the disk."""
        wall = self.clock()
        folder = self._folder(remote)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall))
        for number in range(1, 10_000):
            path = folder / (stamp if number == 1 else f"{stamp}.{number}")
            try:
                path.mkdir(mode=0o700)
            except FileExistsError:
                continue
            except OSError as error:
                raise failed("create", path, error) from error
            removal = Removal(path, remote, why[:200], wall, "begun")
            self.write(removal)
            return removal
        raise EngineError(f"cannot remove keys: no free name in {folder}", code="files")

    def device(self, remote: str) -> int:
        """The file system that its removals lie on."""
        return self._folder(remote).stat().st_dev

    def must_have_room(self, remote: str, size: int) -> None:
        """Before anything is touched: so many bytes are really laid in, and given back."""
        folder = self._folder(remote)
        trial = folder / ".trial"
        try:
            trial.unlink(missing_ok=True)
            fd = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, size)
            finally:
                os.close(fd)
        except OSError as error:
            raise EngineError(
                f"cannot back up the keys of {remote} in {folder}: {cause_of(error)}"
                f" ({size // 1024} KiB are needed); the session was not touched; free space on"
                " the agent's disk",
                code="disk_full" if error.errno in _FULL else "files",
            ) from error
        finally:
            trial.unlink(missing_ok=True)

    def _folder(self, remote: str) -> Path:
        return make_private(self.root / self.folder / safe_name(remote))

    def write(self, removal: Removal) -> Removal:
        raw = asdict(removal)
        del raw["path"]
        write_json(removal.path / MANIFEST, {"format": FORMAT, "version": 1, **raw})
        return removal

    def find_to_put_back(self, remote: str, name: object) -> Removal:
        """The removal of that name; an error when there is none, or when it was put back: what lies
        in the session's place now may be the live pairing, which nothing may move away for it."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidRequest("cannot put back: `name` is no removal's name", field="name")
        path = self.root / self.folder / safe_name(remote) / name
        removal = _read_manifest(path)
        if removal is None or removal.remote != remote:
            raise InvalidRequest(f"cannot put back {name}: there is no such removal", field="name")
        if removal.state == "put_back":
            raise EngineError(
                f"cannot put back {name}: it was put back already, and nothing of the session was"
                " touched",
                code=PUT_BACK_ALREADY,
            )
        return removal

    def all(self, remote: str) -> list[Removal]:
        """Oldest first."""
        if not is_safe_name(remote):
            return []
        folder = self.root / self.folder / safe_name(remote)
        try:
            names = sorted(entry.name for entry in folder.iterdir())
        except OSError:
            return []
        removals = (_read_manifest(folder / name) for name in names if _NAME.fullmatch(name))
        return [removal for removal in removals if removal is not None]

    def sweep(self) -> int:
        """Delete what was removed long ago; nothing that has no manifest of ours."""
        gone = 0
        try:
            entries = list((self.root / self.folder).iterdir())
        except OSError:
            return 0
        for folder in entries:
            for removal in self.all(folder.name) if not folder.is_symlink() else []:
                if self.clock() - removal.wall > self.keep:
                    shutil.rmtree(removal.path, ignore_errors=True)
                    gone += 1
        return gone


def is_safe_name(remote: str) -> bool:
    return _SAFE.fullmatch(remote) is not None and ".." not in remote


def safe_name(remote: str) -> str:
    """A session's name as a folder's: no path tricks, whatever the server calls it."""
    if not is_safe_name(remote):
        raise EngineError(
            f"cannot keep files of {remote!r:.60}: its name cannot name a folder",
            code="remote_name",
        )
    return remote


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """An open folder; a link in its place is refused."""
    try:
        fd = os.open(path, _DIRECTORY)
    except OSError as error:
        raise failed("open", path, error) from error
    try:
        yield fd
    finally:
        os.close(fd)


def measure(folder: Path, fd: int, name: str) -> FileEntry:
    """Read a regular file whole; a link, pipe or giant in its place is refused."""
    content, status = read_file(folder, fd, name)
    digest = hashlib.sha256(content).hexdigest()
    mode = stat.S_IMODE(status.st_mode)
    return FileEntry(name, len(content), digest, mode, status.st_uid, status.st_gid)


def read_file(folder: Path, fd: int, name: str) -> tuple[bytes, os.stat_result]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(name, flags, dir_fd=fd), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise EngineError(f"cannot read {folder / name}: it is no file", code="files")
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise failed("read", folder / name, error) from error
    if len(content) > LARGEST:
        raise EngineError(f"cannot read {folder / name}: it is too large", code="files")
    return content, status


def _read_manifest(path: Path) -> Removal | None:
    raw = read_json(path / MANIFEST) if not path.is_symlink() else None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT or raw.get("version") != 1:
        return None
    try:
        return Removal(
            path,
            str(raw["remote"]),
            str(raw["why"]),
            float(raw["wall"]),
            str(raw["state"]),
            str(raw["source"]),
            raw["whole"] is True,
            tuple(map(_read_file_entry, raw["files"])),
            int(raw["keys"]),
            str(raw["keys_sha256"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _read_file_entry(raw: Mapping[str, Any]) -> FileEntry:
    name = str(raw["name"])
    if "/" in name or name in ("", ".", ".."):
        raise ValueError("a file's name leads elsewhere")
    numbers = (int(raw[key]) for key in ("mode", "uid", "gid"))
    return FileEntry(name, int(raw["size"]), str(raw["sha256"]), *numbers)
