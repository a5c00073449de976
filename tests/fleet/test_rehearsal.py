"""Machines that would not promise to wait for each other are known while the database is there."""

import pytest

from agent.errors import TryLater
from agent.fleet.fleet_file import Rival
from agent.fleet.rehearsal import Rehearsal
from tests.conftest import Eventually
from tests.fleet.test_keeper import Node, Three, fleet, knows_two, server, three

__all__ = ["fleet", "server", "three"]


def rehearsal_of(node: Node, nodes: list[Node]) -> Rehearsal:
    async def ask(rival: Rival, id: int, epoch: int, accepted: str) -> str:
        other = next(it for it in nodes if it.name == rival.name)
        if node.cut or other.cut:
            raise TryLater("no route to it", code="owner_away")
        would = other.keeper.would_promise(id, epoch, accepted)
        return "" if would else "it answers, and would not promise"

    return Rehearsal(node.keeper, ask)


async def test_a_machine_that_is_not_reached_is_told_and_promises_nothing_by_being_asked(
    three: Three, eventually: Eventually, caplog: pytest.LogCaptureFixture
):
    a, b, c = nodes = await three()
    await eventually(lambda: all(map(knows_two, nodes)), within=30)
    rehearsal = rehearsal_of(a, nodes)
    await rehearsal.look()
    assert rehearsal.apart == {}
    b.cut = True
    await rehearsal.look()
    assert rehearsal.apart == {}, "it may be starting again"
    await rehearsal.look()
    assert rehearsal.apart == {"b": "no route to it"}
    assert "machine b does not promise to wait for this one: no route to it" in caplog.text
    assert not any(it.keeper.counts.promises["given"] for it in (b, c))
    b.cut = False
    await rehearsal.look()
    assert rehearsal.apart == {}
