"""Makes a spool of the pieces that came from another machine. It works on the disk."""

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from agent.core.fleet.baggage import Journey
from agent.files import sync
from agent.wings.messages.spool.folder import STATE, State
from agent.wings.messages.spool.holes import MOST as MOST_HOLES
from agent.wings.messages.spool.holes import Hole
from agent.wings.messages.spool.line import read_line
from agent.wings.messages.spool.page import MOST_LINES
from agent.wings.messages.spool.segment import Segment
from agent.wings.messages.spool.spool import LARGEST

AHEAD = 10_000_000
"""Cursors that a lost machine may have given after its pieces were stored."""


class Arriving:
    """A spool that is being made; `end` makes it whole."""

    def __init__(self, folder: Path, journey: Journey) -> None:
        self._folder = folder
        self._journey = journey
        self._first = self._next = 0
        """Cursors: of the first line, and behind the last one."""
        self._size = self._lines = 0
        self._file: int | None = None

    def begin(self) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if self._journey.group is not None:
            os.chown(self._folder, -1, self._journey.group)
            self._folder.chmod(0o770)

    def add(self, piece: bytes) -> None:
        """Their lines come in order; those that were there already are left out."""
        for raw in piece.splitlines(keepends=True):
            line = read_line(raw)
            if line is None or line.cursor < self._next:
                continue
            if self._file is None or self._size > LARGEST or self._lines >= MOST_LINES:
                self._roll(line.cursor)
            assert self._file is not None
            _write(self._file, raw)
            self._first = self._first or line.cursor
            self._next, self._size, self._lines = (
                line.cursor + 1,
                self._size + len(raw),
                self._lines + 1,
            )

    def end(self, state: State, oldest: int, newest: int) -> None:
        """`state`: of the spool as it was, with the cursors that it had at most."""
        newest = max(newest, self._next - 1, state.settled)
        first = self._first or newest + 1
        expected = max(state.settled + 1, state.dropped + 1, oldest)
        if expected < first:
            state.lost += first - expected
            state.lost_first = state.lost_first or expected
            state.lost_since = state.lost_since or self._journey.stored_wall
        state.dropped = max(state.dropped, first - 1)
        begins = newest + 1
        if not self._journey.exact:
            # A machine of an older version may have had it in between, and begun with the time.
            begins = max(begins + AHEAD, int(time.time() * 1000))
            hole = Hole(newest, begins, self._journey.stored_wall, time.time(), sure=False)
            state.holes = [*state.holes, hole][-MOST_HOLES:]
            state.unsure += 1
        state.origin = state.origin or first
        state.begun, state.bound, state.inode = begins, begins + 2 * MOST_LINES, ""
        self._roll(begins)
        self._close()
        self._put(STATE, json.dumps(asdict(state)).encode())
        sync(self._folder)

    def _roll(self, cursor: int) -> None:
        self._close()
        self._file = self._open(Segment(cursor).name)
        self._size = self._lines = 0

    def _open(self, name: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(self._folder / name, flags, 0o600)
        if self._journey.group is not None:
            os.fchown(file, -1, self._journey.group)
        os.fchmod(file, self._journey.file_mode)
        return file

    def _close(self) -> None:
        if self._file is not None:
            os.fsync(self._file)
            os.close(self._file)
            self._file = None

    def _put(self, name: str, content: bytes) -> None:
        file = self._open(name)
        try:
            _write(file, content)
            os.fsync(file)
        finally:
            os.close(file)

    def abandon(self) -> None:
        """After a failure; what was made is deleted with its room."""
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
            self._file = None


def _write(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]
