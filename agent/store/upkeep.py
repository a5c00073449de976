"""The store's own upkeep: bound its history, keep a reserve on the disk."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from sqlite_utils import Database

from agent.store import reserve as ballast
from agent.store.journal import Bounds, trim

EVERY = 100
"""Commits between two looks."""


class Upkeep:
    """Its two methods run in the writer's thread; `on_full` is called in the loop."""

    def __init__(self, path: Path, bounds: Bounds, now_wall: Callable[[], float]) -> None:
        self.on_full: Callable[[], None] = lambda: None
        self._path = path
        self._bounds = bounds
        self._now_wall = now_wall
        self._loop = asyncio.get_running_loop()
        self._commits = 0
        self._without_reserve = True
        """It was freed, or has not been looked at yet."""

    def tidy(self, db: Database) -> None:
        """Called at the end of each transaction, inside it."""
        if self._without_reserve:
            self._without_reserve = not ballast.lay_in(self._path)
        self._commits += 1
        if self._commits < EVERY:
            return
        went = trim(db, self._bounds, self._now_wall())
        # If more than one step is to be deleted, the next commit goes on with it.
        self._commits = 0 if went < self._bounds.step else EVERY
        self._without_reserve = True  # looked at again: anybody may have removed the file

    def make_room(self) -> bool:
        """The disk is full: True when the reserve could be freed."""
        if not ballast.free(self._path):
            return False
        self._without_reserve = True
        self._loop.call_soon_threadsafe(self.on_full)
        return True
