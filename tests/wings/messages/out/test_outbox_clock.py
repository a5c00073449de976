"""Somebody sets the machine's clock: each message has as long as it had before."""

from dataclasses import replace
from pathlib import Path

import pytest

from agent.wings.messages.out.message import OutMessage
from agent.wings.messages.out.states import State
from agent.wings.messages.out.store import NewMessage, OutboxStore
from agent.wings.messages.out.times import OutboxClock
from tests.wings.messages.out.test_outbox_file import row

DAY = 86_400.0


class Machine:
    def __init__(self) -> None:
        self.boot, self.ahead, self.id = 100.0, 1e9, "first"

    def clock(self) -> OutboxClock:
        return OutboxClock(lambda: self.boot + self.ahead, lambda: self.boot, lambda: self.id)


async def put(store: OutboxStore, id: str, now: float, seconds: float) -> OutMessage:
    times = {"accepted_wall": now, "changed_wall": now, "expires_wall": now + seconds}
    return (await store.take(NewMessage(replace(row(id), **times), "{}"), lambda _taken: None))[0]


async def left(store: OutboxStore, clock: OutboxClock) -> dict[str, float]:
    return {each.id: round(each.expires_wall - clock.now()) for each in await store.waiting()}


@pytest.mark.parametrize("step", [4 * DAY, -4 * DAY, -400 * DAY])
async def test_a_clock_that_is_set_moves_all_that_is_noted(tmp_path: Path, step: float) -> None:
    machine = Machine()
    store, clock = await OutboxStore.open(tmp_path / "outbox.db"), machine.clock()
    await clock.open(store.writer)
    waits = await put(store, "out_1", clock.now(), 60.0)
    await store.change(waits.number, not_before_wall=clock.now() + 7, begun_wall=clock.now())
    ended = await put(store, "out_2", clock.now(), 60.0)
    await store.end(ended.number, State.SENT, changed_wall=clock.now())
    machine.boot += 10
    machine.ahead += step
    assert clock.now() == 110 + 1e9  # a message that comes before the step was seen
    assert await clock.follow(store.writer) == step
    assert await clock.follow(store.writer) == 0
    assert clock.now() == 110 + 1e9 + step
    assert await left(store, clock) == {"out_1": 50}
    row_of_it = (await store.waiting())[0]
    assert row_of_it.not_before_wall - clock.now() == pytest.approx(-3)
    # Never later than it was: what was sent since then would count as not sent.
    assert row_of_it.begun_wall == pytest.approx(100 + 1e9 + min(step, 0))
    await store.forget_ended(clock.now() - 72 * 3600, 100)
    assert await store.find(row("x").instance, "out_2") is not None  # its key is still its own
    # The next step comes while no agent runs.
    machine.ahead -= step
    machine.boot += 10
    clock = machine.clock()
    await clock.open(store.writer)
    assert await left(store, clock) == {"out_1": 40}
    await store.close()


async def test_of_the_time_off_only_the_wall_tells(tmp_path: Path) -> None:
    machine = Machine()
    store, clock = await OutboxStore.open(tmp_path / "outbox.db"), machine.clock()
    await clock.open(store.writer)
    await put(store, "out_1", clock.now(), 60.0)
    machine.id, machine.boot, machine.ahead = "second", 5.0, machine.ahead + 100 + 15
    clock = machine.clock()
    await clock.open(store.writer)
    assert await left(store, clock) == {"out_1": 40}
    machine.id, machine.ahead = "third", 5.0  # a machine whose clock begins in 1970
    clock = machine.clock()
    await clock.open(store.writer)
    assert await left(store, clock) == {"out_1": 60}
    await store.close()
