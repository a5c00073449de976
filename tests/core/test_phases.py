"""Which part of a start is heavy."""

import pytest

from agent.core.model import PHASES, ConnectionStatus, is_light
from agent.core.words import Claim

S = ConnectionStatus


@pytest.mark.parametrize("phase", ["", *PHASES])
def test_a_start_is_light_once_it_logs_in(phase: str) -> None:
    assert is_light(Claim(S.INITIALIZING, phase=phase)) is (phase in ("pairing", "login", "sync"))


def test_a_session_that_starts_no_more_is_light() -> None:
    assert is_light(Claim(S.CONNECTED)) and is_light(Claim(S.QR_REQUIRED))
