"""A spool as a worker finds it: what a kill left is cut off, what is damaged is set aside."""

import errno
import time
from contextlib import suppress
from dataclasses import dataclass, field

from agent.clock import wall_at_boot
from agent.wings.messages.spool.damage import Damage, merge
from agent.wings.messages.spool.folder import LARGEST_CURSOR, Folder, State
from agent.wings.messages.spool.holes import MOST as MOST_HOLES
from agent.wings.messages.spool.holes import Hole, never_given
from agent.wings.messages.spool.line import BEYOND
from agent.wings.messages.spool.page import MOST_LINES
from agent.wings.messages.spool.segment import Found, Segment, first_of, good_lines, load

_ROOM = 1_000_000
"""Cursors above the last known one: a segment may have begun there whose state a power cut took."""
ONE_BOOT = 60.0
"""Seconds: a boot, or a clock that was set, moves the time of the boot by more."""
WRITTEN_WITHIN = 10.0
"""Seconds after a line was made: what changed its file later was no worker."""
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


def open_folder(folder: Folder, owner: str) -> Opened:
    opened = Opened(folder.read_state())
    state = opened.state
    firsts = [first for name in folder.names() if (first := first_of(name)) is not None]
    firsts = [first for first in firsts if not _put_aside(folder, first, state, firsts, opened)]
    noted = folder.look_at(Segment(state.begun).name)  # before anything here changes it
    damage: list[Damage] = []
    found = None
    for first, below in zip(firsts, [*firsts[1:], BEYOND], strict=False):
        found = _load(folder, first, below, opened.damaged)
        if found.segment.next <= state.dropped + 1 and first != firsts[-1]:
            folder.remove(found.segment.name)  # a kill came between two steps of letting it go
            continue
        begin = max(state.dropped + 1, state.origin, state.counted) if state.origin else first
        before = opened.segments[-1].next if opened.segments else begin
        if before < first:
            damage.append([before, first - 1, first - before])
        damage += found.holes
        opened.segments.append(found.segment)
    if opened.segments:
        # A kill may have come before the disk had its last lines, which count as kept from here on.
        # What is torn behind them goes.
        try:
            folder.cut(opened.segments[-1].name, opened.segments[-1].size)
        except OSError as error:
            if error.errno not in _LEFT_AS_IT_IS:
                raise
    damaged_end = found is not None and found.bad_at_end
    if not firsts and not state.origin:
        # A session that was made again repeats no cursor.
        opened.next = int(time.time() * 1000)
    elif damaged_end or not firsts or firsts[-1] < state.begun:
        # Nobody knows how far the newest segment went.
        opened.next = state.bound or (firsts or [0])[-1] + 2 * MOST_LINES
    left_out = state.damage[-1][1] + 1 if state.damage else 0
    ends = [each.next for each in opened.segments]
    opened.next = max([opened.next, state.origin, state.settled + 1, left_out, *ends])
    state.origin = state.origin or min([opened.next, *firsts])
    end = max([*ends, state.dropped + 1, state.origin])
    if end < opened.next:
        width = opened.next - end
        beyond = found.beyond if found is not None and damaged_end else width
        whole = firsts and firsts[-1] >= state.begun
        damage.append([end, opened.next - 1, beyond if whole else width])
    opened.next = max([opened.next, *(hole.first for hole in state.holes)])
    moved = bool(opened.segments) and _go_above_the_time(opened, noted)
    given = [_given(each, state) for each in damage]
    _note(folder, state, owner or state.owner, given, moved=moved)
    return opened


def _go_above_the_time(opened: Opened, noted: tuple[str, float]) -> bool:
    """Where the folder, or the machine, may be put back from a copy of an earlier moment. What came
    after that moment had cursors below the time: none of them comes again."""
    (inode, changed), state, now = noted, opened.state, time.time()
    written = next((it.ended for it in opened.segments if it.first == state.begun), 0.0)
    copied = inode != state.inode or (written and changed > written + WRITTEN_WITHIN)
    copied = copied or _is_of_another_boot(state)
    if "" in (inode, state.inode) or not copied or not opened.next < now * 1000 < LARGEST_CURSOR:
        return False
    hole = Hole(opened.next - 1, int(now * 1000), written, now)
    state.holes, opened.next = [*state.holes, hole][-MOST_HOLES:], hole.first
    return True


def _put_aside(folder: Folder, first: int, state: State, firsts: list[int], opened: Opened) -> bool:
    """A stray: a file without a line of its name where this spool began none. It would move every
    cursor, or stand for records that never were."""
    known = [each for each in firsts if each < first][-1:]
    gone_above = (hole.first for hole in state.holes)
    above = max([state.bound, state.settled, *known, *gone_above]) + _ROOM
    likely = state.origin <= first <= above if state.origin else not known or first <= above
    if likely or first == state.begun or _has_lines(folder, first):
        return False
    with suppress(OSError):
        opened.damaged.append(_set_aside(folder, Segment(first).name))
    return True


def _has_lines(folder: Folder, first: int) -> bool:
    try:
        with folder.open(Segment(first).name) as file:
            return load(file, first, first + 2 * MOST_LINES).segment.count > 0
    except OSError as error:
        return error.errno not in _UNREADABLE


def _set_aside(folder: Folder, name: str) -> str:
    aside = f"damaged-{int(time.time())}-{name}"
    folder.rename(name, aside)
    return aside


def _given(damage: Damage, state: State) -> Damage:
    """Without the cursors that were never given."""
    first, last, missing = damage
    return [first, last, min(missing, last - first + 1 - never_given(first, last, state.holes))]


def _note(folder: Folder, state: State, owner: str, damage: list[Damage], *, moved: bool) -> None:
    """What went by damage counts as lost once, whoever looks how often."""
    damage, lost = merge(state.damage, damage, state.settled)
    inode = folder.look_at(Segment(state.begun).name)[0]
    noted = (state.damage, state.owner, state.inode) == (damage, owner, inode)
    if noted and not moved and not (inode and _is_of_another_boot(state)):
        return
    state.damage, state.owner, state.inode, state.booted = damage, owner, inode, wall_at_boot()
    state.lost += lost
    with suppress(OSError):  # there is none yet, or it is written again with the next change
        folder.write_state(state, durable=moved)


def _is_of_another_boot(state: State) -> bool:
    return abs(wall_at_boot() - state.booted) > ONE_BOOT


def _load(folder: Folder, first: int, below: int, damaged: list[str]) -> Found:
    """What was found, and the segment as it is from now on."""
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
                    segment = _load(folder, first, below, damaged).segment
    except OSError as error:
        if error.errno not in _UNREADABLE:
            raise
        with suppress(OSError):
            folder.rename(name, aside)
            damaged.append(aside)
        return Found(Segment(first), 0, True, [], 2 * MOST_LINES)
    segment.seal()
    return found._replace(segment=segment)
