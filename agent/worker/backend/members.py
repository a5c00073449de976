"""The wings' parts of the sessions of a backend: one set for each, in a folder of its own."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.core.words import Happening, InstanceId
from agent.errors import TryLater
from agent.worker.identity import engine_folder
from agent.worker.wing_parts import WorkerParts, open_worker_parts

FOLDER = "sessions"
CLOSED_WITHIN = 8.0
"""Seconds that a call waits for them: a disk may hang."""


class MemberParts:
    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """`folder`: the worker's own; `settings`: each wing's, by its name."""
        self._folder, self._settings = folder, settings
        self._open: dict[InstanceId, WorkerParts] = {}
        self._tell: dict[InstanceId, Callable[[Happening], None]] = {}
        self._closing: dict[InstanceId, asyncio.Task[None]] = {}

    def open(self, id: InstanceId, tell: Callable[[Happening], None]) -> WorkerParts:
        """Those that are open go on. TryLater while those of before are still closing: two would
        write the same files."""
        if id in self._closing:
            raise TryLater(f"cannot hold {id}: what it kept is being closed", code="busy")
        self._tell[id] = tell
        if id not in self._open:
            folder = engine_folder(engine_folder(self._folder, FOLDER), id)
            self._open[id] = open_worker_parts(
                folder, id, self._settings, lambda what: self._told(id, what)
            )
        return self._open[id]

    def close(self, id: InstanceId) -> None:
        """What waits for the disk is written first, in the background."""
        parts = self._open.pop(id, None)
        self._tell.pop(id, None)
        if parts is None:
            return
        task = asyncio.get_running_loop().create_task(parts.close(), name=f"close parts of {id}")
        self._closing[id] = task
        task.add_done_callback(lambda _: self._closing.pop(id, None))

    async def closed(self, id: InstanceId) -> None:
        if (task := self._closing.get(id)) is not None:
            await asyncio.wait({task}, timeout=CLOSED_WITHIN)

    async def all_closed(self) -> None:
        for id in list(self._open):
            self.close(id)
        if tasks := set(self._closing.values()):
            await asyncio.wait(tasks, timeout=CLOSED_WITHIN)

    def _told(self, id: InstanceId, what: Happening) -> None:
        if (tell := self._tell.get(id)) is not None:
            tell(what)
