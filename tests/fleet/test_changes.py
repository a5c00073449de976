"""What changed of a small session goes after its stored copy; a takeover finds all of it or less,
and never half of a change."""

import io
import tarfile
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.core.model import Instance
from agent.errors import Refused, VaultError
from agent.fleet.coordinator import Machine
from agent.fleet.copies.arrive import open_copy
from agent.fleet.copies.change import with_changes
from agent.fleet.copies.take import LIMITS, take_copy
from agent.supervise.fleet.stored import replica as chains
from agent.vault.identity import Identity
from tests.conftest import Eventually
from tests.fleet.sites import KEY, SHOP
from tests.fleet.test_copies import counter_of, holds

HOUR = 3600.0


def taken(root: Path, known: Any = None) -> Any:
    """Long after the files were written: each change shows."""
    identity = Identity(Instance(SHOP, "sandbox", True), True, "49151")
    wall = (root / SHOP / "session").stat().st_mtime + HOUR
    return take_copy(root, identity, exact=False, wall=wall, known=known)


async def one_change(site: Any, counter: int, tmp_path: Path) -> None:
    """Written and copied, whatever the clock's ticks are."""
    site.write(SHOP, counter)
    facts = site.registry.facts[SHOP]
    await site.replicas._send(facts, site.replicas._replica(SHOP, 0), exact=False)
    assert counter_of(await site.coordinator.stored(SHOP), tmp_path) == counter


async def test_a_copy_with_its_changes_is_the_session_as_it_was_after_each(site: Any) -> None:
    a = await site("a")
    await a.add()
    folder = a.root / SHOP / "session"
    for name in ("one", "two", "three"):
        (folder / name).write_bytes(name.encode() * 1000)
    base = taken(a.root)
    assert base.whole
    (folder / "two").unlink()
    (folder / "four").write_bytes(b"4")
    first = taken(a.root, base.seen)
    whole_then = taken(a.root).packed
    a.write(SHOP, 7)
    (folder / "inner").mkdir()
    (folder / "inner/five").write_bytes(b"")
    second = taken(a.root, first.seen)
    assert not second.whole
    assert len(second.packed) < len(base.packed) * 3
    again = taken(a.root, second.seen)
    assert read(with_changes(base.packed, [first.packed], LIMITS)) == read(whole_then)
    every = [first.packed, second.packed, again.packed]
    assert read(with_changes(base.packed, every, LIMITS)) == read(taken(a.root).packed)
    assert "session/four" in read(whole_then)
    for wrong in ([second.packed], [first.packed, first.packed], [first.packed[:-9]]):
        with pytest.raises(VaultError) as refused:
            with_changes(base.packed, wrong, LIMITS)
        assert refused.value.code == "damaged"


def read(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        return {
            it.name: found.read()
            for it in tar
            if it.name != "manifest.json" and (found := tar.extractfile(it)) is not None
        }


async def test_changes_are_sent_instead_of_the_whole_store_and_arrive(
    site: Any, tmp_path: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chains, "MOST_CHANGES", 3)
    a, b = await site("a"), await site("b")
    await a.add()
    big = a.root / SHOP / "session/keys"
    big.write_bytes(bytes(range(256)) * 400)
    for counter in range(1, 4):
        await one_change(a, counter, tmp_path)
    stored = await a.coordinator.stored(SHOP)
    assert [number for number, _, _ in stored.changes] == [2, 3]
    assert sum(len(it) for *_, it in stored.changes) < len(stored.packed) * 2
    assert stored.number == 3
    arrived = open_copy(a.owned[SHOP], stored, KEY)
    assert read(arrived)["session/keys"] == big.read_bytes()
    for counter in range(4, 6):
        await one_change(a, counter, tmp_path)
    stored = await a.coordinator.stored(SHOP)
    assert len(stored.changes) < 3, "after so many a whole copy comes"
    async with a.sending():
        a.write(SHOP, 9)
        await eventually(lambda: holds(a, 9, tmp_path), within=30)
    assert (await a.coordinator.stored(SHOP)).changes
    owned = await a.hand_over(b)
    assert (await b.arrivals.fetch(owned)).copied
    assert b.read().counter == 9
    with pytest.raises(Refused):
        await one_change(a, 10, tmp_path)


async def test_changes_that_would_make_a_copy_too_large_to_arrive_are_sent_as_one(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = await site("a")
    await a.add()
    for counter in (1, 2):
        await one_change(a, counter, tmp_path)
    stored = await a.coordinator.stored(SHOP)
    assert len(stored.changes) == 1
    monkeypatch.setattr(chains, "LARGEST", len(stored.packed) + len(stored.changes[0][2]))
    await one_change(a, 3, tmp_path)
    assert not (await a.coordinator.stored(SHOP)).changes


async def test_a_fleet_with_an_older_program_gets_whole_copies(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await site("a"), await site("b")
    await a.add()
    await one_change(a, 1, tmp_path)
    await one_change(a, 2, tmp_path)
    assert (await a.coordinator.stored(SHOP)).changes
    told = Machine("b", str(uuid.uuid4()), engines=frozenset({"sandbox"}))
    await b.coordinator.leave(b.member, [])
    with monkeypatch.context() as older:
        older.setattr("agent.fleet.postgres.joining.FOLLOWED", 99)
        await b.coordinator.join(told)
    await one_change(a, 3, tmp_path)
    assert not (await a.coordinator.stored(SHOP)).changes
    await b.coordinator.join(told)
    a.replicas._whole_until = 0.0
    await one_change(a, 4, tmp_path)
    assert (await a.coordinator.stored(SHOP)).changes
    with monkeypatch.context() as older:  # the release before, which is put back
        older.setattr("agent.fleet.postgres.joining.FOLLOWED", 99)
        await b.coordinator.join(told)
    await one_change(a, 5, tmp_path)
    assert not (await a.coordinator.stored(SHOP)).changes


async def test_a_change_follows_what_it_was_made_from_only(site: Any, tmp_path: Path) -> None:
    a = await site("a")
    await a.add()
    for counter in range(1, 4):
        await one_change(a, counter, tmp_path)
    store, stored = a.coordinator.store_change, await a.coordinator.stored(SHOP)
    for number, after in ((9, 2), (3, 3), (2, 3)):
        told = await store(a.member, SHOP, 0, b"late", number=number, after=after)
        assert told is None
    assert await store(a.member, SHOP, 1, b"another epoch", number=9, after=3) is False
    assert await a.coordinator.stored(SHOP) == stored
    lacking = replace(stored, changes=(stored.changes[0], (9, 8, stored.changes[1][2])))
    forged = replace(stored, changes=((*stored.changes[1][:2], stored.changes[0][2]),))
    for wrong in (lacking, forged):
        with pytest.raises(VaultError) as refused:
            open_copy(a.owned[SHOP], wrong, KEY)
        assert refused.value.code == "damaged"
    assert await a.coordinator.store_copy(a.member, SHOP, 0, b"whole", 10)
    assert not (await a.coordinator.stored(SHOP)).changes
