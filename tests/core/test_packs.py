"""Which pack a session belongs to, and a pack that ends and begins again."""

import asyncio
from unittest.mock import AsyncMock, Mock

from hypothesis import given
from hypothesis import strategies as st

from agent.core.model import InstanceId, UnitState, UnitStatus
from agent.supervise.seats import Link, Seats, choose_pack

IDS = st.integers(0, 30).map(lambda number: InstanceId(f"i{number}"))


@given(st.lists(IDS, max_size=80), st.integers(1, 8))
def test_a_pack_is_never_too_full_and_a_restart_changes_nothing(starts, size):
    places: dict[InstanceId, str] = {}
    for id in starts:
        before = places.get(id)
        places[id] = choose_pack(places, id, "baileys", size)
        assert before in (None, places[id])
    names = list(places.values())
    if size == 1:
        assert set(names) <= {""}
    else:
        assert all(names.count(name) <= size for name in names)
        assert len(set(names)) == -(-len(names) // size)


async def test_a_start_that_waited_for_the_end_of_its_pack_is_in_the_one_that_is_known(monkeypatch):
    link = Mock(call=AsyncMock(return_value={"members": {}}), close=AsyncMock())
    monkeypatch.setattr(Link, "open", AsyncMock(return_value=link))
    status = AsyncMock(return_value=UnitStatus(UnitState.ACTIVE))
    seats, name = Seats(Mock(), AsyncMock(), 2, {}, Mock()), InstanceId("baileys-1")
    seats._host_of_packs = Mock(status=status, stop=AsyncMock())
    async with (pack := seats._pack(name)).acting:
        start = asyncio.create_task(seats._running(name))
        await asyncio.sleep(0)
        await seats._end(pack, "it holds no session")
    assert seats.packs == {name: await start}
