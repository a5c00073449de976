"""One file of the spool: lines of rising cursors, and in memory what stands for each one's id."""

import re
import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

from agent.wings.messages.record import LONGEST
from agent.wings.messages.spool.damage import Damage
from agent.wings.messages.spool.line import BEYOND, Line, read_line

SUFFIX = ".log"
_LONGEST_LINE = LONGEST + 4096
_SHORTEST_LINE = 53
"""Bytes of the line of a record that has nothing but its kind."""
_HEAD = re.compile(rb"[0-9a-f]{8}\t([0-9]{1,16})\t[0-9]+\.[0-9]{3}\t")
"""How a line begins; no record has a tab in it."""


class Segment:
    __slots__ = ("_marks", "_sealed", "begun", "count", "ended", "first", "next", "size")

    def __init__(self, first: int) -> None:
        self.first = self.next = first
        """Cursors: of its first line, and the one after its last."""
        self.size = self.count = 0
        self.begun = self.ended = 0.0
        """When its first and its last line were kept, in Unix seconds."""
        self._marks: set[int] = set()
        self._sealed: memoryview[int] | None = None

    @property
    def name(self) -> str:
        return f"{self.first:016d}{SUFFIX}"

    def add(self, line: Line, end: int, mark: int) -> None:
        """`end`: where it ends in the file."""
        if not self.count:
            self.begun = line.kept
        self.next, self.ended, self.size = line.cursor + 1, line.kept, end
        self.count += 1
        self._marks.add(mark)

    def seal(self) -> None:
        """Its marks so far take eight bytes each from now on."""
        marks = sorted({*self._marks, *(self._sealed or ())})
        self._sealed = memoryview(struct.pack(f"{len(marks)}q", *marks)).cast("q")
        self._marks = set()

    def has(self, mark: int) -> bool:
        if mark in self._marks or self._sealed is None:
            return mark in self._marks
        at = bisect_left(self._sealed, mark)
        return at < len(self._sealed) and self._sealed[at] == mark


def first_of(name: str) -> int | None:
    """The cursor that a segment's name says; None: it is no segment's name."""
    number = name.removesuffix(SUFFIX)
    plain = name.endswith(SUFFIX) and number.isascii() and number.isdigit() and len(number) == 16
    return int(number) if plain and 0 < int(number) < BEYOND else None


class Found(NamedTuple):
    """What a file was found to hold."""

    segment: Segment
    bad: int
    """Lines that are not as they were written."""
    bad_at_end: bool
    """No good line follows the last of these."""
    holes: list[Damage]
    """Between its good lines."""
    beyond: int
    """How many lines the damaged end may have been at most."""


def load(file: IO[bytes], first: int, below: int) -> Found:
    """Read it whole. `below`: no cursor from here on is its own; such a line was taken back."""
    segment, bad, at_end, torn, end = Segment(first), 0, False, False, 0
    holes: list[Damage] = []
    reached = first - 1
    for raw in _raw_lines(file):
        reached += torn
        bad, at_end, torn = bad + torn, at_end or torn, False  # nothing follows what a kill tore
        end += len(raw)
        line = read_line(raw)
        if line is not None and segment.next <= line.cursor < below:
            if line.cursor > segment.next:
                holes.append([segment.next, line.cursor - 1, line.cursor - segment.next])
            segment.add(line, end, hash(line.id))
            at_end, reached = False, line.cursor
        elif not raw.endswith(b"\n") and _is_torn(raw, segment.next):
            torn = True
        else:
            bad, at_end = bad + 1, True
            reached = _reach(raw, reached)
    return Found(segment, bad, at_end, holes, reached - segment.next + 1)


def _reach(raw: bytes, reached: int) -> int:
    """The last cursor that was in a damaged piece at most, `reached` being the last before it."""
    most = reached + max(1, len(raw) // _SHORTEST_LINE)
    heads = [int(head) for head in _HEAD.findall(raw)]
    return max((head for head in heads if reached < head <= most), default=most)


def _is_torn(raw: bytes, cursor: int) -> bool:
    """Whether a kill could leave it: the line of that cursor, begun and not ended."""
    head = b"\t%d\t" % cursor
    if len(_HEAD.findall(raw)) > 1:
        return False  # lines follow one another in it: their ends were there
    return head.startswith(raw[8 : 8 + len(head)]) and read_line(raw[:-1] + b"\n") is None


def good_lines(file: IO[bytes], segment: Segment) -> Iterator[bytes]:
    """Those that `load` took into the segment, as they are."""
    following = segment.first
    for raw in _raw_lines(file):
        line = read_line(raw)
        if line is not None and following <= line.cursor < segment.next:
            following = line.cursor + 1
            yield raw


def lines_from(
    file: IO[bytes], offset: int, size: int, words: Sequence[bytes] = (b"",)
) -> Iterator[tuple[int, Line]]:
    """The good lines from an offset on, below `size` bytes, each with where it ends; `words`: only
    those that have one of them."""
    file.seek(offset)
    for raw in _raw_lines(file):
        offset += len(raw)
        if offset > size:
            return
        line = read_line(raw) if any(word in raw for word in words) else None
        if line is not None:
            yield offset, line


def _raw_lines(file: IO[bytes]) -> Iterator[bytes]:
    """A piece of rubbish without an end of a line is many lines: memory has a limit."""
    while raw := file.readline(_LONGEST_LINE):
        yield raw
