"""Why a session fails, for an operator: its worker's last lines, failed starts."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from agent.core.model import InstanceId
from agent.host.base import Host
from agent.redaction import redact
from agent.supervise.periodic.usage import UsageSampler
from agent.vault.diagnostics import FailedStart, list_failed_starts, read_picture

LINES = 60
_TAIL = 64 << 10


@dataclass(frozen=True, slots=True)
class WorkerLines:
    lines: list[str] | None
    """None where the agent may not read them; then `command` shows them."""
    command: str


@dataclass(frozen=True, slots=True)
class Evidence:
    host: Host
    session_root: Path
    sampler: UsageSampler

    async def measure(self, id: InstanceId) -> None:
        await self.sampler.measure_now(id)

    def watch(self) -> None:
        self.sampler.watch()

    async def worker_lines(self, id: InstanceId) -> WorkerLines:
        path = self.host.log_path(id)
        if path is None:
            return WorkerLines(None, f"journalctl -u wa-instance@{id} -n {LINES}")
        lines = await asyncio.to_thread(_last_lines, path)
        return WorkerLines(lines, f"tail -n {LINES} {path}")

    async def failed_starts(self, id: InstanceId) -> list[FailedStart]:
        return await asyncio.to_thread(list_failed_starts, self.session_root, id)

    async def picture(self, id: InstanceId, name: str) -> bytes:
        return await asyncio.to_thread(read_picture, self.session_root, id, name)


def _last_lines(path: Path) -> list[str]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _TAIL, 0))
            text = file.read(_TAIL).decode(errors="replace")
    except OSError:
        return []
    return [redact(line) for line in text.splitlines()[-LINES:]]
