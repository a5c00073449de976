"""Which part of a start is heavy."""

import pytest

from agent.core.model import PHASES, ClaimFact, ConnectionStatus
from agent.core.words import Claim

S = ConnectionStatus


@pytest.mark.parametrize("phase", ["", *PHASES])
def test_a_start_is_light_once_it_logs_in_or_is_over(phase: str) -> None:
    for status in (S.INITIALIZING, S.CONNECTED, S.QR_REQUIRED):
        light = status is not S.INITIALIZING or phase in ("pairing", "login", "sync")
        assert ClaimFact(Claim(status, phase=phase), 0.0, 0.0).is_light is light
