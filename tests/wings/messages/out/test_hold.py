"""Why a session sends nothing now, and until when: by what it says of itself, and by what WhatsApp
refused. A hold begins by itself and ends when its cause does."""

from dataclasses import replace

import pytest

from agent.core.event_json import wall_text
from agent.core.model import Claim, ClaimFact, ConnectionStatus
from agent.wings.messages.out.session.hold import LOCK_TRY, SessionHolds
from agent.wings.messages.out.states import Pace
from tests.fakes.supervisor import make_view

CONNECTED = ConnectionStatus.CONNECTED
WELL = make_view("a")
REFUSED = "cannot send: WhatsApp refused it with error 463"


def locked_until(wall: float | None):
    claim = ClaimFact(Claim(CONNECTED, "restricted", until_wall=wall), 10.0, 5.0)
    return replace(WELL, reason="restricted", claim=claim)


@pytest.mark.parametrize(
    ("view", "code", "until"),
    [
        pytest.param(WELL, "", None, id="connected"),
        pytest.param(None, "not_found", None, id="it moved away"),
        pytest.param(
            replace(
                make_view("a", status=ConnectionStatus.DISCONNECTED),
                reason="temporary_ban",
                sentence="WhatsApp banned the account for a while",
                next_attempt_wall=900.0,
            ),
            "temporary_ban",
            900.0,
            id="a temporary ban, until it ends",
        ),
        pytest.param(replace(WELL, linked=False), "healthy", None, id="its worker is away"),
        pytest.param(locked_until(700.0), "restricted", 700.0, id="a time lock, until it ends"),
        pytest.param(locked_until(None), "restricted", 100.0 + LOCK_TRY, id="a lock without end"),
    ],
)
def test_a_hold_and_its_end(view, code: str, until: float | None) -> None:
    hold = SessionHolds().find(view, 100.0)
    if not code:
        assert hold is None
        return
    assert hold is not None
    assert hold.until_wall == until
    assert hold.code == code or (code == "healthy" and hold.code)
    if until is not None and code == "restricted":
        assert wall_text(until) in hold.sentence


def test_a_lock_of_which_no_end_is_told_lets_one_message_be_tried_each_hour() -> None:
    holds, now = SessionHolds(), 100.0
    for _ in range(3):
        holds.lock(now)
        holds.refuse("refused", REFUSED, now, Pace(), 0.5)
        holds.forgive()  # the session changed, which lifts no lock
        assert holds.careful
        held = holds.find(WELL, now + LOCK_TRY - 1)
        assert held is not None and held.until_wall == now + LOCK_TRY
        now += LOCK_TRY
        assert holds.find(WELL, now) is None
        assert holds.careful, "one at a time"
    holds.forgive(well=True)
    assert not holds.careful and holds.find(WELL, now) is None


def test_a_lock_ends_when_the_session_says_so() -> None:
    holds = SessionHolds()
    holds.lock(100.0)
    holds.refuse("refused", REFUSED, 100.0, Pace(), 0.5)
    assert holds.find(locked_until(9e9), 110.0) is not None
    assert holds.find(WELL, 120.0) is None
    assert not holds.careful
