"""All log sources of a backend, each read by a task of its own. Reading and parsing happen in
threads and take at most half of a processor; findings of a flood are limited and counted."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.engines.tasks import Tasks, in_thread
from agent.engines.whaticket.keys.files import read_json, write_json
from agent.engines.whaticket.logs.programs import Program
from agent.engines.whaticket.logs.stream import Batch
from agent.engines.whaticket.logs.tail import LogTail
from agent.engines.whaticket.settings import Source, WhaticketSettings
from agent.errors import EngineError

log = logging.getLogger(__name__)

POLL = 0.5
SAVE_EVERY = 5.0
STALE = 600.0
"""Seconds; what was written while we were away for longer is no news."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_LASTING = 60.0
_SAVE_AT_LEAST = 60.0


@dataclass(slots=True)
class SourceState:
    """The state of one source, for people."""

    source: Source
    trouble: str = ""
    lines: int = 0
    passed_over: int = 0
    where: Callable[[], dict[str, Any]] = field(default=dict)


class Logs:
    """`take` gets every batch; `crashed` what none of this foresaw."""

    def __init__(
        self,
        settings: WhaticketSettings,
        folder: Path,
        take: Callable[[Batch], None],
        crashed: Callable[[BaseException], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._file = folder / "logs.json"
        self._take = take
        self._clock = clock
        self.states = [SourceState(source) for source in settings.logs]
        self._tasks = Tasks(crashed)
        self._saved: Any = None
        self._saved_wall = 0.0

    async def open(self) -> None:
        positions = await asyncio.to_thread(self._read_positions)
        for state in self.states:
            where = positions.get(str(state.source))
            where = where if isinstance(where, dict) else {}
            watching = state.source.kind in ("journal", "command")
            work = self._run_program(state, where) if watching else self._follow(state, where)
            self._tasks.start(work, f"log {state.source}")
        if self.states:
            self._tasks.start(self._save_often(), "log positions")

    async def close(self) -> None:
        if await self._tasks.cancel():
            await self.save()

    def troubles(self) -> list[str]:
        return [state.trouble for state in self.states if state.trouble]

    async def save(self) -> None:
        sources = {str(state.source): state.where() for state in self.states}
        state = {"version": 1, "sources": sources}
        wall = self._clock()
        if state == self._saved and 0 <= wall - self._saved_wall < _SAVE_AT_LEAST:
            return
        self._saved, self._saved_wall = state, wall
        try:
            await asyncio.to_thread(write_json, self._file, {**state, "wall": wall})
        except EngineError as error:
            log.warning("%s", error)

    async def _follow(self, state: SourceState, positions: dict[str, Any]) -> None:
        source = state.source
        chosen = self._settings
        follower = LogTail(source.kind, source.what, chosen.log_session, positions, chosen.patterns)
        state.where = follower.positions
        try:
            while True:
                begun = time.monotonic()
                batch = await in_thread(follower.poll, begun)
                self._note(state, batch)
                self._say(state, follower.trouble)
                took = time.monotonic() - begun
                # Half of one processor at most, however fast a log grows.
                await asyncio.sleep(took if batch.more else max(POLL, took))
        finally:
            last = follower.positions()
            state.where = lambda: last
            follower.close()

    async def _run_program(self, state: SourceState, positions: dict[str, Any]) -> None:
        program = Program(state.source, self._settings.log_session, self._settings.patterns)
        cursor = positions.get("cursor")
        program.cursor = cursor if isinstance(cursor, str) else ""
        state.where = lambda: {"cursor": program.cursor}
        pause = _FIRST_PAUSE
        while True:
            begun = time.monotonic()
            lines = state.lines
            try:
                async with contextlib.aclosing(program.run()) as batches:
                    async for batch in batches:
                        self._note(state, batch)
                        if program.complaint or time.monotonic() - begun > _FIRST_PAUSE:
                            self._say(state, _complaint(state.source, program.complaint))
                self._say(state, f"cannot read {state.source}: its program ended")
            except EngineError as error:
                self._say(state, str(error))
            if state.lines == lines and program.cursor and program.complaint:
                program.cursor = ""  # the journal no longer holds that place
            pause = _FIRST_PAUSE if time.monotonic() - begun > _LASTING else pause
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _note(self, state: SourceState, batch: Batch) -> None:
        state.lines += batch.lines
        state.passed_over += batch.passed_over
        if batch.passed_over:
            log.warning("%d bytes of %s were skipped", batch.passed_over, state.source)
        if batch.errors or batch.turns:
            self._take(batch)

    def _say(self, state: SourceState, trouble: str) -> None:
        if trouble and trouble != state.trouble:
            log.warning("%s", trouble)
        state.trouble = trouble

    def _read_positions(self) -> dict[str, Any]:
        raw = read_json(self._file)
        if not isinstance(raw, dict) or raw.get("version") != 1:
            return {}
        wall, sources = raw.get("wall"), raw.get("sources")
        if not isinstance(wall, int | float) or not isinstance(sources, dict):
            return {}
        return sources if 0 <= self._clock() - wall < STALE else {}

    async def _save_often(self) -> None:
        while True:
            await asyncio.sleep(SAVE_EVERY)
            await self.save()


def _complaint(source: Source, complaint: str) -> str:
    return f"cannot read all of {source}: {complaint}" if complaint else ""
