"""The identity of this worker: its folder, the agent's files in it, its lock. Never writes."""

import fcntl
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import errors, files, instance_file
from agent.core.words import AGENT_SETTINGS, InstanceId, parse_instance_id


@dataclass(frozen=True, slots=True)
class Identity:
    """The agent's record of this instance, as the worker reads it."""

    id: InstanceId
    folder: Path
    engine: str
    settings: Mapping[str, Any] = field(repr=False)
    ended: str = ""
    """Why this worker may not log in, such as a ban: another one starts later; "" = it may."""
    paired: bool = False
    """True if a phone was linked, as far as the agent heard."""
    account: str = ""
    """The account of the linked phone; "" = not known."""
    leased: bool = False
    lineage: str = ""
    of_rooms: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Room → the settings of its part in a worker."""


def read_identity(id_text: str, session_root: Path) -> Identity:
    """Read the identity of an instance. ConfigError or FolderUnusable: a restart alone would not
    cure it."""
    try:
        id = parse_instance_id(id_text)
    except errors.InvalidRequest as error:
        raise errors.ConfigError(str(error), field="id", code=error.code) from error
    folder = session_root / id
    path = folder / instance_file.NAME
    try:
        file = instance_file.parse_instance_file(_read(path), id)
    except ValueError as error:
        raise errors.FolderUnusable(f"cannot use {path}: {error}") from error
    # Without what the agent reads itself.
    settings = {name: it for name, it in file.settings.items() if name not in AGENT_SETTINGS}
    own = (id, folder, file.engine, settings, file.ended, file.paired, file.account)
    return Identity(*own, leased=file.leased, lineage=file.lineage, of_rooms=file.of_rooms)


def refuse_foreign_group(folder: Path) -> None:
    """The unit binds the folder as root and follows a link that the agent's user put in its place.

    So what lies elsewhere on the machine can stand here. The agent's own folders have the group
    that the worker runs in; the owner cannot be told, the unit's user namespace hides it.
    """
    status = folder.stat(follow_symlinks=False)
    if os.environ.get("WA_OWN_GROUP_ONLY") == "yes" and status.st_gid != os.getegid():
        raise errors.FolderUnusable(
            f"cannot use {folder}: it belongs to group {status.st_gid}, this worker is in group"
            f" {os.getegid()}; if it is a link, remove it, else: chgrp -R wa {folder}"
        )


@contextmanager
def lock_held(folder: Path, lineage: str = "") -> Iterator[None]:
    """Hold the instance's lock: two workers on one session would ruin each other's keys. A copy of
    the folder, wherever it lies, has the same `lineage`: its name is taken on this machine."""
    try:
        file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o660)
    except OSError as error:
        raise errors.FolderUnusable(f"cannot open {_shown(folder / 'lock', error)}") from error
    with ExitStack() as held:
        held.callback(os.close, file)
        try:
            held.enter_context(files.folder_locked(folder))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lineage:
                _hold(f"\0wa-agent/session/{lineage[:40]!a}", held)
        except OSError as error:
            why = f"cannot lock {folder}: another worker holds this session ({error.strerror})"
            raise errors.TryLater(why, code="locked") from error
        yield


def _hold(name: str, held: ExitStack) -> None:
    """BlockingIOError: a process of this user, or of root, has the name. One of another user, who
    may have taken it on purpose, does not count."""
    mine = held.enter_context(socket.socket(socket.AF_UNIX))
    other = held.enter_context(socket.socket(socket.AF_UNIX))
    other.setblocking(False)  # a full queue must not block this worker
    with suppress(ConnectionRefusedError):
        other.connect(name)
        peer = other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if memoryview(peer).cast("i")[1] in (0, os.geteuid()):
            raise BlockingIOError(0, "in a copy of its folder")
    with suppress(OSError):
        mine.bind(name)
        mine.listen()


def engine_folder(folder: Path, name: str) -> Path:
    """Return the engine's own folder, made with its parent's rights if it is not there yet."""
    own = folder / name
    try:
        own.mkdir(mode=0o700)
        own.chmod(folder.stat().st_mode & 0o770)
    except FileExistsError:
        pass
    except OSError as error:
        raise errors.FolderUnusable(f"cannot make {own}: {_shown(folder, error)}") from error
    return own


def _read(path: Path) -> bytes:
    opening = path.parent
    try:
        with files.opened(opening, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) as parent:
            opening = path
            with files.open_plain(path.name, within=parent) as stream:
                return stream.read(instance_file.LARGEST + 1)
    except OSError as error:
        raise errors.FolderUnusable(f"cannot open {_shown(opening, error)}") from error


def _shown(path: Path, error: OSError) -> str:
    """Return the path, the cause, and for a matter of rights the file's owner."""
    text = f"{path}: {error.strerror}"
    if isinstance(error, PermissionError):
        with suppress(OSError):
            status = path.lstat()
            rights = f"owner {status.st_uid}:{status.st_gid}, mode {status.st_mode & 0o7777:04o}"
            text += f" ({rights}; this worker is {os.geteuid()}:{os.getegid()})"
    return text
