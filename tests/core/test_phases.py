"""Which part of a start is heavy."""

import pytest

from agent.core.model import PHASES, ClaimFact, ConnectionStatus
from agent.core.words import Claim

S = ConnectionStatus


@pytest.mark.parametrize("phase", ["", *PHASES])
def test_a_start_is_light_once_it_logs_in(phase: str) -> None:
    started = ClaimFact(Claim(S.INITIALIZING, phase=phase), 0.0, 0.0)
    assert started.is_light is (phase in ("pairing", "login", "sync"))


def test_a_session_that_starts_no_more_is_light() -> None:
    for status in (S.CONNECTED, S.QR_REQUIRED):
        assert ClaimFact(Claim(status), 0.0, 0.0).is_light
