"""Cuts a spool's files into pieces for another machine: what not everybody has yet. It only reads,
also while the session's worker writes; a line that is not whole yet comes with the next look."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from agent.core.fleet.baggage import Packing
from agent.files import open_plain
from agent.wings.messages.spool.segment import SUFFIX, first_of, lines_from

PIECE, WHOLE_PIECE = 64 * 1024, 1 << 20
"""Bytes after which one is full: the last one is sent anew with each change. Of a session that was
stopped they are larger."""
MOST = 8 << 20
"""Bytes that are stored of a session that runs; over it the oldest are left out."""
RECENT = 16 << 20
"""Bytes of records that everybody has, and that go along when a session was stopped."""


@dataclass(slots=True)
class Piece:
    """Lines that follow each other in one file."""

    first: int
    last: int
    """Cursors of its first and its last line."""
    file: str
    begin: int
    end: int

    @property
    def name(self) -> str:
        return f"{self.first:016d}"

    @property
    def size(self) -> int:
        return self.end - self.begin


class _Place(NamedTuple):
    file: str
    inode: int
    offset: int


@dataclass(slots=True)
class Cutter:
    """Of one session's spool. Each method works on the disk."""

    folder: Path
    newest: int = 0
    """The last cursor that was seen in it."""
    oldest: int = 0
    """The first one that its files may have."""
    left_out: int = 0
    """Records that not everybody has, and that no piece holds: there were too many."""
    _pieces: list[Piece] = field(default_factory=list)
    _place: _Place | None = None
    _stored: dict[str, int] = field(default_factory=dict)
    """The last cursor of each piece as it was packed."""
    _bounded: bool = False
    """Pieces were left out."""

    def cut(self, settled: int, *, fresh: bool, exact: bool) -> Packing:
        """All that was not delivered, up to the cursor `settled` it was."""
        if fresh or exact or not self._is_in_place():
            self._pieces, self._place, self._stored, self._bounded = [], None, {}, False
        self._read_on(-1 if exact else settled, WHOLE_PIECE if exact else PIECE)
        self._let_go(settled, RECENT if exact else 0)
        if not exact:
            self._bound(settled)
        return self._packing()

    def rest(self, settled: int) -> Packing:
        """Everybody has all of it: nothing is read."""
        self._let_go(settled, 0)
        self._bound(settled)
        return self._packing()

    def _packing(self) -> Packing:
        by_name = {piece.name: piece for piece in self._pieces}
        kept = {name for name, it in by_name.items() if self._stored.get(name) == it.last}
        self._stored = {name: piece.last for name, piece in by_name.items()}
        write = {
            name: partial(_read_part, self.folder / piece.file, piece.begin, piece.end)
            for name, piece in by_name.items()
            if name not in kept
        }
        return Packing(write, frozenset(kept))

    def _is_in_place(self) -> bool:
        """No worker wrote the file anew meanwhile."""
        if self._place is None:
            return True
        with suppress(OSError):
            return (self.folder / self._place.file).stat().st_ino == self._place.inode
        return False

    def _read_on(self, behind: int, full: int) -> None:
        names = _segments(self.folder)
        files = sorted(name for name, first in names.items() if first is not None)
        before = [name for name in files if (names[name] or 0) <= behind + 1]
        begin = max([*before[-1:], self._place.file if self._place is not None else ""])
        for name in files:
            if name < begin:
                continue
            with suppress(FileNotFoundError), open_plain(self.folder / name) as file:
                self._read_file(file, name, behind, full)
        if files:  # the last one may have no line yet
            self.oldest = names[files[0]] or 1
            self.newest = max(self.newest, (names[files[-1]] or 1) - 1)

    def _read_file(self, file: IO[bytes], name: str, behind: int, full: int) -> None:
        status = os.fstat(file.fileno())
        place = self._place
        offset = place.offset if place is not None and place.file == name else 0
        piece = self._pieces[-1] if self._pieces else None
        for end, line in lines_from(file, offset, status.st_size):
            self.newest = max(self.newest, line.cursor)
            if line.cursor > behind:
                if piece is None or piece.file != name or piece.size >= full:
                    piece = Piece(line.cursor, line.cursor, name, offset, end)
                    self._pieces.append(piece)
                piece.last, piece.end = line.cursor, end
            offset = end
        self._place = _Place(name, status.st_ino, offset)

    def _let_go(self, settled: int, spare: int) -> None:
        """The last one stays: who sends a message again is known by it."""
        everybody_has = sum(it.size for it in self._pieces if it.last <= settled)
        while len(self._pieces) > 1 and self._pieces[0].last <= settled and everybody_has > spare:
            everybody_has -= self._pieces.pop(0).size

    def _bound(self, settled: int) -> None:
        total = sum(piece.size for piece in self._pieces)
        while total > MOST and len(self._pieces) > 1:
            total -= self._pieces.pop(0).size
            self._bounded = True
        first = self._pieces[0].first if self._pieces and self._bounded else 0
        self.left_out = max(first - max(settled + 1, self.oldest), 0)
        self._bounded = self.left_out > 0


def _read_part(path: Path, begin: int, end: int) -> bytes:
    """Nothing where the worker let the file go meanwhile."""
    with suppress(FileNotFoundError), open_plain(path) as file:
        file.seek(begin)
        return file.read(end - begin)
    return b""


def _segments(folder: Path) -> Mapping[str, int | None]:
    try:
        names = (path.name for path in folder.iterdir())
        return {name: first_of(name) for name in names if name.endswith(SUFFIX)}
    except FileNotFoundError:
        return {}
