"""Which sessions a machine takes with it when it leaves its fleet."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from agent.clock import boot_now
from agent.core.fleet.lease import Lease
from agent.core.model import InstanceId
from agent.errors import Refused
from agent.fleet.coordinator import Owned
from agent.supervise.fleet.epochs import Tenancy
from agent.supervise.fleet.owner import FleetOwner
from agent.supervise.fleet.ownership import Ownership

HERE, STALE, ON_ITS_WAY = InstanceId("here"), InstanceId("stale"), InstanceId("on-its-way")


async def test_a_machine_takes_out_no_session_whose_files_it_has_not_got() -> None:
    """Their copies would go with their rows. Its agent has just begun, and reads what it owns."""
    told: list[list[InstanceId]] = []

    async def leave(_member: object, sessions: Sequence[InstanceId]) -> bool:
        told.append(list(sessions))
        return False  # as for one that owns others

    async def noted(*_fact: object) -> None: ...

    here: Any = {
        id: SimpleNamespace(id=id, instance=SimpleNamespace(leased=True)) for id in (HERE, STALE)
    }
    tenancies = {HERE: Tenancy(1, 0), STALE: Tenancy(0, 0)}
    keeper: Any = SimpleNamespace(losses=0, member=None)
    epochs: Any = SimpleNamespace(known=tenancies)
    leases: Any = SimpleNamespace(give=lambda _until, _ids: None)
    ownership = Ownership(keeper, here, epochs, leases, lambda _id: None)
    every = [Owned(id, 1, "web", "running", "wait", {}, "", {}) for id in (*here, ON_ITS_WAY)]
    fleet: Any = SimpleNamespace(requests=SimpleNamespace(leave=leave), keeper=keeper)
    store: Any = SimpleNamespace(put_fact=noted, forget_facts=noted)
    registry: Any = SimpleNamespace(facts=here)
    unused: Any = None
    owner = FleetOwner(fleet, ownership, unused, registry, store, unused, unused)
    leaving = asyncio.create_task(owner.leave())
    await asyncio.sleep(0)
    ownership.changed(every, Lease(boot_now() + 60))
    with pytest.raises(Refused, match="have not arrived yet"):
        await leaving
    assert told == [[HERE]]
    assert not ownership.left.is_set()
