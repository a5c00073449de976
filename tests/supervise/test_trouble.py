"""A log that is filtered for warnings tells of every session that goes down, hangs or is banned."""

from agent.core.model import JournalEntry
from agent.supervise.facts import is_trouble


def status(before: str, now: str, reason: str, **more: object) -> JournalEntry:
    detail = {"before": before, "status": now, "reason": reason, **more}
    return JournalEntry("status", "", detail=detail)


def verdict(health: str, reason: str) -> JournalEntry:
    return JournalEntry("verdict", "", detail={"verdict": health, "reason": reason})


def test_troubles_that_the_log_shows_as_warnings() -> None:
    for entry, warns in (
        (status("CONNECTED", "RECONNECTING", "connection_lost"), True),
        (status("CONNECTED", "DISCONNECTED", "stopped"), False),
        (status("CONNECTED", "AUTH_FAILURE", "logout", asked=True), False),
        (status("RECONNECTING", "CONNECTED", ""), False),
        (status("LOADING", "DISCONNECTED", "banned"), True),
        (status("LOADING", "QR_REQUIRED", "waiting_for_scan"), False),
        (verdict("stuck", "start_stuck"), True),
        (verdict("disconnected", "qr_idle"), False),
    ):
        assert is_trouble(entry) is warns, entry
