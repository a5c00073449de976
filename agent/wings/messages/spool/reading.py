"""What a spool gives to a reader: records in pages, and gaps where records are gone."""

from collections.abc import Iterator, Sequence
from typing import Any

from agent.wings.messages.spool.folder import Folder, State
from agent.wings.messages.spool.holes import gaps
from agent.wings.messages.spool.line import Line
from agent.wings.messages.spool.page import Page
from agent.wings.messages.spool.segment import Segment, lines_from

PAGE_BYTES = 900 * 1024
"""Of what one answer on the link may have."""
_GAP_BYTES = 300
_PLACES = 8
"""Readers whose place in a file is remembered."""

_Place = tuple[int, int]
"""The first cursor of a segment, and where a line ends in it."""
_Shown = tuple[dict[str, Any], int, _Place | None]
"""A record, the bytes that it takes, and its place."""


class Pages:
    def __init__(self, folder: Folder, state: State, segments: Sequence[Segment]) -> None:
        """State and segments are the spool's own: they change."""
        self._folder = folder
        self._state = state
        self._segments = segments
        self._places: dict[int, _Place] = {}
        """Where the line of a cursor ends."""

    def page(self, after: int, limit: int, newest: int) -> Page:
        after = min(after, newest)
        records: list[dict[str, Any]] = []
        size, place = 0, None
        for record, bytes, where in self._records(after, newest):
            size += bytes
            if records and (size > PAGE_BYTES or len(records) >= limit):
                break
            records.append(record)
            after, place = record["cursor"], where
        if place is not None:
            self._places[after] = place
            if len(self._places) > _PLACES:
                del self._places[next(iter(self._places))]
        return Page(records, after if records else newest, self.oldest(newest), newest)

    def oldest(self, newest: int) -> int:
        return next((each.first for each in self._segments if each.count), newest + 1)

    def lines(self, following: int) -> Iterator[tuple[Line, _Place]]:
        for segment in self._segments:
            if segment.next <= following or not segment.count:
                continue
            # A reader that goes on after a line need not read what is before it.
            first, offset = self._places.pop(following - 1, (0, 0))
            try:
                with self._folder.open(segment.name) as file:
                    start = offset if first == segment.first else 0
                    for end, line in lines_from(file, start, segment.size):
                        if line.cursor >= following:
                            yield line, (segment.first, end)
            except OSError:
                self._folder.must_be_here()
                continue  # it is gone, or its disk fails: the reader gets a gap

    def _records(self, after: int, newest: int) -> Iterator[_Shown]:
        following, since = after + 1, 0.0
        if following < self._state.origin or not after:
            following = self._state.begin_of(self.oldest(newest))
            if self._state.lost_first and self._state.dropped + 1 == following:
                lost = self._state.lost_first, following - 1
                yield from self._gaps(*lost, self._state.lost_since)
        elif following <= self._state.dropped:
            since = self._state.lost_since
        for line, place in self.lines(following):
            if line.cursor > following:
                yield from self._gaps(following, line.cursor - 1, since or line.kept)
            yield line.record(), line.wire_size, place
            following, since = line.cursor + 1, line.kept
        if following <= newest:
            yield from self._gaps(following, newest, since)

    def _gaps(self, first: int, last: int, since: float) -> Iterator[_Shown]:
        for each in gaps(first, last, since, self._state.holes, self._state.damage):
            yield each, _GAP_BYTES, None
