"""The nemeses' own count of copies that an older one replaced, on a real PostgreSQL."""

from agent.fleet.coordinator import NewSession
from scripts.nemeses.replaced import replaced, watch
from tests.fleet.test_postgres import Fleet, fleet, server

__all__ = ["fleet", "server"]


async def test_a_copy_that_replaces_a_newer_one_is_counted(fleet: Fleet) -> None:
    a, member = await fleet.joined("a")
    await a.create(member, NewSession("shop", "sandbox"), member.id)
    assert await a.store_copy(member, "shop", 0, b"first", 1)
    watch(fleet.server)
    assert await a.store_copy(member, "shop", 0, b"second", 2)
    assert not await a.store_copy(member, "shop", 0, b"late", 1)
    assert replaced(fleet.server) == []
    fleet.server.sql("UPDATE wa_agent.copy SET packed = 'late', number = 1")
    assert replaced(fleet.server) == ["shop|2|1"]
    fleet.server.sql("DROP TABLE replaced; DROP FUNCTION note_replaced CASCADE")
