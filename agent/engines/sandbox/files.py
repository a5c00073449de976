"""The sandbox's session file: written whole or not at all, and checked when it is read.

Standard library only.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.core.words import SessionFiles
from agent.engines.files import FileRules, FilesReport, SessionFolder, damaged, how_broken

# OpenSSL behind hashlib would cost a small worker half a megabyte.
try:
    from _sha256 import sha256  # type: ignore[import-not-found]
except ImportError:
    from hashlib import sha256

NAME = "sandbox.json"


class SessionDamagedError(Exception):
    """The file is there and cannot be trusted; its message says what is wrong."""


@dataclass(frozen=True, slots=True)
class SessionFile:
    """What the phone and we agreed on."""

    paired: bool = False
    account: str = ""
    device: str = ""
    counter: int = 0


def read_session(folder: Path) -> SessionFile | None:
    """None when there is no file; SessionDamagedError when there is one that is not whole;
    OSError when it cannot be read."""
    try:
        raw = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return None
    return _parse(raw)


def _parse(raw: bytes) -> SessionFile:
    try:
        content: dict[str, Any] = json.loads(raw)
        if content.pop("checksum") != _checksum(content):
            raise SessionDamagedError("its checksum does not fit its content")
        if (version := content.pop("version")) != 1:
            raise SessionDamagedError(f"its version is {version!r:.40}, not 1")
        return SessionFile(**content)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise SessionDamagedError(how_broken(raw, error)) from error


def check(folder: SessionFolder, _paired: bool) -> FilesReport:
    raw = folder.read(NAME)
    if raw is None:
        return FilesReport(SessionFiles.UNPAIRED)
    try:
        session = _parse(raw)
    except SessionDamagedError as error:
        return damaged(folder.path / NAME, str(error))
    return FilesReport(SessionFiles.WHOLE if session.paired else SessionFiles.UNPAIRED)


def lost_store(folder: Path) -> str:
    """Why this folder cannot hold a pairing; "" where it may."""
    try:
        session = read_session(folder)
    except (SessionDamagedError, OSError):
        return ""
    if session is None:
        return f"{folder / NAME} is missing"
    return "" if session.paired else f"{folder / NAME} holds no pairing"


def write_session(folder: Path, session: SessionFile) -> None:
    """Replace the file in one step; a folder that is gone is an OSError, never made anew."""
    content: dict[str, Any] = {"version": 1, **asdict(session)}
    content["checksum"] = _checksum(content)
    write_whole(folder / NAME, json.dumps(content, sort_keys=True).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write beside, flush to the disk, rename: a kill or a full disk leaves the old file."""
    beside = path.with_name(f".{path.name}.tmp")
    rights = path.parent.stat().st_mode & 0o660
    file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, rights)
    try:
        with open(file, "wb") as stream:  # noqa: PTH123 - a descriptor
            stream.write(content)
            stream.flush()
            os.fsync(file)
        beside.rename(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _checksum(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return str(sha256(text.encode()).hexdigest())


RULES = FileRules(check, lost_store)
