"""The parts of the bundle that need no running agent: logs, units, history."""

import os
import stat
import subprocess
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.cli.doctor.checks import lock_holder
from agent.cli.doctor.database import last_entries, lock_of
from agent.config.config import Config
from agent.core.event_json import show_event
from agent.errors import WaError
from agent.host import units

LINES = 500
"""Of the services' journal, and of each log file."""
BYTES = 256 * 1024
WORKER_LINES = 100
WORKERS = 50
"""Worker logs at most, the last written ones; only the process host has them."""
_SECONDS = 20.0
_OURS = (
    units.AGENT_SERVICE,
    units.AGENT_SOCKET,
    units.AGENT_HTTP_SOCKET,
    units.INSTANCES_SLICE,
    "wa-instance@*.service",
    "wa-pack@*.service",
)
_SHOWN = (
    "Id,LoadState,ActiveState,SubState,Result,ExecMainStatus,ExecMainCode,NRestarts,UnitFileState,"
    "DropInPaths,FragmentPath,NeedDaemonReload,MemoryCurrent,MemoryHigh,MemoryMax,TasksCurrent,"
    "TasksMax,StateChangeTimestamp,InvocationID,StatusText"
)
"""Never Environment=, which may hold a password."""


def machine_parts(config: Config) -> Iterator[tuple[str, str]]:
    """Names in the archive, and their texts."""
    wanted = [word for unit in _OURS for word in ("-u", unit)]
    yield (
        "journal.txt",
        _said(
            "journalctl", "--no-pager", "-q", "-o", "short-iso-precise", "-n", str(LINES), *wanted
        ),
    )
    yield "units.txt", _said("systemctl", "show", "--no-pager", "-p", _SHOWN, *_OURS)
    if own := _own_log(config.agent.state_path):
        yield "agent.log", _tail(own, LINES)
    if config.log.folder:
        for path in sorted(Path(config.log.folder).glob("*.log")):
            yield f"logs/{path.name}", _tail(path, LINES)
    for path in _worker_logs(config.agent.state_path):
        yield f"workers/{path.parent.name}.log", _tail(path, WORKER_LINES)


def _own_log(state: Path) -> Path | None:
    """The log of an agent that was started by hand: the file behind its stderr."""
    try:
        path = Path(f"/proc/{lock_holder(state)}/fd/2").readlink()
        return path if path.is_absolute() and path.is_file() else None
    except OSError:
        return None


def stored_events(state: Path, limit: int) -> dict[str, Any]:
    """The history from the database, while no agent answers."""
    path = state / "agent.db"
    try:
        with lock_of(state) as free:
            if not free:
                return {"missing": "an agent holds the database and does not answer"}
            entries = last_entries(path, limit) if path.exists() else []
    except WaError as error:
        return {"missing": str(error)}
    return {"events": [show_event(entry) for entry in entries], "read_from": str(path)}


def _said(*words: str) -> str:
    try:
        done = subprocess.run(
            words, capture_output=True, timeout=_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"# missing: {error}\n"
    text = (done.stdout or b"").decode(errors="replace")
    complaint = done.stderr.decode(errors="replace").strip()
    return text if not complaint else f"{text}# {words[0]}: {complaint}\n"


def _tail(path: Path, lines: int) -> str:
    """A worker may write in its log's folder: links are not followed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return "# missing: it is no file\n"
            file.seek(max(status.st_size - BYTES, 0))
            return b"".join(deque(file, lines)).decode(errors="replace")
    except OSError as error:
        return f"# missing: {error.strerror or error}\n"


def _worker_logs(state: Path) -> list[Path]:
    def written(path: Path) -> float:
        try:
            return path.stat().st_mtime
        except OSError:
            return 0.0

    logs = [
        path
        for kind in ("run", "run-packs")
        for path in state.glob(f"{kind}/*/worker.log")
        if not path.parent.is_symlink()
    ]
    return sorted(logs, key=written, reverse=True)[:WORKERS]
