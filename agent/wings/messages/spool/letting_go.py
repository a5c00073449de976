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
