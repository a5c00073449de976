"""The sandbox's session file: written whole or not at all, checked when read. Standard library
only."""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.core.words import SessionFiles
from agent.engines.files import (
    FileRules,
    FilesReport,
    Linked,
    SessionFolder,
    damaged,
    how_broken,
)
from agent.errors import EngineError
from agent.files import open_plain, write_whole

NAME = "sandbox.json"


@contextmanager
def saving(what: str, kind: type[Exception] = OSError) -> Iterator[None]:
    """An error of this kind is raised as the EngineError of a session that cannot save."""
    try:
        yield
    except kind as error:
        raise EngineError(f"cannot {what}: {error}", code="save_failed") from error


class SessionDamagedError(Exception):
    """The file is there and cannot be trusted; its message says what is wrong."""


@dataclass(frozen=True, slots=True)
class SessionFile:
    """What the phone and we agreed on."""

    device: str
    paired: bool = False
    account: str = ""


def read_session(folder: Path) -> SessionFile | None:
    """None when there is no file; SessionDamagedError when it is not whole; OSError when it cannot
    be read."""
    try:
        with open_plain(folder / NAME) as file:
            return _parse(file.read())
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EINVAL):
            raise
        raise SessionDamagedError(f"{folder / NAME} is a link, or no regular file") from error


def _parse(raw: bytes) -> SessionFile:
    try:
        return SessionFile(**json.loads(raw))
    except (ValueError, TypeError, RecursionError) as error:
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
    """Replace the file in one step; a folder that is gone is an OSError, never made again."""
    write_shared(folder / NAME, json.dumps(asdict(session)).encode())


def write_shared(path: Path, content: bytes) -> None:
    """Replace a file, with as many rights as its folder gives the agent's group."""
    write_whole(path, content, mode=path.parent.stat().st_mode & 0o660)


def linked(folder: SessionFolder) -> Linked:
    try:
        session = _parse(folder.read(NAME) or b"")
    except SessionDamagedError:
        return Linked()
    return Linked(session.account, session.device) if session.paired else Linked()


RULES = FileRules(check, lost_store, linked=linked)
