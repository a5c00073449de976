"""Start a worker's process: its environment and the spawn itself."""

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.core.model import InstanceId

# For the agent alone: its own manager's socket, its sockets, its settings.
_AGENTS_OWN = {
    *("INVOCATION_ID", "JOURNAL_STREAM", "LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID"),
    *("NOTIFY_SOCKET", "RUNTIME_DIRECTORY", "WATCHDOG_PID", "WATCHDOG_USEC"),
}
_DEFAULTS_AGAIN = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGTERM),
    *(signal.SIGPIPE, signal.SIGCHLD, signal.SIGXFSZ),
)


@dataclass(frozen=True, slots=True)
class Places:
    run_dir: Path
    session_root: Path
    cache_root: Path | None = None
    """None = beside the sessions, as a worker finds by itself."""
    members_root: Path | None = None
    """Of the sessions that one worker may hold several of."""

    def folder(self, instance: InstanceId) -> Path:
        return self.run_dir / instance


def worker_environment(
    instance: InstanceId, run: str, places: Places, watchdog: float
) -> dict[str, str]:
    """The same variables that systemd sets."""
    paths = {
        "WA_CACHE_PATH": places.cache_root,
        "WA_MEMBERS_ROOT": places.members_root,
        "WA_SESSION_ROOT": places.session_root,
        "NOTIFY_SOCKET": places.folder(instance) / "notify",
        "RUNTIME_DIRECTORY": places.folder(instance),
    }
    passed_on = {
        name: value
        for name, value in os.environ.items()
        if name not in _AGENTS_OWN and not name.startswith("WA_AGENT_")
    }
    return {
        **passed_on,
        **{name: str(path.absolute()) for name, path in paths.items() if path is not None},
        "WATCHDOG_USEC": str(round(watchdog * 1_000_000)),
        "INVOCATION_ID": run,
        "PYTHONUNBUFFERED": "1",
        "MALLOC_ARENA_MAX": "1",
    }


def spawn(arguments: list[str], environment: Mapping[str, str], out: int) -> int:
    """A fresh Python in a session of its own; returns its pid. Output and errors go to `out`."""
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", *arguments],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, out, 1),
            (os.POSIX_SPAWN_DUP2, out, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=_DEFAULTS_AGAIN,
    )
