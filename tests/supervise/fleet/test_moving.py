"""A planned move is asked for while the agent has just begun."""

import asyncio
from types import SimpleNamespace
from typing import Any

from agent.clock import boot_now
from agent.core.fleet.lease import Lease
from agent.core.model import Instance, InstanceId
from agent.fleet.coordinator import MachineRow, Owned
from agent.supervise.fleet.epochs import Tenancy
from agent.supervise.fleet.moves import Moves
from agent.supervise.fleet.ownership import Ownership

SHOP = InstanceId("shop")
THERE = MachineRow(
    *(2, "b", 0, 7, frozenset({1}), True, "https://b:1", 10, 3), *({}, ["sandbox"], False, "1", 0.5)
)


async def test_a_move_waits_until_it_is_known_what_the_machine_owns() -> None:
    async def machines() -> list[MachineRow]:
        return [THERE]

    async def noted(*_fact: object) -> None: ...

    facts: Any = SimpleNamespace(id=SHOP, instance=Instance(SHOP, "sandbox", True, leased=True))
    keeper: Any = SimpleNamespace(losses=0)
    epochs: Any = SimpleNamespace(known={SHOP: Tenancy(0, 0)})
    leases: Any = SimpleNamespace(give=lambda _until, _ids: None)
    ownership = Ownership(keeper, {SHOP: facts}, epochs, leases, lambda _id: None)
    parts: dict[str, Any] = {
        "fleet": SimpleNamespace(machine="a", coordinator=SimpleNamespace(machines=machines)),
        "replicas": SimpleNamespace(refuse_unfit=lambda _facts: None),
        "registry": SimpleNamespace(get=lambda _id: facts),
        "store": SimpleNamespace(put_fact=noted),
        **dict.fromkeys(("giving_up", "host", "wake", "baggage")),
    }
    moves = Moves(ownership=ownership, **parts)
    asking = asyncio.create_task(moves.ask(SHOP, "b", "a test"))
    await asyncio.sleep(0)
    ownership.changed(
        [Owned(SHOP, 0, "sandbox", "running", "newest", {}, "", {})], Lease(boot_now() + 60)
    )
    assert await asking == "b"
    assert moves.listed == [(SHOP, "b")]
