"""A full disk while running: reads go on, nothing acknowledged is lost, and it recovers."""

import asyncio

import pytest

from agent.errors import StoreError
from agent.store.database import Store
from tests.store.conftest import entry


async def test_f31_a_full_commit_fails_all_of_its_writes_and_keeps_none(small_disk):
    folder = small_disk("size=1m,mode=0700")
    (folder / "ballast").write_bytes(bytes(300_000))
    store = await Store.open(folder / "agent.db")
    with pytest.raises(StoreError, match="the disk is full") as caught:
        for number in range(10_000):
            await store.append(entry(str(number), sentence="x" * 500))
    assert caught.value.code == "disk_full"
    writes = (store.append(entry("x", sentence="y" * 3000)) for _ in range(200))
    results = await asyncio.gather(*writes, return_exceptions=True)
    acknowledged = [one for one in results if not isinstance(one, BaseException)]
    assert len(acknowledged) < 200
    (folder / "ballast").unlink()
    assert len(await store.history(kinds=["x"], limit=1000)) == len(acknowledged)
    await store.close()


async def test_f48_a_file_system_without_inodes_is_told_apart(small_disk):
    folder = small_disk("size=1m,nr_inodes=12,mode=0700")
    store = await Store.open(folder / "agent.db")
    await store.append(entry("before"))
    await store.close()
    with pytest.raises(OSError, match="No space"):
        for number in range(12):
            (folder / f"file{number}").touch()
    with pytest.raises(StoreError, match="no free inode") as caught:
        await Store.open(folder / "agent.db")
    assert caught.value.code == "disk_full"
    for file in folder.glob("file*"):
        file.unlink()
    again = await Store.open(folder / "agent.db")
    assert again.rebuilt_from == ()
    assert [one.kind for one in await again.history()] == ["before"]
    await again.close()
