"""What a session keeps of messages goes with it through a real PostgreSQL, folder to folder."""

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from agent.core.model import Happening, InstanceId
from agent.core.words import KEPT
from agent.errors import Refused, VaultError
from agent.fleet.postgres.schema import STEPS, prepare
from agent.supervise.fleet.stored.baggage import Baggage
from agent.supervise.messages.highest_cursors import HighestCursors
from agent.supervise.messages.kept_messages import KeptMessages
from agent.wings.messages.readers import Readers
from agent.wings.messages.spool.spool import Spool
from agent.wings.messages.travel import pieces
from agent.wings.messages.travel.spool_bag import MessagesBag
from tests.conftest import Eventually
from tests.fleet.sites import KEY, LAG, SHOP, Site
from tests.wings.messages.spools import entries, numbers_of, read_all, spool_at

HOOK = "webhook orders"


class Keeping:
    """A machine of the fleet with its sessions' messages."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.source = KeptMessages(site.registry, HighestCursors(site.store, site.registry))
        self.source.consume(HOOK, lambda _id: True)
        self.readers = Readers(site.store, self.source)
        self.baggage = Baggage(
            site.coordinator,
            KEY,
            site.root,
            LAG,
            member=lambda: site.member,
            owned=lambda: {InstanceId(id): it for id, it in site.owned.items()},
            bags={"messages": MessagesBag(site.root, self.source, self.readers)},
        )
        site.arrivals.baggage = self.baggage
        self.writes: list[dict[str, bytes]] = []
        store = site.coordinator.store_baggage

        async def counted(*words: Any, **more: Any) -> bool | None:
            self.writes.append(more["pieces"])
            return await store(*words, **more)

        site.coordinator.store_baggage = counted  # type: ignore[method-assign]

    @property
    def spool(self) -> Spool:
        return spool_at(self.site.root / SHOP)

    def keep(self, numbers: range, text: str = "") -> int:
        spool = self.spool
        spool.append(entries(numbers, text))
        spool.close()
        self.source.take(SHOP, Happening(KEPT, {"cursor": spool.newest}))
        return spool.newest

    async def settle(self, cursor: int) -> None:
        self.spool.settle(cursor)
        await self.source.settled(HOOK, SHOP, cursor)

    @asynccontextmanager
    async def storing(self):
        running = asyncio.create_task(self.baggage.run())
        try:
            yield
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    def is_stored(self) -> bool:
        return bool(self.writes) and self.baggage.behind(SHOP)[0] == 0.0

    async def move(self, to: "Keeping", *, flush: bool = True) -> Spool:
        """The session's spool on the other machine."""
        await self.site.replicas.flush(self.site.registry.facts[SHOP])
        if flush:
            await self.baggage.flush(SHOP)
        owned = await self.site.hand_over(to.site)
        await to.site.arrivals.fetch(owned)
        return to.spool


@pytest.fixture
async def two(site) -> tuple[Keeping, Keeping]:
    a, b = Keeping(await site("a")), Keeping(await site("b"))
    await a.site.add()
    return a, b


async def test_a_session_that_was_stopped_has_all_its_records_and_cursors_on_its_next_machine(two):
    a, b = two
    newest = a.keep(range(50))
    await a.settle(newest - 30)
    await a.readers.note(SHOP, newest - 25)
    spool = await a.move(b)
    assert numbers_of(read_all(spool)) == list(range(50))
    assert numbers_of(read_all(spool, newest - 30)) == list(range(20, 50))
    state = spool.state()
    assert (state["waiting"], state["lost"], state["unsure"]) == (30, 0, 0)
    assert b.readers.of(SHOP) == newest - 25
    spool.append(entries([7, 60]))
    assert [it["cursor"] for it in read_all(spool, newest)] == [newest + 1], "7 is known"
    assert spool.state()["newest"] == newest + 1
    assert not list(b.site.root.glob(".staging/*"))


async def test_a_lost_machine_takes_only_what_was_not_stored_yet_and_readers_hear_of_it(
    two, eventually: Eventually
):
    a, b = two
    newest = a.keep(range(20))
    await a.settle(newest - 5)
    async with a.storing():
        await eventually(a.is_stored)
        newest = a.keep(range(20, 30))
        await eventually(lambda: len(a.writes) > 1 and a.is_stored())
    lost = a.keep(range(30, 33))
    spool = await a.move(b, flush=False)
    found = read_all(spool, newest - 15)
    assert numbers_of(found[:-1]) == list(range(15, 30)), "all that not everybody had"
    gap = found[-1]
    assert (gap["kind"], gap["first"], gap.get("missing")) == ("message_gap", newest + 1, None)
    assert gap["since"] <= gap["until"] < gap["since"] + 60
    spool.append(entries([40]))
    assert spool.newest > lost + 1000, "no cursor that a reader may have had"
    for had in (newest, lost):
        kinds = [it["kind"] for it in read_all(spool, had)]
        assert kinds == ["message_gap", "message"]
    state = spool.state()
    assert (state["unsure"], state["lost"], state["waiting"]) == (1, 0, 16)
    # The next planned move keeps that gap where it is.
    await b.site.renew()
    b.site.registry.facts[SHOP] = a.site.registry.facts.pop(SHOP)
    spool = await b.move(a)
    kinds = [it["kind"] for it in read_all(spool, newest)]
    assert kinds == ["message_gap", "message"]


async def test_what_rests_is_not_sent_again_and_of_what_changed_the_last_piece_only(
    two, eventually: Eventually, monkeypatch
):
    monkeypatch.setattr(pieces, "PIECE", 2000)
    a, _ = two
    a.keep(range(40))
    async with a.storing():
        await eventually(a.is_stored)
        first = len(a.writes)
        sent = {name for write in a.writes for name in write}
        assert len(sent) > 5
        await asyncio.sleep(2 * LAG)
        assert len(a.writes) == first, "nothing changed"
        newest = a.keep(range(40, 41))
        await eventually(lambda: len(a.writes) > first and a.is_stored())
        again = {name for name in a.writes[-1] if name[-1].isdigit()}
        assert len(again) == 1
        await a.settle(newest)
        await eventually(lambda: len(a.writes) > first + 1 and a.is_stored())
        left = [it.name for it in await a.site.coordinator.baggage(SHOP)]
        assert len(left) == 3, left
        for name in left:
            sealed = await a.site.coordinator.piece(SHOP, name)
            assert b"message 40" not in sealed


async def test_over_the_bound_the_oldest_are_left_out_and_that_is_said(
    two, eventually: Eventually, monkeypatch
):
    monkeypatch.setattr(pieces, "PIECE", 1000)
    monkeypatch.setattr(pieces, "MOST", 6000)
    a, b = two
    newest = a.keep(range(100))
    bag = a.baggage.bags["messages"]
    async with a.storing():
        await eventually(a.is_stored)
    out = bag.left_out()[SHOP]
    assert 50 < out < 100
    spool = await a.move(b, flush=False)
    assert numbers_of(read_all(spool)[:-1]) == [-out, *range(out, 100)]
    assert spool.state()["lost"] == out
    assert newest in [it["cursor"] for it in read_all(spool)]


async def test_a_stopped_session_takes_all_along_whatever_the_bound(two, monkeypatch):
    monkeypatch.setattr(pieces, "MOST", 6000)
    monkeypatch.setattr(pieces, "WHOLE_PIECE", 4000)
    monkeypatch.setattr("agent.supervise.fleet.stored.baggage.LARGEST_WRITE", 10_000)
    a, b = two
    a.keep(range(200))
    spool = await a.move(b)
    assert len(a.writes) > 3
    assert numbers_of(read_all(spool)) == list(range(200))


async def test_a_machine_that_is_no_owner_any_more_stores_nothing(two):
    a, b = two
    a.keep(range(5))
    await a.move(b)
    with pytest.raises(Refused, match="another machine owns"):
        await a.baggage.flush(SHOP)
    stored = await b.site.coordinator.baggage(SHOP)
    assert {it.epoch for it in stored} == {0}


async def test_pieces_of_another_session_or_epoch_do_not_open(two):
    a, b = two
    a.keep(range(5))
    await a.site.replicas.flush(a.site.registry.facts[SHOP])
    await a.baggage.flush(SHOP)
    piece = next(it for it in await a.site.coordinator.baggage(SHOP) if it.name[-1].isdigit())
    sealed = await a.site.coordinator.piece(SHOP, piece.name)
    await a.site.coordinator.store_baggage(
        a.site.member, SHOP, 0, piece.number + 1, pieces={"messages/head": sealed}, kept=None
    )
    owned = await a.site.hand_over(b.site)
    with pytest.raises(VaultError, match="changed, cut short"):
        await b.site.arrivals.fetch(owned)
    assert not (b.site.root / SHOP).exists() and not list(b.site.root.glob(".staging/*"))


async def test_tables_of_the_version_before_let_a_session_move_without_its_messages(
    site, shared_server, caplog
):
    shared_server.sql("DROP SCHEMA wa_agent CASCADE")
    await prepare(shared_server.url, STEPS[:2])
    a, b = Keeping(await site("a")), Keeping(await site("b"))
    await a.site.add()
    a.keep(range(5))
    await a.move(b)
    assert "prepare" in caplog.text and a.writes == []
    assert b.site.read().counter == 0
    assert not (b.site.root / SHOP / "messages").exists()
