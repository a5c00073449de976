"""What a spool remembers of the records that it lets go. Pure."""

from agent.wings.messages.spool.folder import State
from agent.wings.messages.spool.segment import Segment


def note_dropped(state: State, oldest: Segment, last: int) -> None:
    """The segment goes, and all up to the cursor `last` with it."""
    undelivered = max(oldest.first, state.settled + 1)
    if undelivered > last:
        state.lost_first, state.lost_since = 0, 0.0
    else:
        state.lost += last - undelivered + 1
        state.lost_first = state.lost_first or undelivered
        state.lost_since = state.lost_since or oldest.begun
    state.dropped = last


def begin_of(state: State, oldest: int) -> int:
    """The cursor with which a reader from the oldest begins: damage before it is told, too."""
    damaged = (first for first, last, _ in state.damage if state.dropped < first <= last < oldest)
    return min(damaged, default=oldest)
