"""The sessions of a fleet as all machines see them: registering, changing, deleting, views."""

import asyncio
from dataclasses import replace

import pytest

from agent.errors import ConfigError, InvalidRequest, Refused
from agent.fleet.coordinator import NewSession
from tests.fleet.test_postgres import Fleet, fleet, machine, owners, renewed, server, two_machines

__all__ = ["fleet", "server"]


async def test_a_machine_brings_all_its_sessions_or_none(fleet: Fleet):
    first, a, *_ = await two_machines(fleet)
    own = [NewSession(id, "sandbox", failover="wait") for id in ("bar", "cafe")]
    assert await first.register(a, [*own, NewSession("shop", "sandbox")]) == ["shop"]
    assert await owners(fleet) == {"shop": 2}
    assert await first.register(a, own) == []
    assert await first.register(a, own) == [], "a second time, as after a lost answer"
    assert await owners(fleet) == {"bar": 1, "cafe": 1, "shop": 2}
    assert [it.failover for it in await first.owned(a)] == ["wait", "wait"]


async def test_a_machine_leaves_with_its_sessions_and_joins_again_as_itself(fleet: Fleet):
    first, a, second, b = await two_machines(fleet)
    seen = await first.directory()
    assert not await second.leave(b, []), "its files of shop may not be there yet"
    assert await second.leave(b, ["shop"])
    assert await owners(fleet) == {}
    assert [row.name for row in await first.machines()] == ["a"]
    assert (await first.directory(seen.generation)).deleted == {"shop"}
    with pytest.raises(Refused) as refused:
        await second.renew(b, frozenset(), 0)
    assert refused.value.code == "not_a_member"
    again = await second.join(machine("b"))
    assert (again.id, again.renewals) == (b.id, b.renewals), "nothing of it was lost"
    assert not (await second.renew(again, frozenset(), 0)).halted
    assert not (await first.renew(a, frozenset(), 0)).halted


async def test_a_name_that_a_machine_left_is_free(fleet: Fleet):
    first, a = await fleet.joined("a")
    assert await first.leave(a, [])
    other = replace(machine("z"), name="a")
    assert (await first.join(other)).id != a.id
    with pytest.raises(ConfigError):
        await first.join(machine("a"))


async def test_moves_that_cross_wait_in_line(fleet: Fleet):
    first, a, _, b = await two_machines(fleet)
    ids = [f"s{number}" for number in range(16)]
    for number, id in enumerate(ids):
        assert await first.create(a, NewSession(id, "sandbox"), (a, b)[number % 2].id)
    assert all(
        await asyncio.gather(
            *(
                fleet.coordinator().hand_over((a, b)[n % 2], id, (b, a)[n % 2].id, "drain")
                for n, id in enumerate(ids)
            )
        )
    )


async def test_only_the_owner_in_its_epoch_changes_or_deletes_a_session(fleet: Fleet):
    first, a, second, b = await two_machines(fleet)
    assert not await first.update(a, "shop", 0, wanted="stopped")
    assert not await second.update(b, "shop", 7, wanted="stopped")
    assert await second.update(b, "shop", 0, settings={"x": 1})
    assert await second.update(b, "shop", 0, wanted="stopped", labels={"zone": "1"})
    (owned,) = await second.owned(b)
    assert (owned.wanted, owned.settings, owned.labels) == ("stopped", {"x": 1}, {"zone": "1"})
    with pytest.raises(InvalidRequest):
        await second.update(b, "shop", 0, failover="perhaps")
    assert not await first.delete(a, "shop", 0)
    assert not await second.delete(b, "shop", 7)
    assert await second.delete(b, "shop", 0)
    assert await second.stored("shop") is None
    assert await second.create(b, NewSession("shop", "sandbox"), b.id), "the id is free again"


async def test_the_directory_tells_what_changed(fleet: Fleet):
    first, a, second, b = await two_machines(fleet)
    seen = await first.directory()
    assert seen.whole
    (row,) = seen.sessions
    assert (row.id, row.machine, row.epoch, row.copy_bytes) == ("shop", b.id, 0, 5)
    assert row.copy_at is not None
    assert (await first.directory(seen.generation)).sessions == []
    assert await second.create(b, NewSession("bar", "sandbox"), a.id)
    assert await second.hand_over(b, "shop", a.id, "drain")
    changed = await first.directory(seen.generation)
    assert not changed.whole
    assert {(it.id, it.machine, it.why) for it in changed.sessions} == {
        ("bar", a.id, "created"),
        ("shop", a.id, "drain"),
    }
    assert await first.delete(a, "bar", 0)
    after = await first.directory(changed.generation)
    assert (after.deleted, after.sessions) == ({"bar"}, [])
    assert (await first.directory(after.generation + 5)).whole, "the database lost records"
    fleet.server.sql("UPDATE wa_agent.fleet SET generation = generation + 20000")
    assert (await first.directory(after.generation)).whole, "deletions of so long ago are gone"
    found = await first.session("shop")
    assert found is not None
    assert found.epoch == 1
    assert await first.session("bar") is None


async def test_a_view_is_the_owners(fleet: Fleet):
    first, a, second, b = await two_machines(fleet)
    await first.publish(a, {"shop": {"state": "wrong"}})
    assert await first.views() == []
    await second.publish(b, {"shop": {"state": "connected"}, "none": {}})
    (view,) = await first.views(["shop", "none"])
    assert (view.id, view.machine, view.view) == ("shop", b.id, {"state": "connected"})
    assert 0 <= view.age_seconds < 20
    assert await second.hand_over(b, "shop", a.id, "drain")
    await second.publish(b, {"shop": {"state": "late words"}})
    assert [(it.machine, it.view["state"]) for it in await first.views(machine=a.id)] == [
        (b.id, "connected")
    ]
    assert await first.views(machine=b.id) == []
    assert await first.views(["bar"]) == []


async def test_a_machine_is_drained_by_its_name(fleet: Fleet):
    first, *_ = await two_machines(fleet)
    assert await first.set_drained("b", True)
    assert not await first.set_drained("c", True)
    drained = {row.name: row.drained for row in await first.machines()}
    assert drained == {"a": False, "b": True}


async def test_a_forgotten_machine_without_sessions_goes_off_the_list_until_it_joins(fleet: Fleet):
    first, a, _, b = await two_machines(fleet)
    third, c = await fleet.joined("c")
    assert await first.forget(a, c.id, c.renewals)
    assert await first.forget(a, b.id, b.renewals)
    assert [row.name for row in await first.machines()] == ["a", "b"], "b owns one and lives"
    with pytest.raises(Refused):
        await third.renew(c, frozenset(), 0)
    await renewed(third, await third.join(machine("c")))
    assert [row.name for row in await first.machines()] == ["a", "b", "c"]


async def test_the_first_key_of_a_fleet_is_the_only_one(fleet: Fleet):
    first = fleet.coordinator()
    assert await first.key_fingerprint() == ""
    await first.join(replace(machine("a"), key_fingerprint="0a"))
    await first.join(machine("b"))
    assert await first.key_fingerprint() == "0a"
    with pytest.raises(ConfigError) as refused:
        await first.join(replace(machine("c"), key_fingerprint="0b"))
    assert refused.value.code == "fleet_key"
