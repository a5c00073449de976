"""A spool as a worker finds it: what a kill left is cut off, what is damaged is set aside."""

import time
from contextlib import suppress
from dataclasses import dataclass, field

from agent.wings.messages.spool.folder import Folder, State
from agent.wings.messages.spool.segment import Segment, first_of, good_lines, load

_NONE_BELOW = 1 << 62


@dataclass(slots=True)
class Opened:
    state: State
    segments: list[Segment] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    """Segments that were set aside, by the names they have now."""
    next: int = 0
    """The next cursor to give."""


def open_folder(folder: Folder) -> Opened:
    opened = Opened(folder.read_state())
    state = opened.state
    firsts = [first for name in folder.names() if (first := first_of(name)) is not None]
    beyond = 0
    for first, below in zip(firsts, [*firsts[1:], _NONE_BELOW], strict=False):
        segment, beyond = _load(folder, first, below, opened.damaged)
        if segment.next <= state.dropped + 1 and first != firsts[-1]:
            folder.remove(segment.name)  # a kill came between two steps of letting it go
        else:
            opened.segments.append(segment)
    if opened.segments and opened.segments[-1].count:
        # A kill may have come before the disk had its last lines, which count as kept from here on.
        # What is torn behind them goes.
        folder.cut(opened.segments[-1].name, opened.segments[-1].size)
    # A session that was made again, or came from another machine, gives no cursor a second time.
    begins = opened.segments[-1].next + beyond if firsts else int(time.time() * 1000)
    opened.next = max(begins, state.next, state.settled + 1)
    state.origin = state.origin or (opened.segments or [Segment(opened.next)])[0].first
    return opened


def _load(folder: Folder, first: int, below: int, damaged: list[str]) -> tuple[Segment, int]:
    """A segment, and how many cursors at its end are lost."""
    name = Segment(first).name
    with folder.open(name) as file:
        found = load(file, first, below)
        segment = found.segment
        if found.bad:
            aside = f"damaged-{int(time.time())}-{name}"
            file.seek(0)
            with suppress(OSError):  # a full disk: what is good in it is read where it is
                folder.replace(name, aside, good_lines(file, segment))
                damaged.append(aside)
                segment = _load(folder, first, below, damaged)[0]
    segment.seal()
    return segment, found.bad_at_end
