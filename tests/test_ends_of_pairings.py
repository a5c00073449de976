"""A plan that ends a pairing cannot be made without a proof."""

import pytest

from agent.core.reconcile import ENDS_PAIRING, ActionKind, Plan
from agent.core.recovery.repair import Ground, Proof


@pytest.mark.parametrize("kind", sorted(ENDS_PAIRING))
def test_a_plan_that_ends_a_pairing_cannot_be_made_without_a_proof(kind: ActionKind) -> None:
    with pytest.raises(AssertionError):
        Plan("any", (kind,), "why not")
    assert Plan("any", (kind,), "so", proof=Proof(Ground.PERSON)).proof
