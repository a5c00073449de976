"""The spool of one session, used by one thread at a time: it takes records in, gives pages of them
out, and lets the oldest go. A cursor is given once and never again, whatever is lost."""

import json
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.clock import boot_now, wall_at_boot
from agent.failpoint import failpoint
from agent.wings.messages.spool.folder import LARGEST_CURSOR, Folder, State, write_all
from agent.wings.messages.spool.holes import MOST as MOST_HOLES
from agent.wings.messages.spool.holes import Hole
from agent.wings.messages.spool.line import Entry, Line, write_line
from agent.wings.messages.spool.opening import open_folder
from agent.wings.messages.spool.page import MOST_LINES, Bounds, Page
from agent.wings.messages.spool.reading import Pages
from agent.wings.messages.spool.segment import Segment, lines_from

LARGEST = 4 << 20
"""Bytes after which a segment gets no more lines."""
SHARE = 16
"""What is kept lies in so many segments at least: one of them goes at a time."""
_FAR = 1_000_000
"""Cursors: who is further behind an earlier spool is told nothing of it."""


class Spool:
    def __init__(self, path: Path, bounds: Bounds, owner: str = "") -> None:
        self.bounds = bounds
        self.owner = owner
        """The id of its session."""
        self.foreign: list[str] = []
        """What stood in the folder's place and was not this session's: sentences."""
        self.damaged: list[str] = []
        """Segments that were set aside since this worker began, by the name they have now."""
        self.folder = Folder(path)
        self._state = State()
        self._segments: list[Segment] = []
        self._pages = Pages(self.folder, self._state, self._segments)
        self._next = 0
        """The next cursor; 0 = the folder was not looked at yet."""
        self._file: int | None = None
        """Of the last segment, while it takes lines."""
        self._sound = True
        """No write failed since it was begun."""
        self._opened_wall = self._opened_at = 0.0
        self._given = 0
        """The first cursor that this worker gave, or will."""

    @property
    def newest(self) -> int:
        """Cursor of the last one that was kept; one below the first that will be."""
        self.open()
        return self._next - 1

    @property
    def there(self) -> bool:
        """Whether anything was ever kept."""
        return self.folder.path.is_dir()

    def open(self) -> None:
        """Look at what is there, once."""
        if self._next:
            return
        if why := self.folder.find_foreign(self.owner):
            aside = self.folder.set_aside()
            self.foreign.append(f"{self.folder.path.name} is kept as {aside}: {why}")
        self._opened_wall, self._opened_at = time.time(), boot_now()
        opened = open_folder(self.folder, self.owner)
        self._state, self._segments, self._next = opened.state, opened.segments, opened.next
        self._pages = Pages(self.folder, self._state, self._segments)
        self.damaged = opened.damaged
        self._given = self._next

    def go_above(self, cursor: int) -> None:
        """A reader may have this cursor of another spool: one that was here before, or a newer one
        than this, which was put back from a copy. What is given from here on is above it, and so is
        again what this worker gave before it knew."""
        self.open()
        state = self._state
        if cursor >= LARGEST_CURSOR:
            return  # no spool gave it
        if cursor > self.newest:
            again = [Entry(line.id, line.body) for line, _ in self._pages.lines(self._given)]
            # The hole that this opening made: cursors of it were given.
            state.holes = [it for it in state.holes if it.first != self._given]
            self._next = self._given = cursor + 1
            for begin in range(0, len(again), self._most_lines):
                self._write(again[begin : begin + self._most_lines])
        elif hole := next((it for it in state.holes if it.after < cursor < it.first - 1), None):
            # It is a copy, and this much came after it.
            state.holes[state.holes.index(hole)] = hole._replace(after=cursor)
            self._save()
        elif cursor < state.origin - 1 and all(it.after != cursor for it in state.holes):
            state.holes = [Hole(cursor, state.origin), *state.holes][:MOST_HOLES]
        if cursor < state.origin or not self._segments:
            state.counted = max(state.counted, state.origin if self._segments else self._next)
            state.origin = max(cursor - _FAR, 1)
            self._save()

    def append(self, entries: Iterable[Entry]) -> int:
        """Return when all are on the disk; how many are new. OSError: not all are."""
        self.open()
        new = {entry.mark: entry for entry in entries if not self._has(entry.mark)}
        fresh = list(new.values())
        for begin in range(0, len(fresh), self._most_lines):
            self._write(fresh[begin : begin + self._most_lines])
        if new:
            self.trim(by_age=False)
        return len(new)

    def page(self, after: int, limit: int) -> Page:
        """What follows the cursor `after`: 0 = from the oldest; beyond the newest = nothing yet."""
        self.open()
        return self._pages.page(after, limit, self.newest)

    def files(self) -> list[tuple[str, int, int]]:
        """Newest first: name, bytes, and the cursor behind its last line."""
        self.open()
        whole = [segment for segment in reversed(self._segments) if segment.count]
        return [(segment.name, segment.size, segment.next) for segment in whole]

    def lines_with(self, name: str, size: int, words: Sequence[bytes]) -> list[Line]:
        """The lines of one file in which one of these words stands; none where it is gone."""
        with suppress(OSError), self.folder.open(name) as file:
            return [line for _, line in lines_from(file, 0, size, words)]
        return []

    def find(self, id: str) -> dict[str, Any] | None:
        """The record of that id, with what no reader gets; None: it is not kept."""
        self.open()
        raw = json.dumps(id).encode()
        for segment in reversed(self._segments):
            if segment.has(hash(raw)):
                for line in self.lines_with(segment.name, segment.size, [raw]):
                    if line.id == raw:
                        return line.whole()
        return None

    def settle(self, cursor: int) -> None:
        """All up to it were delivered."""
        self.open()
        cursor = min(cursor, self.newest)
        if cursor > self._state.settled:
            self._state.settled = cursor
            self._save()

    def trim(self, *, by_age: bool = True) -> None:
        """Let the oldest go while a bound is passed."""
        self.open()
        due = self.due if by_age else 0.0
        if self._segments and self._segments[-1].count and self._segments[-1].ended < due:
            with suppress(OSError):  # a full disk: it goes another time
                self._roll()
        while len(self._segments) > 1 and self._is_over(due):
            self._drop(self._segments[0])

    def state(self) -> dict[str, Any]:
        self.open()
        kept = [segment for segment in self._segments if segment.count]
        first = max(self._state.settled + 1, self._pages.oldest(self.newest))
        return {
            "waiting": sum(max(0, each.next - max(first, each.first)) for each in kept),
            "bytes": sum(each.size for each in kept),
            "oldest_at": kept[0].begun if kept else 0.0,
            "newest": self.newest,
            "lost": self._state.lost,
            "holes": [[hole.after, hole.first] for hole in self._state.holes],
        }

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @property
    def due(self) -> float:
        """What was kept before that wall time is too old."""
        # Not the wall clock, which jumps: a session would lose all that waits in it.
        now_wall = self._opened_wall + boot_now() - self._opened_at
        return now_wall - self.bounds.hours * 3600

    @property
    def _most_lines(self) -> int:
        return max(1, min(MOST_LINES, self.bounds.most // SHARE))

    @property
    def _largest(self) -> float:
        return min(LARGEST, self.bounds.megabytes * (1 << 20) / SHARE)

    def _has(self, mark: int) -> bool:
        return any(segment.has(mark) for segment in reversed(self._segments))

    # writing

    def _write(self, entries: Sequence[Entry]) -> None:
        segment, file = self._ready()
        kept, first = round(time.time(), 3), self._next
        lines = [write_line(first + n, kept, entry) for n, entry in enumerate(entries)]
        try:
            write_all(file, b"".join(lines), segment.size)
            failpoint("spool_written")
            os.fdatasync(file)
        except BaseException:
            self._take_back(segment)
            raise
        failpoint("spool_kept")
        for number, (entry, raw) in enumerate(zip(entries, lines, strict=True)):
            line = Line(first + number, kept, entry.id, b"")
            segment.add(line, segment.size + len(raw), entry.mark)
        self._next = segment.next

    def _ready(self) -> tuple[Segment, int]:
        """The segment that takes the next lines, and its file."""
        last = self._segments[-1] if self._segments else None
        if last is not None and self._goes_on(last):
            if self._file is None:
                self._file = self.folder.go_on(last.name)
            # Deleted by somebody, it would take lines that nobody could ever read.
            if os.fstat(self._file).st_nlink:
                return last, self._file
        return self._roll()

    def _goes_on(self, last: Segment) -> bool:
        if not self._sound:
            return False
        full = last.size >= self._largest or last.count >= self._most_lines
        old = last.count and time.time() - last.begun > self.bounds.hours * 3600 / SHARE
        return not full and not old and last.next == self._next

    def _roll(self) -> tuple[Segment, int]:
        """Begin a segment; the one before it stays as it is."""
        if not self.folder.path.is_dir():
            self.folder.make()
        self.close()
        if self._segments and not self._segments[-1].count:
            self._state.inode = ""  # another file gets its name
            self._save()
            self.folder.remove(self._segments.pop().name)
        segment = Segment(self._next)
        self._file = self.folder.begin(segment.name)
        failpoint("spool_begun")
        if self._segments:
            self._segments[-1].seal()
        self._segments.append(segment)
        self._sound = True
        self._state.begun, self._state.bound = segment.first, segment.first + 2 * self._most_lines
        self._state.inode = self.folder.look_at(segment.name)[0]
        self._state.booted = wall_at_boot()
        self._save()
        return segment, self._file

    def _take_back(self, segment: Segment) -> None:
        """After a failed write nobody knows what the disk has: the next lines go into a new file.
        What could not be cut off here is left out when it is read again."""
        if self._file is not None:
            with suppress(OSError):
                os.ftruncate(self._file, segment.size)
        self.close()
        self._sound = False

    def _save(self) -> None:
        with suppress(OSError):  # it is written again with the next change
            self.folder.write_state(self._state)

    # letting go

    def _is_over(self, due: float) -> bool:
        megabytes = sum(segment.size for segment in self._segments) / (1 << 20)
        count = sum(segment.count for segment in self._segments)
        oldest = self._segments[0]
        too_old = oldest.ended < due
        return megabytes > self.bounds.megabytes or count > self.bounds.most or too_old

    def _drop(self, oldest: Segment) -> None:
        self._state.note_dropped(oldest.first, oldest.begun, self._segments[1].first - 1)
        self._save()
        failpoint("spool_dropping")
        del self._segments[0]
        with suppress(OSError):
            self.folder.remove(oldest.name)
