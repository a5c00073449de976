"""The event bus: no publisher waits for a listener, and a slow one harms no other."""

import asyncio

from agent.core.model import InstanceId, JournalEntry
from agent.deliver.bus import EventBus, EventFilter

A, B = InstanceId("a"), InstanceId("b")


def entry(cursor: int, instance: InstanceId = A, kind: str = "status") -> JournalEntry:
    return JournalEntry(kind, "something happened", instance=instance, cursor=cursor)


async def test_a_listener_gets_what_it_asked_for_in_order() -> None:
    bus = EventBus()
    everything = bus.subscribe()
    only_b = bus.subscribe(EventFilter(instances=frozenset({B})))
    only_verdicts = bus.subscribe(EventFilter(kinds=frozenset({"verdict"})))
    for number in range(4):
        bus.publish(entry(number, B if number % 2 else A, "verdict" if number == 2 else "status"))
    bus.close("over")
    assert [e.cursor async for e in everything] == [0, 1, 2, 3]
    assert [e.cursor async for e in only_b] == [1, 3]
    assert [e.cursor async for e in only_verdicts] == [2]
    assert everything.dropped == "over"


async def test_f77_a_slow_listener_is_dropped_with_a_reason_and_the_others_lose_nothing() -> None:
    bus = EventBus(limit=3)
    slow, quick = bus.subscribe(), bus.subscribe(limit=100)
    for number in range(10):
        bus.publish(entry(number))
    assert await slow.get() is None
    assert slow.dropped == "too slow: 3 events were waiting"
    assert len(bus._subscriptions) == 1
    assert [(await quick.get()).cursor for _ in range(10)] == list(range(10))


async def test_a_cancelled_wait_loses_no_entry() -> None:
    bus = EventBus()
    listener = bus.subscribe()
    waiting = asyncio.create_task(listener.get())
    await asyncio.sleep(0)
    bus.publish(entry(1))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (await listener.get()).cursor == 1


async def test_a_waiting_listener_wakes_when_it_is_closed() -> None:
    bus = EventBus()
    listener = bus.subscribe()
    waiting = asyncio.create_task(listener.get())
    await asyncio.sleep(0)
    listener.close()
    assert await waiting is None
    assert len(bus._subscriptions) == 0
    bus.publish(entry(1))
    assert await listener.get() is None


async def test_an_event_outside_the_journal_reaches_listeners_that_named_its_kind() -> None:
    bus = EventBus(limit=4)
    everything = bus.subscribe()
    messages = bus.subscribe(EventFilter(kinds=frozenset({"message", "status"})))
    assert bus.wants("message")
    assert not bus.wants("ack")
    for _ in range(5):
        bus.publish_passing(entry(0, kind="message"))
    for number in (1, 2):
        bus.publish(entry(number))
    bus.close("over")
    assert [e.cursor async for e in everything] == [1, 2]
    assert [e.cursor async for e in messages] == [0, 0, 1, 2]
