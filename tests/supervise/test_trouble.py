"""A log that is filtered for warnings tells of every session that goes down, hangs or is banned."""

import pytest

from agent.core.model import JournalEntry
from agent.supervise.facts import is_trouble


def status(before: str, now: str, reason: str, **more: object) -> JournalEntry:
    detail = {"before": before, "status": now, "reason": reason, **more}
    return JournalEntry("status", "", detail=detail)


def verdict(health: str, reason: str) -> JournalEntry:
    return JournalEntry("verdict", "", detail={"verdict": health, "reason": reason})


@pytest.mark.parametrize(
    ("entry", "warns"),
    [
        pytest.param(status("CONNECTED", "RECONNECTING", "connection_lost"), True, id="goes down"),
        pytest.param(status("CONNECTED", "DISCONNECTED", "stopped"), False, id="stopped by hand"),
        pytest.param(
            status("CONNECTED", "AUTH_FAILURE", "logout", asked=True),
            False,
            id="logged out as asked",
        ),
        pytest.param(status("RECONNECTING", "CONNECTED", ""), False, id="comes back"),
        pytest.param(status("LOADING", "DISCONNECTED", "banned"), True, id="refused at its start"),
        pytest.param(status("LOADING", "QR_REQUIRED", "waiting_for_scan"), False, id="a code"),
        pytest.param(verdict("stuck", "start_stuck"), True, id="stuck"),
        pytest.param(verdict("disconnected", "qr_idle"), False, id="nobody scanned"),
    ],
)
def test_troubles_that_the_log_shows_as_warnings(entry: JournalEntry, warns: bool) -> None:
    assert is_trouble(entry) is warns
