"""What waits for a webhook, counted."""

from agent.core.model import JournalEntry
from agent.wings.webhooks.backlog import Backlog


def entry(cursor: int, kind: str = "trouble") -> JournalEntry:
    return JournalEntry(kind, "something", wall=1000.0 + cursor, cursor=cursor)


def test_unwanted_events_that_left_the_journal_hide_no_waiting_ones() -> None:
    backlog = Backlog(lambda one: one.kind == "trouble")
    backlog.begin(0)
    for cursor in range(1, 101):
        backlog.count(entry(cursor, "status" if cursor <= 98 else "trouble"))
    assert backlog.waiting == 2
    backlog.lost(98)  # none of those was wanted
    backlog.is_next(entry(99))
    assert (backlog.waiting, backlog.oldest_wall) == (1, 1099.0)
    backlog.settled()
    backlog.is_next(entry(100))
    assert (backlog.waiting, backlog.oldest_wall) == (1, 1100.0)
    backlog.settled()
    assert backlog.waiting == 0
