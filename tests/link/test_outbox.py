"""What waits for an agent that is away: the newest word of how far a session's messages are kept
takes no place of what happened."""

from agent.core.words import KEPT, Happening
from agent.link.outbox import Outbox


def test_of_many_words_about_kept_messages_the_newest_waits_and_displaces_nothing() -> None:
    outbox = Outbox("run1", 3)
    for number in range(3):
        outbox.happened(Happening("message", {"id": str(number)}))
    for cursor in range(100):
        outbox.happened(Happening(KEPT, {"cursor": cursor}))
    told = []
    while outbox.waits:
        told.append(outbox.pop())
    assert outbox.dropped == 0
    assert [each["detail"] for each in told if each["kind"] == KEPT] == [{"cursor": 99}]
    assert [each["kind"] for each in told].count("message") == 3 and len(told) == 4
