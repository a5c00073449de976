"""What a machine reads of the other ones between two renewals."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.core.fleet.figures import FleetCounts
from agent.core.fleet.lease import LeasePolicy
from agent.fleet.coordinator import MachineRow, Member, Renewal
from agent.fleet.fleet_file import Memory
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
