"""What a machine reads of the other ones between two renewals."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.clock import boot_now
from agent.core.fleet.figures import FleetCounts
from agent.core.fleet.lease import Lease, LeasePolicy
from agent.core.fleet.sightings import vouched
from agent.core.fleet.takeover import Word
from agent.fleet.coordinator import Machine, MachineRow, Member, Owned, Renewal
from agent.fleet.fleet_file import Memory
from agent.fleet.keeper import Keeper
from agent.fleet.peers import Reached
from agent.fleet.takeovers import READ_EVERY, Takeovers

POLICY = LeasePolicy()
ROW = MachineRow(
    *(2, "b", 0, 7, frozenset({1}), True, "https://b:1", 10, 3),
    *({}, [], False, "1", 0.5),
)


class Rows:
    """The database's rows of the machines, and how often they were read."""

    def __init__(self) -> None:
        self.rows, self.read = [ROW], 0

    async def machines(self) -> list[MachineRow]:
        self.read += 1
        return self.rows


def answer(number: int, alive: int = 2) -> Renewal:
    return Renewal(True, 0, {1: number, 2: number}, frozenset({alive}), 0, 0, True, "", False, "s")


async def test_the_other_machines_are_read_again_after_a_while_and_when_one_is_new(
    tmp_path: Path,
) -> None:
    """One that began again at another address is asked for its promise there."""
    rows: Any = Rows()
    memory = Memory(tmp_path / "fleet.json")
    await memory.load("boot", 0.0, POLICY)
    takeovers = Takeovers(rows, memory, POLICY, FleetCounts())
    me, begun = Member(1, 0, 0), 1e9  # far from this machine's clock: no number stands still
    await takeovers.see(me, answer(1), begun)
    rows.rows = [replace(ROW, address="https://b:2")]
    await takeovers.see(me, answer(2), begun + READ_EVERY - 1)
    assert (rows.read, takeovers.rows[2].address) == (1, "https://b:1")
    await takeovers.see(me, answer(3), begun + READ_EVERY)
    assert (rows.read, takeovers.rows[2].address) == (2, "https://b:2")
    await takeovers.see(me, answer(4, alive=3), begun + READ_EVERY + 1)
    assert rows.read == 3


async def test_a_machine_that_was_taken_over_in_a_pause_in_which_another_left_goes_on(
    tmp_path: Path,
) -> None:
    policy = LeasePolicy(ttl=0.3, margin=0.1)
    database: Any = Left()
    keeper = Keeper(
        database,
        Machine("a", ""),
        policy,
        path=tmp_path / "fleet.json",
        ask_rival=None,  # type: ignore[arg-type] - it is not asked
        changed=lambda _owned, _lease: None,
    )
    await keeper.join()
    await keeper.step()
    assert keeper.settled
    await asyncio.sleep(policy.ttl)  # the pause
    database.after = True
    await keeper.step()
    assert keeper.member.epoch == 1


class Left(Rows):
    """Machine 2 left while machine 1 stood still and was taken over."""

    after = False

    async def join(self, _machine: Machine) -> Member:
        return Member(1, 0, 0)

    async def owned(self, _member: Member) -> list[Owned]:
        return []

    async def renew(self, *_asked: object) -> Renewal:
        if not self.after:
            return answer(1)
        return replace(answer(1), accepted=False, epoch=1, renewals={1: 1}, alive=frozenset())


async def test_who_lives_is_asked_before_the_records_are_settled(tmp_path: Path) -> None:
    """A standby was promoted: until its records are settled nobody is taken over, and a machine
    that stands still right then has said before that its lease holds."""
    rows: Any = Rows()
    memory = Memory(tmp_path / "fleet.json")
    await memory.load("boot", 0.0, POLICY)
    takeovers = Takeovers(rows, memory, POLICY, FleetCounts())
    asked = []

    async def holds(row: Reached, _member: Member) -> Word:
        asked.append(row.name)
        return Word(True, "the old primary")

    takeovers.ask_word = holds
    me, now = Member(1, 0, 0), boot_now()
    await takeovers.see(me, answer(1), now - POLICY.ttl / 2)
    await takeovers.take_over(me, Lease(now + POLICY.ttl), answer(1), False)
    assert asked == ["b"]
    assert takeovers.elsewhere == ["b"]
    assert takeovers.sightings.machines[2].at >= now, "as if it had been seen renewing"


async def test_a_word_of_another_database_holds_for_as_long_as_the_lease_that_may_follow_it(
    tmp_path: Path,
) -> None:
    """Asked `ttl` / 2 ago, it renewed until its agent died a moment ago: its workers run on."""
    rows: Any = Rows()
    memory = Memory(tmp_path / "fleet.json")
    await memory.load("boot", 0.0, POLICY)
    takeovers = Takeovers(rows, memory, POLICY, FleetCounts())
    answers = [Word(True, "the old primary")]

    async def holds(_row: Reached, _member: Member) -> Word:
        if not answers:
            raise OSError("it does not answer")
        return answers.pop()

    takeovers.ask_word = holds
    me, now = Member(1, 0, 0), boot_now()
    await takeovers.see(me, answer(1), now - POLICY.ttl / 2)
    await takeovers.take_over(me, Lease(now + POLICY.ttl), answer(1), False)
    for seconds, elsewhere in ((1.0, ["b"]), (2.0, [])):
        at = boot_now() - seconds * POLICY.ttl - 0.1
        takeovers.sightings = vouched(takeovers.sightings, {2}, at)
        await takeovers.take_over(me, Lease(now + POLICY.ttl), answer(1), False)
        assert takeovers.elsewhere == elsewhere
