"""Changes of a stored copy that are damaged, incomplete or of another copy, answers that got lost,
and how many go up at once."""

import asyncio
import os
import threading
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.clock import boot_now
from agent.errors import TryLater, VaultError
from agent.fleet.copies.arrive import open_copy
from agent.fleet.copies.change import with_changes
from agent.fleet.copies.take import LIMITS, QUIET, take_copy
from agent.supervise.fleet.stored import replicas
from agent.supervise.fleet.stored.replica import MOST_CHANGES, Chain
from tests.fleet.sites import KEY, SHOP
from tests.fleet.test_changes import one_change, taken


async def test_a_change_in_the_middle_that_is_missing_is_noticed(site: Any, tmp_path: Path) -> None:
    """The files have the same names after each of them."""
    a = await site("a")
    await a.add()
    (a.root / SHOP / "session/keys").write_bytes(os.urandom(20_000))
    for counter in range(1, 20):  # what was written a moment before makes the first ones large
        await one_change(a, counter, tmp_path)
        stored = await a.coordinator.stored(SHOP)
        if len(stored.changes) == 3:
            break
    first, _, last = stored.changes
    with pytest.raises(VaultError, match="is missing") as refused:
        open_copy(a.owned[SHOP], replace(stored, changes=(first, last)), KEY)
    assert refused.value.code == "damaged"


async def test_a_change_with_other_content_than_it_says_is_damaged(site: Any) -> None:
    a = await site("a")
    await a.add()
    base = taken(a.root)
    a.write(SHOP, 7)
    change = taken(a.root, base.seen).packed
    raw = zlib.decompress(change)
    other = raw[:-2] + bytes([raw[-2] ^ 1]) + raw[-1:]
    for wrong, why in ((other, "checksum"), (raw + b"more", "follows another")):
        with pytest.raises(VaultError, match=why) as refused:
            with_changes(base.packed, [zlib.compress(wrong)], LIMITS)
        assert refused.value.code == "damaged"


async def test_a_change_unpacks_to_no_more_than_is_allowed(site: Any) -> None:
    a = await site("a")
    await a.add()
    base = taken(a.root)
    (a.root / SHOP / "session/large").write_bytes(bytes(100_000))
    change = taken(a.root, base.seen).packed
    assert with_changes(base.packed, [change], LIMITS)
    with pytest.raises(VaultError) as refused:
        with_changes(base.packed, [change], replace(LIMITS, unpacked=50_000))
    assert refused.value.code == "damaged"


async def test_what_was_written_a_moment_before_a_copy_goes_up_again(site: Any) -> None:
    """A second write in the same tick of the clock would not show."""
    a = await site("a")
    facts = await a.add()
    folder = a.root / SHOP / "session"
    (folder / "keys").write_bytes(bytes(range(256)))
    written = max(it.stat().st_mtime for it in folder.iterdir())
    identity = replicas.identity_of(facts)
    unsure = take_copy(a.root, identity, exact=False, wall=written + QUIET / 2)
    again = taken(a.root, unsure.seen).packed
    nothing = taken(a.root, taken(a.root).seen).packed
    assert bytes(range(256)) in zlib.decompress(again)
    assert bytes(range(256)) not in zlib.decompress(nothing)


def test_a_whole_copy_comes_when_changes_are_as_large_or_many() -> None:
    seen: Any = None
    assert Chain(seen, 1, 100, 99, MOST_CHANGES - 1).goes_on
    assert not Chain(seen, 1, 100, 100, 1).goes_on
    assert not Chain(seen, 1, 100, 1, MOST_CHANGES).goes_on


async def test_a_change_follows_no_copy_of_an_earlier_owner(site: Any, tmp_path: Path) -> None:
    a, b = await site("a"), await site("b")
    await a.add()
    await one_change(a, 1, tmp_path)
    stored = await a.coordinator.stored(SHOP)
    owned = await a.hand_over(b)
    store = b.coordinator.store_change
    number = stored.number
    told = await store(b.member, SHOP, owned.epoch, b"x", number=number + 1, after=number)
    assert told is None, "a whole copy is wanted"
    later = replace(b.member, epoch=b.member.epoch + 1)
    told = await store(later, SHOP, owned.epoch, b"x", number=number + 1, after=number)
    assert told is False, "a machine that was taken over stores nothing"
    assert await b.coordinator.stored(SHOP) == stored


@pytest.mark.parametrize("function", ["store_change", "store_copy"])
async def test_after_an_answer_that_got_lost_a_whole_copy_comes_and_others_go_on(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    a = await site("a")
    await a.add()
    await one_change(a, 1, tmp_path)
    await one_change(a, 2, tmp_path)
    store = getattr(a.coordinator, function)

    async def loses_its_answer(*given: Any, **more: Any) -> Any:
        await store(*given, **more)
        raise TryLater("the answer got lost")

    with monkeypatch.context() as losing:
        losing.setattr(a.coordinator, function, loses_its_answer)
        if function == "store_copy":
            a.replicas._whole_until = boot_now() + 60
        with pytest.raises(TryLater):
            await one_change(a, 3, tmp_path)
        a.replicas._whole_until = 0.0
    await one_change(a, 4, tmp_path)
    assert not (await a.coordinator.stored(SHOP)).changes
    assert a.replicas._whole_until == 0.0, "the fleet is not too old for changes"


async def test_a_fleet_that_wants_whole_copies_is_not_asked_each_time(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = await site("a")
    await a.add()
    await one_change(a, 1, tmp_path)
    asked = []

    async def wants_whole(*given: Any, **_more: Any) -> None:
        asked.append(given)

    monkeypatch.setattr(a.coordinator, "store_change", wants_whole)
    for counter in (2, 3):
        await one_change(a, counter, tmp_path)
    assert len(asked) == 1


async def test_a_flush_and_what_may_be_lost_go_up_whole(site: Any, tmp_path: Path) -> None:
    a = await site("a")
    facts = await a.add()

    async def changes() -> int:
        return len((await a.coordinator.stored(SHOP)).changes)

    await one_change(a, 1, tmp_path)
    await one_change(a, 2, tmp_path)
    assert await changes() == 1
    await a.replicas.flush(facts)
    assert await changes() == 0
    await one_change(a, 3, tmp_path)
    assert await changes() == 1
    a.replicas.trouble = lambda: ("records were lost", False)
    a.replicas._doubt_what_may_be_lost()
    await one_change(a, 4, tmp_path)
    assert await changes() == 0


async def test_a_stored_change_ends_the_lag(site: Any, tmp_path: Path) -> None:
    a = await site("a")
    await a.add()
    await one_change(a, 1, tmp_path)
    replica = a.replicas.of(SHOP)
    size, replica.changed_at = replica.size, boot_now() - 5
    assert a.replicas.behind(SHOP)[0] >= 5
    await one_change(a, 2, tmp_path)
    assert a.replicas.behind(SHOP) == (0.0, "")
    assert (await a.coordinator.stored(SHOP)).changes
    assert replica.size > size


async def test_four_changes_go_up_at_once_and_whole_copies_are_packed_one_by_one(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = await site("a")
    every = [await a.add(f"shop-{number}") for number in range(2 * replicas.AT_ONCE)]
    packing = Peak()

    def takes(*given: Any, **more: Any) -> Any:
        with packing:
            return take_copy(*given, **more)

    async def send_all() -> None:
        sending = (a.replicas._send(it, a.replicas._replica(it.id, 0), exact=False) for it in every)
        await asyncio.gather(*sending)

    with monkeypatch.context() as watched:
        watched.setattr(replicas, "take_copy", takes)
        await send_all()
    assert packing.most == 1
    four, going = asyncio.Barrier(replicas.AT_ONCE), Peak()
    store = a.coordinator.store_change

    async def stores(*given: Any, **more: Any) -> Any:
        with going:
            async with asyncio.timeout(30):
                await four.wait()
            return await store(*given, **more)

    monkeypatch.setattr(a.coordinator, "store_change", stores)
    await send_all()
    assert going.most == replicas.AT_ONCE == 4


class Peak:
    """How many are inside at once, at most."""

    def __init__(self) -> None:
        self._now, self.most, self._lock = 0, 0, threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._now -= 1
