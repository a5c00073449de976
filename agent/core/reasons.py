"""The reason table: why a session ended, and what may be done about it.

Engines translate their own words into these codes (engines/reason_codes.py). The agent retries a
code outside the table (`unknown`) like a lost connection, only slower.
"""

from collections.abc import Mapping

from agent.core.model import ConnectionStatus
from agent.core.reasons_table import ROWS, Permanence, Reason

__all__ = ["REASONS", "Permanence", "Reason", "reason_of", "reasons_table"]

UNREACHABLE = "unreachable"
"""The wait reason, and the reason code of a session, while its address is away."""
NETWORK_CODES = frozenset(
    (
        *(UNREACHABLE, "connection_lost", "service_unavailable", "zombie", "start_stuck"),
        *("page_crashed", "injection_failed", "page_unusable", "unknown"),
    )
)
"""Reasons that a network which is away can cause, whatever the engine reported."""
REACHED_CODES = frozenset(
    (
        *("restart_required", "conflict", "bad_session", "temporary_ban", "restricted", "logout"),
        *("client_outdated", "browser_unsupported", "proxy_block", "qr_idle"),
        *("passkey_required", "multidevice_mismatch", "banned"),
    )
)
"""Reasons that only WhatsApp itself gives: it was reached."""

REASONS: Mapping[str, Reason] = {row.code: row for row in ROWS}


def reason_of(code: str) -> Reason:
    return REASONS.get(code) or REASONS["unknown"]


def reasons_table() -> list[tuple[str, str, str, str, str, str]]:
    """code, title, what happens, delays, status, advice: for the command line and the pages."""
    rows = []
    for row in ROWS:
        connected = row.status is ConnectionStatus.CONNECTED
        does = "stays connected" if connected else _WORDS[row.permanence]
        does += ", with a fresh worker" if row.fresh_worker else ""
        first = "default" if row.base is None else f"{row.base:g} s"
        longest = "default" if row.max is None else f"{row.max:g} s"
        delays = "-" if row.hopeless or connected else f"{first}, longest {longest}"
        rows.append((row.code, row.title, does, delays, str(row.status), row.advice))
    return rows


_WORDS = {
    Permanence.RETRY: "reconnects",
    Permanence.AT_ONCE: "reconnects at once",
    Permanence.AT_TIME: "tries once when the given time has come",
    Permanence.ONCE_IF_LOCK_OURS: "reconnects once, if no second worker runs here",
    Permanence.PROBE_SLOWLY: "probes more and more rarely",
    Permanence.WAIT_FOR_PERSON: "waits for a person",
    Permanence.NEVER: "never by itself",
}
