"""A spool as a worker finds it: what a kill left is cut off, what is damaged is set aside."""

import errno
import time
from contextlib import suppress
from dataclasses import dataclass, field

from agent.wings.messages.spool.folder import Folder, State
from agent.wings.messages.spool.page import MOST_LINES
from agent.wings.messages.spool.segment import Segment, first_of, good_lines, load

_NONE_BELOW = 1 << 62
_UNREADABLE = (errno.EIO, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EUCLEAN)
"""Of the file itself: no other moment makes it better."""
_LEFT_AS_IT_IS = (*_UNREADABLE, errno.ENOENT, errno.EROFS)
"""It was set aside, or its disk takes nothing: what there is can be read."""


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
    damaged_end = False
    for first, below in zip(firsts, [*firsts[1:], _NONE_BELOW], strict=False):
        segment, damaged_end = _load(folder, first, below, opened.damaged)
        if segment.next <= state.dropped + 1 and first != firsts[-1]:
            folder.remove(segment.name)  # a kill came between two steps of letting it go
        else:
            opened.segments.append(segment)
    if opened.segments:
        # A kill may have come before the disk had its last lines, which count as kept from here on.
        # What is torn behind them goes.
        try:
            folder.cut(opened.segments[-1].name, opened.segments[-1].size)
        except OSError as error:
            if error.errno not in _LEFT_AS_IT_IS:
                raise
    if not firsts and not state.origin:
        # A session that was made again, or came from another machine, repeats no cursor.
        opened.next = int(time.time() * 1000)
    elif damaged_end or not firsts or firsts[-1] < state.begun:
        # Nobody knows how far the newest segment went.
        opened.next = state.bound or (firsts or [0])[-1] + 2 * MOST_LINES
    opened.next = max([opened.next, state.settled + 1, *(each.next for each in opened.segments)])
    state.origin = state.origin or min([opened.next, *firsts])
    return opened


def _load(folder: Folder, first: int, below: int, damaged: list[str]) -> tuple[Segment, bool]:
    """A segment, and whether its end is damaged."""
    name = Segment(first).name
    aside = f"damaged-{int(time.time())}-{name}"
    try:
        with folder.open(name) as file:
            found = load(file, first, below)
            segment = found.segment
            if found.bad:
                file.seek(0)
                with suppress(OSError):  # a full disk: what is good in it is read where it is
                    folder.replace(name, aside, good_lines(file, segment))
                    damaged.append(aside)
                    segment, _ = _load(folder, first, below, damaged)
    except OSError as error:
        if error.errno not in _UNREADABLE:
            raise
        with suppress(OSError):
            folder.rename(name, aside)
            damaged.append(aside)
        return Segment(first), True
    segment.seal()
    return segment, found.bad_at_end
