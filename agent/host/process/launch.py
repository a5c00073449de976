"""Start a worker's process: its environment and the spawn itself."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from signal import SIGCHLD, SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGXFSZ

# For the agent alone: its own manager's socket, its sockets, its settings.
_AGENTS_OWN = (
    *("INVOCATION_ID", "JOURNAL_STREAM", "LISTEN_", "NOTIFY_SOCKET", "RUNTIME_DIRECTORY"),
    *("WATCHDOG_", "WA_AGENT_"),
)
_DEFAULTS_AGAIN = (SIGHUP, SIGINT, SIGTERM, SIGPIPE, SIGCHLD, SIGXFSZ)


@dataclass(frozen=True, slots=True)
class Places:
    run_dir: Path
    session_root: Path
    cache_root: Path | None = None
    """None = beside the sessions, as a worker finds by itself."""
    members_root: Path | None = None
    """Of the sessions that one worker may hold several of."""

    def environment(self, folder: Path, run: str, watchdog: float) -> dict[str, str]:
        """The same variables that systemd sets."""
        paths = {
            "WA_CACHE_PATH": self.cache_root,
            "WA_MEMBERS_ROOT": self.members_root,
            "WA_SESSION_ROOT": self.session_root,
            "NOTIFY_SOCKET": folder / "notify",
            "RUNTIME_DIRECTORY": folder,
        }
        ours = os.environ.items()
        return {
            **{name: value for name, value in ours if not name.startswith(_AGENTS_OWN)},
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
