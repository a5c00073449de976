"""What waits for an agent that is away: the newest word of how far a session's messages are kept
takes no place of what happened."""

from agent.core.words import KEPT, Happening, InstanceId
from agent.link.messages import Happened
from agent.link.outbox import Outbox

SALES, SHOP = InstanceId("sales"), InstanceId("shop")


def test_of_many_words_about_kept_messages_the_newest_waits_and_displaces_nothing() -> None:
    outbox = Outbox("run1", 3)
    for number in range(3):
        outbox.happened(SALES, Happening("message", {"id": str(number)}))
    for cursor in range(100):
        outbox.happened(SALES, Happening(KEPT, {"cursor": cursor}))
    outbox.happened(SHOP, Happening(KEPT, {"cursor": 7}))
    told = []
    while outbox.waits:
        told.append(outbox.pop())
    assert outbox.dropped == 0
    said = [(each.id, each.happening) for each in told if isinstance(each, Happened)]
    assert (SALES, Happening(KEPT, {"cursor": 99})) in said
    assert (SHOP, Happening(KEPT, {"cursor": 7})) in said
    assert [what.kind for _, what in said].count("message") == 3 and len(told) == 5
