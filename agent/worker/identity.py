"""Who this worker is: its folder, its `instance.json`, its lock. Reads, never writes them."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.model import AGENT_SETTINGS, InstanceId, parse_instance_id
from agent.errors import ConfigError, InvalidRequest, TryLater

_SIZE_LIMIT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Identity:
    """What the agent wrote down of this instance."""

    id: InstanceId
    folder: Path
    engine: str
    settings: Mapping[str, Any]


def read_identity(id_text: str, session_root: Path) -> Identity:
    """Raise ConfigError for everything that a restart would not cure."""
    try:
        id = parse_instance_id(id_text)
    except InvalidRequest as error:
        raise ConfigError(str(error), field="id", code=error.code) from error
    folder = session_root / id
    told = _parse(_read(folder), folder)
    if told.get("version") != 1:
        raise _broken(folder, f"version {told.get('version')!r:.40} is not 1")
    if told.get("id") != id:
        raise _broken(folder, f"it is about {told.get('id')!r:.60}")
    engine, settings = told.get("engine"), told.get("settings", {})
    if not isinstance(engine, str) or not isinstance(settings, dict):
        raise _broken(folder, "engine or settings is missing or of a wrong type")
    own = {name: value for name, value in settings.items() if name not in AGENT_SETTINGS}
    return Identity(id, folder, engine, own)


@contextmanager
def lock_held(folder: Path) -> Iterator[None]:
    """Hold the instance's lock: two workers on one session would ruin each other's keys."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        file = os.open(folder / "lock", flags, 0o660)
    except OSError as error:
        raise ConfigError(f"cannot open {_shown(folder / 'lock', error)}") from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TryLater(
                f"cannot lock {folder}: another worker holds this session", code="locked"
            ) from error
        yield
    finally:
        os.close(file)


def session_folder(folder: Path) -> Path:
    """The engine's own folder, made with its parent's rights when it is not there yet."""
    session = folder / "session"
    try:
        session.mkdir(mode=0o700)
        session.chmod(folder.stat().st_mode & 0o770)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(f"cannot make {session}: {_shown(folder, error)}") from error
    return session


def _read(folder: Path) -> bytes:
    try:
        parent = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"cannot open folder {_shown(folder, error)}") from error
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open("instance.json", flags, dir_fd=parent)
        with open(file, "rb") as stream:  # noqa: PTH123 - a descriptor
            return stream.read(_SIZE_LIMIT + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot open {_shown(folder / 'instance.json', error)}", code="bad_identity"
        ) from error
    finally:
        os.close(parent)


def _parse(text: bytes, folder: Path) -> dict[str, Any]:
    if len(text) > _SIZE_LIMIT:
        raise _broken(folder, "it is too large")
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _broken(folder, str(error)) from error
    if not isinstance(told, dict):
        raise _broken(folder, "it is not an object")
    return told


def _shown(path: Path, error: OSError) -> str:
    """The path, the cause, and for a matter of rights whose the file is."""
    text = f"{path}: {error.strerror}"
    if isinstance(error, PermissionError):
        with suppress(OSError):
            found = path.lstat()
            text += (
                f" (owner {found.st_uid}:{found.st_gid}, mode {found.st_mode & 0o7777:04o};"
                f" this worker is {os.geteuid()}:{os.getegid()})"
            )
    return text


def _broken(folder: Path, why: str) -> ConfigError:
    return ConfigError(f"cannot use {folder / 'instance.json'}: {why}", code="bad_identity")
