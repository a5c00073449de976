"""The browser's profile in the instance's folder: where it is, whether it is free, made durable."""

import fcntl
import json
import os
import re
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.engines.web.rules import KNOWN_GOOD, LIVE, NOTE, STORES, profile_path
from agent.errors import EngineError
from agent.files import sync, write_whole

LOCKS = ("SingletonLock", "SingletonSocket", "SingletonCookie")


_FLOCK = "hhqqi4x"
"""struct flock of fcntl(2) on 64-bit Linux."""


def holder(profile: Path) -> int | None:
    """The process that has one of the profile's databases open; 0: one whose number is hidden;
    None: the profile is free, whatever lock files are there. A headless shell leaves none, but each
    of its LevelDB databases has a lock on a file LOCK."""
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


def prepare_profile(session: Path) -> None:
    """Make the profile ready for a browser; EngineError `profile_in_use` when one has it."""
    profile = profile_path(session)
    try:
        profile.mkdir(mode=0o700, exist_ok=True)
        if profile.is_symlink():
            raise EngineError(f"cannot use {profile}: it is a link", code="storage_failed")
        if (pid := holder(profile)) is not None:
            browser = f"process {pid}" if pid else "another browser"
            raise EngineError(f"cannot use {profile}: {browser} has it open", code="profile_in_use")
        for name in LOCKS:  # left by a browser that is gone, or under another machine's name
            (profile / name).unlink(missing_ok=True)
    except OSError as error:
        raise EngineError(
            f"cannot prepare {profile}: {error.strerror}", code="storage_failed"
        ) from error


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


# The engine's own files beside the profile: a note, known pages, diagnostics.


_PAGES, _DIAGNOSTICS = "pages", "diagnostics"
_PAGES_KEPT, _DIAGNOSTICS_KEPT = 2, 3
_PAGE_LIMIT = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Note:
    """What must outlive the worker and is not the browser's."""

    paired: bool = False
    account: str = ""
    page: str = ""
    """The version of the last page that connected."""
    device: str = ""
    """Drawn at the first connection of a pairing: the same in each copy of this session."""


def read_note(session: Path) -> Note:
    """A note that cannot be read is an empty one: nothing in it is needed to connect."""
    try:
        raw = json.loads((session / NOTE).read_bytes())
        account, page, device = raw["account"], raw["page"], raw.get("device", "")
        return Note(raw["paired"] is True, str(account)[:40], str(page)[:40], str(device)[:40])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Note()


def write_note(session: Path, note: Note) -> None:
    write_whole(session / NOTE, json.dumps({"version": 1, **asdict(note)}).encode())


def keep_page(session: Path, version: str, document: str) -> None:
    """Remember the document that connected; the oldest of more than two goes."""
    if not re.fullmatch(r"[0-9][0-9A-Za-z.-]{0,39}", version) or not document:
        return
    folder = session / _PAGES
    folder.mkdir(mode=0o700, exist_ok=True)
    write_whole(folder / f"{version}.html", document.encode())
    _keep_newest(folder, "*.html", _PAGES_KEPT)


def read_page(session: Path, wanted: str, note: Note) -> str | None:
    """The pinned document; None: the live one. EngineError when a named version is not there."""
    version = note.page if wanted == KNOWN_GOOD else wanted
    if wanted == LIVE or not version:
        return None
    path = session / _PAGES / f"{version}.html"
    try:
        with path.open("rb") as file:
            return file.read(_PAGE_LIMIT).decode()
    except (OSError, ValueError) as error:
        if wanted == KNOWN_GOOD:
            return None
        raise EngineError(
            f"cannot use page version {version}: there is no {path}", code="page_missing"
        ) from error


def keep_diagnostics(session: Path, facts: Mapping[str, Any], picture: bytes | None) -> Path:
    """Leave what was seen of a failed start; never a code, never a message."""
    folder = session / _DIAGNOSTICS
    folder.mkdir(mode=0o700, exist_ok=True)
    name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = folder / f"{name}.json"
    write_whole(path, json.dumps(dict(facts), indent=1).encode())
    if picture is not None:
        write_whole(folder / f"{name}.jpg", picture)
    for kind in ("*.json", "*.jpg"):
        _keep_newest(folder, kind, _DIAGNOSTICS_KEPT)
    return path


def _keep_newest(folder: Path, pattern: str, count: int) -> None:
    files = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns)
    for path in files[:-count]:
        path.unlink(missing_ok=True)
