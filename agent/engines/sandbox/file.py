"""The sandbox's session file: written whole or not at all, and checked when it is read."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
        text = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return None
    try:
        told: dict[str, Any] = json.loads(text)
        checksum = told.pop("checksum")
        if checksum != _checksum(told):
            raise SessionDamagedError("the checksum does not match")
        if told.pop("version") != 1:
            raise SessionDamagedError("it is of another version")
        return SessionFile(**told)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise SessionDamagedError(f"it is not a session file: {error}") from error


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
    told: dict[str, Any] = {"version": 1, **asdict(session)}
    told["checksum"] = _checksum(told)
    write_whole(folder / NAME, json.dumps(told, sort_keys=True).encode())


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


def _checksum(told: dict[str, Any]) -> str:
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return str(sha256(text.encode()).hexdigest())
