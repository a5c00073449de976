"""The store's four calls do the same in memory and in a real etcd."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from agent.fleet.etcd import Delete, Etcd, Get, MayHaveHappened, Pair, Put, Same, StoreAway
from tests.fleet.members import Members, members
from tests.fleet.memory import Line, Memory


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    with members(tmp_path_factory.mktemp("etcd"), 1) as made:
        yield made


@pytest.fixture(params=["memory", "etcd"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Etcd | Line]:
    if request.param == "etcd":
        async with aclosing(Etcd([*request.getfixturevalue("one").clients.values()])) as etcd:
            yield etcd
    else:
        (thawed := asyncio.Event()).set()
        yield Line(Memory(), random.Random(0), thawed)


async def test_a_transaction_is_all_or_nothing_and_reads_what_it_wrote(store: Etcd | Line) -> None:
    assert (await store.read(Get("wa/t/k/"))).found == [[]]
    both = [Put("wa/t/k/a", b"1"), Put("wa/t/k/b", b"2")]
    first = await store.commit([Same("wa/t/k/a", 0)], [*both, Get("wa/t/k/")])
    assert first.found[0] == [Pair(it.key, it.value, first.revision) for it in both]
    wrong = [Same("wa/t/k/b", first.revision), Same("wa/t/k/a", first.revision, b"2")]
    then, otherwise = [Put("wa/t/k/b", b"3")], [Get("wa/t/k/b"), Get("wa/t/k/none")]
    late = await store.commit(wrong, then, otherwise)
    assert [[it.value for it in found] for found in late.found] == [[b"2"], []]
    assert (late.committed, late.revision, late.cluster) == (False, first.revision, first.cluster)
    second = await store.commit([Same("wa/t/k/b", 0, b"2")], [Put("wa/t/k/b", b"3")])
    assert (second.committed, second.found) == (True, [])
    changed = await store.read(Get("wa/t/k/", first.revision + 1))
    assert [it.key for it in changed.found[0]] == ["wa/t/k/b"]
    await store.compact(second.revision)
    assert [it.value for it in (await store.read(Get("wa/t/k/"))).found[0]] == [b"1", b"3"]
    await store.commit([Same("wa/t/k/a", first.revision)], [Delete("wa/t/k/")])
    assert (await store.read(Get("wa/t/k/"))).found == [[]]
    assert (await store.commit([Same("wa/t/k/a", 0)], [Put("wa/t/k/a", b"4")])).committed


async def test_a_watch_sees_what_is_written_below_its_key(store: Etcd | Line) -> None:
    seen = asyncio.Queue[tuple[str, bytes]]()

    async def watch() -> None:
        async for pair in store.watch("wa/w/"):
            seen.put_nowait((pair.key, pair.value))

    watching = asyncio.create_task(watch())
    while seen.empty():  # the watch begins at some moment
        await store.commit([], [Put("wa/w/a", b"x"), Put("wa/v/a", b"y")])
        await asyncio.sleep(0.02)
    assert await seen.get() == ("wa/w/a", b"x")
    watching.cancel()


async def test_a_read_goes_to_the_next_member_and_an_unanswered_write_does_not(
    one: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.fleet.etcd.EACH", 0.3)
    [real] = one.clients.values()
    with socket.create_server(("127.0.0.1", 0)) as mute, socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))
        silent = f"http://127.0.0.1:{mute.getsockname()[1]}"
        closed, put = f"http://127.0.0.1:{refusing.getsockname()[1]}", Put("wa/n/k", b"1")
        async with aclosing(Etcd([closed, real])) as etcd:
            assert (await etcd.commit([], [put])).committed, "no connection: it surely was not sent"
            with pytest.raises(MayHaveHappened, match="duplicate key"):  # also where it was refused
                await etcd.commit([], [put, put])
        async with aclosing(Etcd([silent, real])) as etcd:
            with pytest.raises(MayHaveHappened, match="no answer in time"):
                await etcd.commit([], [put])
            assert (await etcd.commit([], [put])).committed, "the next member's turn"
        async with aclosing(Etcd([silent, closed, real])) as etcd:
            assert (await etcd.read(Get("wa/n/k"))).found[0][0].value == b"1"
        async with aclosing(Etcd([closed, silent])) as etcd:
            with pytest.raises(StoreAway, match="connection refused") as away:
                await etcd.read(Get("wa/n/k"))
            assert not isinstance(away.value, MayHaveHappened)
            with pytest.raises(StoreAway, match="cannot watch"):
                async for _ in etcd.watch("wa/n/"):
                    pass
