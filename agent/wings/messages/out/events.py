"""What the outbox does with the agent's events: acknowledgements, deletions of sessions,
and changes that may let a session send again."""

from typing import TYPE_CHECKING

from agent.core.model import JournalEntry
from agent.deliver.bus import EventBus, EventFilter
from agent.wings.messages.out.acks import AckNotes
from agent.wings.messages.out.rows import Ack

if TYPE_CHECKING:
    from agent.wings.messages.out.running import Running

EVENTS = EventFilter(kinds=frozenset({"ack", "status", "verdict", "deleted"}))
EVENTS_WAIT = 20_000


async def follow_events(running: "Running", bus: EventBus, acks: AckNotes) -> None:
    while True:
        subscription = bus.subscribe(EVENTS, limit=EVENTS_WAIT)
        for sender in list(running.senders.values()):
            sender.wake()
        try:
            async for entry in subscription:
                await _take_in(running, entry, acks)
        finally:
            subscription.close()


async def _take_in(running: "Running", entry: JournalEntry, acks: AckNotes) -> None:
    if entry.instance is None:
        return
    sender = running.senders.get(entry.instance)
    if entry.kind == "ack":
        id, word = str(entry.detail.get("id", "")), str(entry.detail.get("ack", ""))
        if sender is not None:
            sender.note_ack(id, word)
        acks.add(Ack(entry.instance, id, word, entry.wall))
    elif entry.kind == "deleted":
        await running.forget(entry.instance, entry.wall)
    elif sender is not None:
        sender.wake()
