"""A full disk while running: reads go on, nothing acknowledged is lost, and it recovers."""

import asyncio

import pytest

from agent.core.model import SessionRecord
from agent.errors import StoreError
from agent.store.database import Store
from tests.store.conftest import entry, instance


@pytest.fixture
async def full(small_disk):
    """A store on a disk that has just become full, the ballast on it, and what it acknowledged."""
    folder = small_disk("size=1m,mode=0700")
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(300_000))
    store = await Store.open(folder / "agent.db")
    await store.add(instance(), SessionRecord(attempts=3), entry("created"))
    written = 0
    with pytest.raises(StoreError) as caught:
        while written < 10_000:
            await store.append(entry(str(written), sentence="x" * 500))
            written += 1
    assert caught.value.code == "disk_full"
    assert "the disk is full" in str(caught.value)
    yield store, ballast, written
    await store.close()


async def test_f31_reads_go_on_and_with_room_again_the_same_store_writes_on(full):
    store, ballast, written = full
    for _ in range(3):
        with pytest.raises(StoreError, match="the disk is full"):
            await store.append(entry("no", sentence="x" * 9000))
    assert (await store.history(limit=1))[0].kind == str(written - 1)
    assert (await store.instances())[0][1].attempts == 3
    ballast.unlink()
    await store.append(entry("again", sentence="x" * 9000))
    kinds = [one.kind for one in await store.history(limit=2)]
    assert kinds == ["again", str(written - 1)]
    await store.close()
    reopened = await Store.open(ballast.with_name("agent.db"))
    assert reopened.rebuilt_from == ()
    assert await reopened.check() == "ok"
    count, after = 0, 0
    while page := await reopened.history(after=after, limit=1000):
        count, after = count + len(page), page[-1].cursor
    assert count == written + 2
    await reopened.close()


async def test_a_full_commit_fails_all_of_its_writes_and_keeps_none(full):
    store, ballast, _ = full
    results = await asyncio.gather(
        *(store.append(entry("x", sentence="y" * 3000)) for _ in range(200)),
        return_exceptions=True,
    )
    acknowledged = [one for one in results if not isinstance(one, BaseException)]
    assert len(acknowledged) < 200
    ballast.unlink()
    kept = await store.history(kinds=["x"], limit=1000)
    assert len(kept) == len(acknowledged)


async def test_f48_a_file_system_without_inodes_is_told_apart(small_disk):
    folder = small_disk("size=1m,nr_inodes=12,mode=0700")
    store = await Store.open(folder / "agent.db")
    await store.append(entry("before"))
    await store.close()
    for number in range(12):
        try:
            (folder / f"file{number}").touch()
        except OSError:
            break
    with pytest.raises(StoreError, match="no free inode") as caught:
        await Store.open(folder / "agent.db")
    assert caught.value.code == "disk_full"
    for file in folder.glob("file*"):
        file.unlink()
    again = await Store.open(folder / "agent.db")
    assert again.rebuilt_from == ()
    assert [one.kind for one in await again.history()] == ["before"]
    await again.close()
