"""One agent per state directory, and per folder of sessions."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from agent.errors import ConfigError, TryLater
from agent.files import folder_locked


@contextlib.contextmanager
def only_agent(state: Path) -> Iterator[None]:
    """Lock the state directory: two agents on one machine's sessions would fight."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(state / "lock", flags, 0o600)
    except OSError as error:
        if error.errno == errno.EROFS and not state.exists():
            raise ConfigError(
                f"cannot use {state} as state directory: it does not exist, and this program may"
                " not make it; make it yourself, and where systemd runs the agent, name it in"
                " ReadWritePaths= of wa-agent.service"
            ) from error
        cure = "move away what is in its way, or point [agent] state_path elsewhere"
        raise ConfigError(f"cannot use {state} as state directory: {error}; {cure}") from error
    with contextlib.ExitStack() as held:
        held.callback(os.close, fd)
        try:
            held.enter_context(folder_locked(state))
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 20, 0).decode(errors="replace").strip() or "unknown"
            raise TryLater(
                f"cannot use {state}: another agent runs on it (process {holder})", code="locked"
            ) from None
        with contextlib.suppress(OSError):  # a full disk: the lock holds without the number
            os.ftruncate(fd, os.pwrite(fd, f"{os.getpid()}\n".encode(), 0))
        yield


@contextlib.contextmanager
def only_of_sessions(root: Path) -> Iterator[None]:
    """Lock the folder of the sessions: two agents with a state directory each may name the same."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(folder_locked(root))
        except BlockingIOError:
            raise TryLater(
                f"cannot use the sessions in {root}: another agent runs them, with another state"
                " directory; give this one a session_storage_path of its own",
                code="locked",
            ) from None
        yield
