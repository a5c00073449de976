"""The sandbox's settings of an instance, and its session file: written whole or not at all, checked
when read. Standard library only."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from agent import errors, files
from agent.core.setting import setting
from agent.core.words import Address, SessionFiles
from agent.engines import base

NETWORK = "network"
"""The file in a session's folder that says until when its network is away (Unix seconds)."""
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """Settings of a sandbox session. Durations are seconds."""

    scan: str = setting(
        "auto",
        "auto = the phone scans by itself; manual = it waits for `wa-agent sandbox scan`",
        choices=("auto", "manual"),
    )
    scan_after: float = setting(
        1.0, "seconds until a phone that scans by itself scans", low=0, high=_DAY
    )
    qr_every: float = setting(20.0, "seconds that one code holds", low=0.05, high=_DAY)
    qr_codes: int = 6
    """Codes of one login; after the last one a new request starts again."""
    messages_per_minute: float = setting(6.0, "messages that come in; 0 = none", low=0, high=6000)
    read_after: float = setting(1.0, "seconds until a contact reads what it got", low=0, high=_DAY)
    login_seconds: float = setting(0.05, "seconds of a login", low=0, high=_DAY)
    sync_seconds: float = setting(0.05, "seconds of the sync after a login", low=0, high=_DAY)
    save_seconds: float = setting(0.0, "seconds of a save before it writes", low=0, high=_DAY)
    account: str = setting("", 'number of the phone; "" = made from the id of the instance')


def read_settings(raw: Mapping[str, object]) -> SandboxSettings:
    return base.read_table(SandboxSettings, raw, "sandbox setting")


def needed_address(_settings: SandboxSettings, folder: Path) -> Address:
    """Return the address. The fault `drop` with an end takes the network of `folder` away."""
    return Address((folder / NETWORK).absolute().as_uri())


NAME = "sandbox.json"


@contextmanager
def saving(what: str, kind: type[Exception] = OSError, where: str = "") -> Iterator[None]:
    """Raise an error of this kind as the EngineError of a session that cannot save."""
    try:
        yield
    except kind as error:
        why = f"cannot {what}{where}: {errors.cause_of(error)}"
        raise errors.EngineError(why, code="save_failed") from error


class SessionDamagedError(Exception):
    """The session's file is there and cannot be trusted; the message says what is wrong."""


class SessionFile(NamedTuple):
    """The pairing, as the phone and the session agreed on it."""

    device: str
    paired: bool = False
    account: str = ""


def read_session(folder: Path) -> SessionFile | None:
    """None when there is no file; SessionDamagedError when it is not whole; OSError when it cannot
    be read, or is no plain file."""
    try:
        with files.open_plain(folder / NAME) as file:
            return _parse(file.read())
    except FileNotFoundError:
        return None


def _parse(raw: bytes) -> SessionFile:
    try:
        return SessionFile(**json.loads(raw))
    except (ValueError, TypeError, RecursionError) as error:
        raise SessionDamagedError(base.how_broken(raw, error)) from error


def check(folder: base.SessionFolder, _paired: bool) -> base.FilesReport:
    raw = folder.read(NAME)
    if raw is None:
        return base.FilesReport(SessionFiles.UNPAIRED)
    try:
        session = _parse(raw)
    except SessionDamagedError as error:
        return base.damaged(folder.path / NAME, str(error))
    return base.FilesReport(SessionFiles.WHOLE if session.paired else SessionFiles.UNPAIRED)


def lost_store(folder: Path) -> str:
    try:
        session = read_session(folder)
    except (SessionDamagedError, OSError):
        return ""
    if session is None:
        return f"{folder / NAME} is missing"
    return "" if session.paired else f"{folder / NAME} holds no pairing"


def write_session(folder: Path, session: SessionFile) -> None:
    """Replace the file in one step; a folder that is gone is an OSError, never made again."""
    write_shared(folder / NAME, json.dumps(session._asdict()).encode())


def write_shared(path: Path, content: bytes) -> None:
    """Replace a file, with as many rights as its folder gives the agent's group."""
    files.write_whole(path, content, mode=path.parent.stat().st_mode & 0o660)


def linked(folder: base.SessionFolder) -> base.Linked:
    try:
        session = _parse(folder.read(NAME) or b"")
    except SessionDamagedError:
        return base.Linked()
    return base.Linked(session.account, session.device) if session.paired else base.Linked()


RULES = base.FileRules(check, lost_store, linked=linked)
