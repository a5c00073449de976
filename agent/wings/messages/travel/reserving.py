"""Holds all messages of a session that wait: meanwhile nobody sends, cancels or expires them."""

from collections.abc import Iterator
from contextlib import contextmanager

from agent.wings.messages.out.sender import SessionSender


@contextmanager
def reserved(sender: SessionSender | None) -> Iterator[tuple[list[int], bool]]:
    """Their numbers, in their order, and whether others of the session are being sent."""
    if sender is None:
        yield [], False
        return
    queued = sorted(sender.queue, key=lambda waiting: waiting.number)
    held = [waiting for waiting in queued if sender.queue.reserve(waiting)]
    try:
        yield [waiting.number for waiting in held], len(held) < len(queued)
    finally:
        for waiting in held:
            if not waiting.gone:
                sender.queue.put_back(waiting, waiting.due)
        sender.wake()
