"""Why a session fails, for an operator: its worker's last lines, failed starts."""

import asyncio
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.config.config import Config
from agent.core.model import InstanceId
from agent.daemon.wing_parts import Around, Begin
from agent.metrics.text import Family
from agent.redaction import redact
from agent.wings.evidence.diagnostics import FailedStart, list_failed_starts, read_picture

LINES = 60
_TAIL = 64 << 10
_HEAD = re.compile(r"\[[^]]*\] \[[A-Z]+\] \[[A-Z]+\] \[([^]]*)\] ")
"""Of a worker's line; the session's id is in it."""


@dataclass(frozen=True, slots=True)
class WorkerLines:
    lines: list[str] | None
    """None where the agent may not read them; then `command` shows them."""
    command: str
    next: int = 0
    """Where the next look goes on."""
    cut: bool = False
    """The file was shortened since: lines may be missing before these."""


@dataclass(frozen=True, slots=True)
class Evidence:
    log_path: Callable[[InstanceId], Path | None]
    session_root: Path

    async def worker_lines(self, id: InstanceId, after: int | None = None) -> WorkerLines:
        """The last ones; with `after`, a `next` of before, those that came since."""
        path = self.log_path(id)
        if path is None:
            return WorkerLines(None, f"wa-agent logs {id}")
        # A pack's worker writes the lines of several sessions into one file.
        only = "" if path.parent.name == id else id
        lines, next, cut = await asyncio.to_thread(_read_lines, path, after, only)
        return WorkerLines(lines, f"tail -n {LINES} {path}", next, cut)

    async def failed_starts(self, id: InstanceId) -> list[FailedStart]:
        return await asyncio.to_thread(list_failed_starts, self.session_root, id)

    async def picture(self, id: InstanceId, name: str) -> bytes:
        return await asyncio.to_thread(read_picture, self.session_root, id, name)

    def tasks(self) -> Mapping[str, Begin]:
        return {}

    def reload(self, config: Config) -> None:
        """Nothing of it is set."""

    def samples(self) -> Iterable[tuple[Family, str]]:
        return ()

    def figures(self) -> Any:
        """No trouble reads it."""


def open_part(around: Around) -> Evidence:
    return Evidence(around.log_path, around.config.session_root)


def _read_lines(path: Path, after: int | None, only: str = "") -> tuple[list[str], int, bool]:
    """Whole lines, where to go on, and whether the file is shorter than it was. `only`: the lines
    of this session."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            cut = after is not None and after > size
            begin = max(size - _TAIL, 0) if after is None else 0 if cut else after
            file.seek(begin)
            raw = file.read(_TAIL)
    except OSError:
        return [], 0, False
    # What is written at this moment comes with the next look.
    whole = raw[: raw.rfind(b"\n") + 1] or (raw if len(raw) == _TAIL else b"")
    lines = whole.decode(errors="replace").splitlines()
    lines = _of_session(only, lines) if only else lines
    shown = lines[-LINES:] if after is None else lines
    return [redact(line) for line in shown], begin + len(whole), cut


def _of_session(id: str, lines: Iterable[str]) -> list[str]:
    """With what a line has below it, as the stack of an error."""
    own, found = False, []
    for line in lines:
        if (head := _HEAD.match(line)) is not None:
            own = head[1] == id
        if own:
            found.append(line)
    return found
