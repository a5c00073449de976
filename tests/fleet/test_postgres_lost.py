"""Older records take the place of the database: what is newer than they are wins, and an operator
accepts the loss once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import TryLater
from agent.fleet.coordinator import Held, Member, NewSession, Renewal
from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.fleet.postgres.tables import NUMBERED, OLDEST, VERSION
from tests.fleet.test_postgres import Fleet, fleet, machine, owners, server

__all__ = ["fleet", "server"]


class Told:
    """One machine with what its agent keeps in mind."""

    def __init__(self, coordinator: PostgresCoordinator, member: Member) -> None:
        self.coordinator, self.member, self.generation = coordinator, member, 0

    async def renew(self) -> Renewal:
        answer = await self.coordinator.renew(self.member, frozenset(), self.generation)
        assert answer.accepted
        losses = self.member.losses if answer.halted else answer.losses
        number = answer.renewals[self.member.id]
        self.member = replace(self.member, renewals=number, epoch=answer.epoch, losses=losses)
        self.generation = max(self.generation, answer.generation)
        return answer

    async def create(self, id: str) -> None:
        assert await self.coordinator.create(self.member, session(id), self.member.id)
        await self.renew()

    async def held(self) -> list[Held]:
        rows = await self.coordinator.owned(self.member)
        return [Held(session(it.id), it.epoch, it.generation) for it in rows]

    async def move(self, id: str, to: "Told") -> None:
        await self.renew()
        assert await self.coordinator.hand_over(self.member, id, to.member.id, "a test")
        await to.renew()

    async def delete(self, id: str) -> int:
        (epoch,) = [it.epoch for it in await self.coordinator.owned(self.member) if it.id == id]
        assert await self.coordinator.delete(self.member, id, epoch)
        generation = await self.coordinator.deleted_in(id)
        assert generation is not None
        return generation


def session(id: str) -> NewSession:
    return NewSession(id, "sandbox")


async def joined(fleet: Fleet, name: str) -> Told:
    told = Told(*await fleet.joined(name))
    await told.renew()
    return told


class Backup:
    def __init__(self, fleet: Fleet, file: Path) -> None:
        self.fleet, self.sql = fleet, fleet.server.dump(file).read_text()

    async def restore(self, away: str = "") -> None:
        """`away`: a machine that does not live any more."""
        for coordinator in self.fleet.opened:
            await coordinator.close()
        self.fleet.server.sql("DROP SCHEMA wa_agent CASCADE")
        self.fleet.server.sql(self.sql)
        ended = f"UPDATE wa_agent.machine SET alive_until = now() WHERE name = '{away}'"
        self.fleet.server.sql(ended)


async def test_one_acceptance_is_enough_however_many_changes_were_lost(
    fleet: Fleet, tmp_path: Path
):
    a, b = await joined(fleet, "a"), await joined(fleet, "b")
    away = await joined(fleet, "away")
    backup = Backup(fleet, tmp_path / "dump.sql")
    for number in range(40):
        await a.create(f"s{number}")
    for each in (away, b, away):
        await each.renew()
    await backup.restore(away="away")
    assert "lost" in (await a.renew()).halted
    assert (await b.renew()).halted
    for each in (a, b):
        await each.coordinator.tell(each.member, await each.held(), {})
    await a.coordinator.accept()
    for _ in range(3):
        for each in (a, b, away):
            assert (await each.renew()).halted == "", "it was accepted, also for who was away"
    await a.create("after")
    assert (await b.renew()).generation > 40


async def test_who_read_the_owners_before_a_loss_reads_all_of_them_again(
    fleet: Fleet, tmp_path: Path
):
    a = await joined(fleet, "a")
    await a.create("kept")
    backup = Backup(fleet, tmp_path / "dump.sql")
    await a.create("lost")
    seen = await a.coordinator.directory()
    await a.renew()
    await backup.restore()
    await a.renew()
    again = await a.coordinator.directory(seen.generation)
    assert again.whole
    assert [it.id for it in again.sessions] == ["kept"]


async def test_what_runs_and_is_newer_than_the_records_stays_where_it_runs(
    fleet: Fleet, tmp_path: Path
):
    a, b = await joined(fleet, "a"), await joined(fleet, "b")
    for id in ("moved", "twice", "deleted", "again", "still"):
        await a.create(id)
    backup = Backup(fleet, tmp_path / "dump.sql")
    old = await a.held()
    await a.move("moved", b)
    await a.move("twice", b)
    await b.move("twice", a)
    await b.create("new")
    deleted = {id: await a.delete(id) for id in ("deleted", "again")}
    await b.create("again")
    here, there = await a.held(), await b.held()
    await backup.restore()
    for each in (a, b):
        await each.renew()
    stale = [it for it in old if it.session.id in ("moved", "again", "deleted")]
    # A machine that missed the moves tells older things, before or after the others.
    await a.coordinator.tell(a.member, [*here, *stale], deleted)
    assert set(await b.coordinator.tell(b.member, there, {})) == {"moved", "new", "again"}
    await a.coordinator.tell(a.member, [*here, *stale], deleted)
    await a.coordinator.accept()
    mine, other = a.member.id, b.member.id
    found = {"moved": other, "new": other, "again": other, "twice": mine, "still": mine}
    assert await owners(fleet) == found
    assert {it.session.id: it.epoch for it in await a.held()} == {"still": 0, "twice": 2}
    assert (await a.renew()).halted == (await b.renew()).halted == ""


async def test_an_older_deletion_takes_no_session_away_that_was_made_while_the_fleet_is_halted(
    fleet: Fleet, tmp_path: Path
):
    a, b = await joined(fleet, "a"), await joined(fleet, "b")
    await a.create("shop")
    await a.create("desk")
    backup = Backup(fleet, tmp_path / "dump.sql")
    deleted = {id: await a.delete(id) for id in ("shop", "desk")}
    await a.renew()
    await backup.restore()
    await a.renew()
    await b.renew()
    fleet.server.sql("DELETE FROM wa_agent.session WHERE id = 'shop'")
    await b.create("shop")
    await a.coordinator.tell(a.member, [], deleted)
    assert await owners(fleet) == {"shop": b.member.id}


async def test_a_loss_is_not_accepted_before_every_machine_that_lives_told_what_it_runs(
    fleet: Fleet, tmp_path: Path
):
    a, b = await joined(fleet, "a"), await joined(fleet, "b")
    backup = Backup(fleet, tmp_path / "dump.sql")
    await a.create("shop")
    await b.renew()
    await backup.restore()
    await a.renew()
    answer = await b.renew()
    assert answer.halted
    assert not answer.told
    await a.coordinator.tell(a.member, [], {})
    with pytest.raises(TryLater, match="b did not tell yet") as refused:
        await a.coordinator.accept()
    assert refused.value.code == "not_told"
    await b.coordinator.tell(b.member, [], {})
    assert (await b.renew()).told
    await a.coordinator.accept()
    await b.coordinator.tell(b.member, [Held(session("shop"), 5, 10**6)], {})
    assert await owners(fleet) == {}, "after the acceptance nothing is taken from anybody"


async def test_a_loss_of_hours_is_not_accepted_before_a_machine_that_lives_renewed_since(
    fleet: Fleet, tmp_path: Path
):
    """In records from hours ago all machines look dead; b lives, and renews a moment later."""
    a, b = await joined(fleet, "a"), await joined(fleet, "b")
    backup = Backup(fleet, tmp_path / "dump.sql")
    await b.create("shop")
    await backup.restore()
    fleet.server.sql("UPDATE wa_agent.machine SET alive_until = '-infinity'")
    await a.renew()
    await a.coordinator.tell(a.member, [], {})
    a.coordinator.lapsed = dict
    with pytest.raises(TryLater, match="b did not tell yet") as refused:
        await a.coordinator.accept()
    assert refused.value.code == "not_told"
    off = fleet.server.sql("SELECT id, renewals FROM wa_agent.machine WHERE name = 'b'").strip()
    id, number = map(int, off.split("|"))
    a.coordinator.lapsed = lambda: {id: number}
    await a.coordinator.accept()
    assert not (await a.renew()).halted


async def test_a_machine_that_only_missed_moves_to_itself_keeps_its_files_after_an_acceptance(
    fleet: Fleet, tmp_path: Path
):
    a, b = await joined(fleet, "a"), await joined(fleet, "b")
    await a.create("shop")
    backup = Backup(fleet, tmp_path / "dump.sql")
    await a.move("shop", b)
    await b.move("shop", a)
    held = await a.held()
    await backup.restore(away="a")
    await b.renew()
    await b.coordinator.tell(b.member, [], {})
    await b.coordinator.accept()
    assert not (await a.renew()).halted
    assert set(await a.coordinator.tell(a.member, held, {})) == {"shop"}
    assert [it.epoch for it in await a.held()] == [2]


@pytest.mark.parametrize("known", range(OLDEST, VERSION))
async def test_an_older_program_takes_part_and_nobody_waits_for_what_it_tells(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, known: int
):
    """Its program knows tables of an earlier version: it gives their functions what they took."""
    a = await joined(fleet, "a")
    await a.create("shop")
    older = fleet.coordinator()

    async def read_schema(_connection: Any) -> tuple[int, int]:
        return known, OLDEST

    with monkeypatch.context() as patch:
        patch.setattr("agent.fleet.postgres.database.read_schema", read_schema)
        b = await older.join(machine("b"))
    b = replace(b, renewals=(await older.renew(b, frozenset(), 0)).renewals[b.id])
    fleet.server.sql("UPDATE wa_agent.machine SET renewals = 0 WHERE name = 'b'")
    assert "lost" in (await older.renew(b, frozenset(), 0)).halted
    await a.renew()
    await a.coordinator.tell(a.member, await a.held(), {})
    if known >= NUMBERED:
        await older.tell(b, [], {})
    await a.coordinator.accept()
    assert (await older.renew(b, frozenset(), 0)).halted == ""
