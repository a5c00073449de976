"""Finds one record among those that are kept, by its id or by WhatsApp's."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from agent.wings.messages.record import is_message
from agent.wings.messages.spool.folder import Folder
from agent.wings.messages.spool.line import Line
from agent.wings.messages.spool.segment import Segment, lines_from


def find_record(folder: Folder, segments: Sequence[Segment], id: str) -> dict[str, Any] | None:
    raw = json.dumps(id).encode()
    for segment in reversed(segments):
        if segment.has(hash(raw)):
            for line in _lines_in(folder, segment, raw):
                if line.id == raw:
                    return line.whole()
    return None


def search_segment(
    folder: Folder, segments: Sequence[Segment], chat: str, message_id: str, below: int
) -> tuple[dict[str, Any] | None, int]:
    """The message in the newest segment that begins below a cursor, and where that begins; 0 = no
    segment is left. A search of all of them at once would hold up what arrives."""
    word = json.dumps(message_id, ensure_ascii=False)[1:-1].encode("utf-8", "replace")
    for segment in reversed(segments):
        if segment.first < below:
            for line in _lines_in(folder, segment, word):
                if is_message(record := line.whole(), chat, message_id):
                    return record, 0
            return None, segment.first
    return None, 0


def _lines_in(folder: Folder, segment: Segment, word: bytes) -> Iterator[Line]:
    """Those that have the word; the sums of the others are not made."""
    with suppress(OSError), folder.open(segment.name) as file:
        for _, line in lines_from(file, 0, segment.size, [word]):
            yield line
