"""The browser's profile in the instance's folder: where it is, whether it is free, made durable."""

import fcntl
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from agent.engines.web.files import STORES, profile_path
from agent.errors import EngineError
from agent.files import sync

LOCKS = ("SingletonLock", "SingletonSocket", "SingletonCookie")


_SOCKET_FOLDER = "org.chromium.Chromium."
_FLOCK = "hhqqi4x"
"""struct flock of fcntl(2) on 64-bit Linux."""


class Lock(StrEnum):
    FREE = "free"
    DEAD = "dead"
    """Left by a process of this machine that is gone."""
    FOREIGN = "foreign"
    """Left under another machine's name: a copied folder, a new container."""
    LIVE = "live"


def read_lock(profile: Path) -> Lock:
    """Who holds the profile: the databases' locks tell, and the browser's own lock files."""
    if holder(profile) is not None:
        return Lock.LIVE
    try:
        host, _, pid = str((profile / LOCKS[0]).readlink()).rpartition("-")
    except FileNotFoundError:
        return Lock.FREE
    except OSError:
        host, pid = "", ""
    # A browser that lives answers on its socket, wherever its lock says it is.
    if _answers(profile / LOCKS[1]):
        return Lock.LIVE
    if host != socket.gethostname():
        return Lock.FOREIGN
    return Lock.LIVE if _uses(pid, profile) else Lock.DEAD


def holder(profile: Path) -> int | None:
    """The process that has one of the profile's databases open; 0: one whose number is hidden. A
    headless shell leaves no lock file, but each of its LevelDB databases has a lock on a file LOCK.
    """
    default = profile / "Default"
    databases = [default / "Local Storage" / "leveldb", default / "Session Storage"]
    with suppress(OSError):
        databases += sorted((profile / STORES).iterdir())
    for database in databases:
        try:
            fd = os.open(database / "LOCK", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))
        except OSError:
            continue
        finally:
            os.close(fd)
        if kind != fcntl.F_UNLCK:
            return max(0, int(pid))
    return None


def prepare_profile(session: Path) -> Lock:
    """Make the profile ready for a browser; EngineError `profile_in_use` when one has it."""
    profile = profile_path(session)
    try:
        profile.mkdir(mode=0o700, exist_ok=True)
        if profile.is_symlink():
            raise EngineError(f"cannot use {profile}: it is a link", code="storage_failed")
        lock = read_lock(profile)
        if lock is Lock.LIVE:
            pid = holder(profile)
            browser = f"process {pid}" if pid else "another browser"
            raise EngineError(f"cannot use {profile}: {browser} has it open", code="profile_in_use")
        if lock is not Lock.FREE:
            _remove_socket_folder(profile)
            for name in LOCKS:
                (profile / name).unlink(missing_ok=True)
    except OSError as error:
        raise EngineError(
            f"cannot prepare {profile}: {error.strerror}", code="storage_failed"
        ) from error
    return lock


def _remove_socket_folder(profile: Path) -> None:
    """A killed full browser leaves a socket and a cookie in the folder for temporary files. Remove
    it only where that cookie is the profile's own."""
    with suppress(OSError):
        folder = (profile / LOCKS[1]).readlink().parent
        own = (profile / LOCKS[2]).readlink() == (folder / LOCKS[2]).readlink()
        if own and folder.name.startswith(_SOCKET_FOLDER) and not folder.is_symlink():
            for name in LOCKS[1:]:
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()


def make_durable(session: Path, progress: Callable[[], None]) -> None:
    """Bring what the browser wrote of the session from the kernel's memory to the disk."""
    profile = profile_path(session)
    for part in ("Default/IndexedDB", "Default/Local Storage", "Default"):
        folder = profile / part
        for path in [folder, *(folder.rglob("*") if part != "Default" else folder.glob("*"))]:
            with suppress(OSError):  # gone since it was listed
                if path.is_file() or path.is_dir():
                    sync(path)
        progress()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.settimeout(1.0)
        try:
            asked.connect(str(path.readlink()))
        except (OSError, ValueError):
            return False
    return True


def _uses(pid: str, profile: Path) -> bool:
    """Whether that process is a browser on this profile: numbers are given again."""
    try:
        line = (Path("/proc") / str(int(pid)) / "cmdline").read_bytes()
    except (OSError, ValueError):
        return False
    return f"--user-data-dir={profile}".encode() in line.split(b"\0")
