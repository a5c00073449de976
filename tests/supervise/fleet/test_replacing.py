"""An import may replace a session of the fleet by one of the same engine only."""

import pytest

from agent.core.model import Instance, InstanceId
from agent.errors import Refused
from agent.fleet.coordinator import Owned
from agent.supervise.fleet.owner import FleetOwner
from agent.supervise.fleet.ownership import Ownership
from agent.supervise.tenure import Tenure

SALES = InstanceId("sales")


async def test_a_session_is_not_replaced_by_one_of_another_engine() -> None:
    owner, ownership = FleetOwner.__new__(FleetOwner), Ownership.__new__(Ownership)
    owner.ownership, owner.in_hand = ownership, set()
    ownership.owned = {SALES: Owned("sales", 2, "sandbox", "running", "newest", {}, "", {})}
    tenure = Tenure(owner)
    async with tenure.claim(Instance(SALES, "sandbox", True), own=True):
        assert owner.in_hand == {SALES}
    with pytest.raises(Refused, match="with engine sandbox, not baileys") as refused:
        async with tenure.claim(Instance(SALES, "baileys", True), own=True):
            pytest.fail("it was let through")
    assert refused.value.code == "wrong_engine"
    assert not owner.in_hand
