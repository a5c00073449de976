"""The reason table: why a session ended, and what may be done about it.

Engines translate their own words into these codes (engine_words); a code outside the table
is `unknown`: the agent retries it like a lost connection, only slower.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from agent.core.model import ConnectionStatus


class Permanence(StrEnum):
    """May we come back by ourselves, and how?"""

    RETRY = "retry"
    AT_ONCE = "at_once"
    AT_TIME = "at_time"
    ONCE_IF_LOCK_OURS = "once_if_lock_ours"
    PROBE_SLOWLY = "probe_slowly"
    WAIT_FOR_PERSON = "wait_for_person"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Reason:
    code: str
    title: str
    permanence: Permanence
    status: ConnectionStatus
    """What an instance shows while this is its last word."""
    advice: str
    """What a person should know or do."""
    base: float | None = None
    """First delay in seconds; None = the policy's own."""
    max: float | None = None
    counts_as_failure: bool = True
    """Whether the circuit breaker hears of it."""
    tries: int | None = None
    """So many tries until a connection lasts; None = as many as the policy allows."""
    endless: bool = False
    """Tried for as long as it lasts, whatever the count of attempts: no login was reached."""
    fresh_worker: bool = False
    """Reconnecting inside the worker is useless: only a new worker helps."""
    unpairs: bool = False
    """WhatsApp no longer knows the pairing: its files are evidence, not a session."""
    scan_again: bool = False
    """Only a new scan by a person is missing."""

    @property
    def final(self) -> bool:
        """WhatsApp said no for good: not even one more login by ourselves."""
        return self.permanence is Permanence.NEVER

    @property
    def hopeless(self) -> bool:
        """Only a person can end this one."""
        return self.permanence in (Permanence.NEVER, Permanence.WAIT_FOR_PERSON)


_RECONNECTING = ConnectionStatus.RECONNECTING
_DISCONNECTED = ConnectionStatus.DISCONNECTED
_REFUSED = ConnectionStatus.AUTH_FAILURE

_ROWS = (
    Reason(
        "connection_lost",
        "the connection was lost or timed out",
        Permanence.RETRY,
        _RECONNECTING,
        "Nothing to do; check the network if it lasts.",
        base=1.0,
    ),
    Reason(
        "connection_closed",
        "WhatsApp closed the connection",
        Permanence.RETRY,
        _RECONNECTING,
        "Nothing to do.",
        base=1.0,
    ),
    Reason(
        "service_unavailable",
        "WhatsApp or the backend is not available",
        Permanence.RETRY,
        _RECONNECTING,
        "Nothing to do; the session comes back by itself.",
        base=5.0,
    ),
    Reason(
        "unreachable",
        "this machine cannot reach its server",
        Permanence.RETRY,
        _RECONNECTING,
        "Nothing to do: the agent probes the address and connects as soon as it answers.",
        base=1.0,
    ),
    Reason(
        "restart_required",
        "WhatsApp asks for a new connection (usual after a pairing)",
        Permanence.AT_ONCE,
        _RECONNECTING,
        "Nothing to do.",
        base=0.0,
        counts_as_failure=False,
    ),
    Reason(
        "conflict",
        "another connection with the same keys took the session over",
        Permanence.ONCE_IF_LOCK_OURS,
        _DISCONNECTED,
        "Find the second copy of this session (another server, a copied folder) and stop it.",
        base=30.0,
        tries=1,
    ),
    Reason(
        "bad_session",
        "WhatsApp refused the session for an unknown cause",
        Permanence.RETRY,
        _RECONNECTING,
        "If it stays, check the session's files and restore a snapshot.",
        tries=2,
    ),
    Reason(
        "page_crashed",
        "the page or the browser broke down",
        Permanence.RETRY,
        _RECONNECTING,
        "Nothing to do; check the memory if it repeats.",
        fresh_worker=True,
    ),
    Reason(
        "client_crashed",
        "the client program of the session ended, hung or sent garbage",
        Permanence.RETRY,
        _RECONNECTING,
        "Nothing to do; if it repeats, `wa-agent doctor` checks Node and its packages.",
        fresh_worker=True,
    ),
    Reason(
        "injection_failed",
        "WhatsApp Web loaded, but the injected script did not find the modules it needs",
        Permanence.RETRY,
        _RECONNECTING,
        "If it lasts, WhatsApp changed its page: upgrade, or set page=known_good until then.",
        base=10.0,
        max=120.0,
        counts_as_failure=False,
        endless=True,
        fresh_worker=True,
    ),
    Reason(
        "page_http_error",
        "WhatsApp Web's server answered with an HTTP error instead of the page",
        Permanence.RETRY,
        _RECONNECTING,
        "Nothing to do if it passes; the detail has the status, the address and the title.",
        base=5.0,
        max=60.0,
        counts_as_failure=False,
        endless=True,
    ),
    Reason(
        "page_silent",
        "WhatsApp Web's server took the connection and sent no page, or only a part of it",
        Permanence.RETRY,
        _RECONNECTING,
        "Check the network, its firewall or the proxy if it lasts.",
        base=5.0,
        max=60.0,
        counts_as_failure=False,
        endless=True,
    ),
    Reason(
        "page_elsewhere",
        "WhatsApp Web's address led to another page",
        Permanence.RETRY,
        _RECONNECTING,
        "Open the address that the detail names: a firewall or proxy may have put it there.",
        base=10.0,
        max=60.0,
        counts_as_failure=False,
        endless=True,
    ),
    Reason(
        "captive_portal",
        "another page came instead of WhatsApp Web, probably the network's login page",
        Permanence.RETRY,
        _RECONNECTING,
        "Log this machine in to its network; the detail has the page's address.",
        base=10.0,
        max=60.0,
        counts_as_failure=False,
        endless=True,
    ),
    Reason(
        "certificate_error",
        "the server that answered for WhatsApp Web has an invalid certificate",
        Permanence.RETRY,
        _RECONNECTING,
        "Check the machine's clock, its ca-certificates, and any proxy that answers for WhatsApp.",
        base=10.0,
        max=60.0,
        counts_as_failure=False,
        endless=True,
    ),
    Reason(
        "page_reloads",
        "WhatsApp Web's page loaded itself again and again",
        Permanence.RETRY,
        _RECONNECTING,
        "If it lasts, WhatsApp changed its page: upgrade, or set page=known_good until then.",
        base=10.0,
        max=120.0,
        counts_as_failure=False,
        endless=True,
        fresh_worker=True,
    ),
    Reason(
        "browser_unsupported",
        "WhatsApp Web says that it does not support this browser",
        Permanence.PROBE_SLOWLY,
        _DISCONNECTED,
        "Upgrade the browser (apt-get upgrade). The pairing is still good: do not pair again.",
        base=600.0,
        max=1800.0,
        counts_as_failure=False,
    ),
    Reason(
        "server_browser_stuck",
        "the server still runs an old browser of this session, which blocks every start",
        Permanence.WAIT_FOR_PERSON,
        _DISCONNECTED,
        "Restart the server (whaticket): none of its routes ends that browser. The pairing stays.",
        counts_as_failure=False,
    ),
    Reason(
        "storage_failed",
        "the engine could not read or write the session's files",
        Permanence.RETRY,
        _RECONNECTING,
        "Check the disk: space, rights, read-only mounts.",
        base=10.0,
        fresh_worker=True,
    ),
    Reason(
        "zombie",
        "the engine claimed to be connected and answered no ping",
        Permanence.AT_ONCE,
        _RECONNECTING,
        "Nothing to do.",
        base=0.0,
        fresh_worker=True,
    ),
    Reason(
        "start_stuck",
        "a phase of the start took too long",
        Permanence.AT_ONCE,
        _RECONNECTING,
        "Nothing to do; if it repeats, the named phase shows where to look.",
        base=0.0,
        fresh_worker=True,
    ),
    Reason(
        "worker_failed",
        "the worker failed more often than its host restarts it",
        Permanence.RETRY,
        _RECONNECTING,
        "Read the worker's log: `journalctl -u wa-instance@ID`, or run/ID/worker.log.",
        base=10.0,
        fresh_worker=True,
    ),
    Reason(
        "unknown",
        "the session ended for a reason that is not in the table",
        Permanence.RETRY,
        _RECONNECTING,
        "Nothing to do yet; the journal has the engine's own word.",
    ),
    Reason(
        "temporary_ban",
        "WhatsApp banned the account for a time",
        Permanence.AT_TIME,
        _DISCONNECTED,
        "Wait until it ends; send less, and not to strangers.",
        base=3600.0,
        max=86400.0,
        counts_as_failure=False,
        tries=1,
    ),
    Reason(
        "restricted",
        "WhatsApp lets the account answer known chats only",
        Permanence.AT_TIME,
        ConnectionStatus.CONNECTED,
        "Stop writing to new contacts until it ends; a restart does not help.",
        base=3600.0,
        max=86400.0,
        counts_as_failure=False,
    ),
    Reason(
        "client_outdated",
        "WhatsApp no longer accepts this version of the client",
        Permanence.PROBE_SLOWLY,
        _DISCONNECTED,
        "Upgrade the engine. The pairing is still good: do not pair again.",
        base=1800.0,
        max=1800.0,
        counts_as_failure=False,
    ),
    Reason(
        "proxy_block",
        "WhatsApp refuses this address or proxy",
        Permanence.WAIT_FOR_PERSON,
        _DISCONNECTED,
        "Use another address or proxy.",
    ),
    Reason(
        "bad_client",
        "WhatsApp refuses how the client describes itself",
        Permanence.WAIT_FOR_PERSON,
        _DISCONNECTED,
        "Correct the engine's user agent or version setting.",
    ),
    Reason(
        "misconfigured",
        "the worker cannot run with its configuration",
        Permanence.WAIT_FOR_PERSON,
        _DISCONNECTED,
        "Read the worker's last line, correct the setting, then start the instance.",
    ),
    Reason(
        "bundle_missing",
        "the wa-js bundle that the web engine needs is missing or has a wrong checksum",
        Permanence.RETRY,
        _DISCONNECTED,
        "Fetch it with the command that `wa-agent doctor` prints; the next try finds it.",
        base=5.0,
        max=60.0,
        counts_as_failure=False,
        endless=True,
    ),
    Reason(
        "browser_missing",
        "the browser that the web engine needs is missing",
        Permanence.RETRY,
        _DISCONNECTED,
        "Install the package that `wa-agent doctor` names; the next try finds it.",
        base=5.0,
        max=60.0,
        counts_as_failure=False,
        endless=True,
    ),
    Reason(
        "node_missing",
        "the Node that the baileys engine needs is missing or too old",
        Permanence.RETRY,
        _DISCONNECTED,
        "Install it as `wa-agent doctor` says; the next try finds it.",
        base=5.0,
        max=60.0,
        counts_as_failure=False,
        endless=True,
    ),
    Reason(
        "packages_missing",
        "the npm packages that the baileys engine needs are missing",
        Permanence.RETRY,
        _DISCONNECTED,
        "Fetch them with the command that `wa-agent doctor` prints; the next try finds them.",
        base=5.0,
        max=60.0,
        counts_as_failure=False,
        endless=True,
    ),
    Reason(
        "profile_in_use",
        "another browser has the session's profile open",
        Permanence.RETRY,
        _DISCONNECTED,
        "Close that browser: the detail has its process number. The agent leaves the files alone.",
        base=10.0,
        max=60.0,
        counts_as_failure=False,
        endless=True,
    ),
    Reason(
        "qr_idle",
        "the QR codes expired without a scan, and WhatsApp sends no more",
        Permanence.WAIT_FOR_PERSON,
        ConnectionStatus.QR_REQUIRED,
        "Ask for a new QR code and scan it.",
        counts_as_failure=False,
    ),
    Reason(
        "passkey_required",
        "WhatsApp asks the account's owner for a passkey before it links a device",
        Permanence.WAIT_FOR_PERSON,
        ConnectionStatus.QR_REQUIRED,
        "No server can answer it: link the account at a desk, in an ordinary browser with the"
        " owner's own passkey, then import that session here.",
        counts_as_failure=False,
    ),
    Reason(
        "session_damaged",
        "the session's files are damaged",
        Permanence.WAIT_FOR_PERSON,
        _REFUSED,
        "Restore a snapshot; the agent keeps the damaged files.",
    ),
    Reason(
        "session_missing",
        "the files of a paired session are gone",
        Permanence.WAIT_FOR_PERSON,
        _REFUSED,
        "Find the files, or restore a snapshot or the session from the trash.",
    ),
    Reason(
        "session_unreadable",
        "the agent cannot use its session folder at the moment",
        Permanence.WAIT_FOR_PERSON,
        _REFUSED,
        "Put the folder or its rights back; the agent checks every second and then starts it.",
        counts_as_failure=False,
    ),
    Reason(
        "unpaired_suspect",
        "a paired session came up unpaired without a logout",
        Permanence.WAIT_FOR_PERSON,
        _REFUSED,
        "Do not scan yet: a snapshot may restore the old pairing.",
    ),
    Reason(
        "remote_missing",
        "its backend knows no session of that name",
        Permanence.WAIT_FOR_PERSON,
        _DISCONNECTED,
        "Find out why it is gone there; `wa-agent ensure-healthy ID` creates it again with a code.",
        counts_as_failure=False,
        unpairs=True,
    ),
    Reason(
        "remote_disagrees",
        "its backend reports two different states of it",
        Permanence.RETRY,
        _RECONNECTING,
        "Nothing to do; the agent repairs it, and the journal says how.",
    ),
    Reason(
        "logout",
        "the account removed this linked device",
        Permanence.NEVER,
        _REFUSED,
        "Scan a new QR code.",
        counts_as_failure=False,
        unpairs=True,
        scan_again=True,
    ),
    Reason(
        "multidevice_mismatch",
        "the account does not take this kind of linked device",
        Permanence.NEVER,
        _REFUSED,
        "Pair again with a current client.",
        counts_as_failure=False,
        unpairs=True,
    ),
    Reason(
        "account_locked",
        "WhatsApp locked the account, or its phone is gone",
        Permanence.NEVER,
        _REFUSED,
        "Repair the account on the phone, then pair again.",
        counts_as_failure=False,
        unpairs=True,
    ),
    Reason(
        "tos_block",
        "WhatsApp blocked the account for its terms of service",
        Permanence.NEVER,
        _REFUSED,
        "Settle it with WhatsApp on the phone; the agent cannot help.",
        counts_as_failure=False,
        unpairs=True,
    ),
    Reason(
        "banned",
        "WhatsApp banned the account",
        Permanence.NEVER,
        _REFUSED,
        "Appeal on the phone; the agent cannot help.",
        counts_as_failure=False,
        unpairs=True,
    ),
)

REASONS: Mapping[str, Reason] = {row.code: row for row in _ROWS}


def reason_of(code: str) -> Reason:
    return REASONS.get(code) or REASONS["unknown"]


def reasons_table() -> list[tuple[str, str, str, str, str, str]]:
    """code, title, what happens, delays, status, advice: for the command line and the pages."""
    return [
        (row.code, row.title, _may_do(row), _delays(row), str(row.status), row.advice)
        for row in _ROWS
    ]


_WORDS = {
    Permanence.RETRY: "reconnects",
    Permanence.AT_ONCE: "reconnects at once",
    Permanence.AT_TIME: "tries once when the given time has come",
    Permanence.ONCE_IF_LOCK_OURS: "reconnects once, if no second worker runs here",
    Permanence.PROBE_SLOWLY: "probes rarely",
    Permanence.WAIT_FOR_PERSON: "waits for a person",
    Permanence.NEVER: "never by itself",
}


def _may_do(row: Reason) -> str:
    if row.status is ConnectionStatus.CONNECTED:
        return "stays connected"
    words = _WORDS[row.permanence]
    if row.tries is not None and row.permanence is Permanence.RETRY:
        words = f"{words}, {row.tries} tries"
    if row.endless:
        words = f"{words}, for as long as it lasts"
    return f"{words}, with a fresh worker" if row.fresh_worker else words


def _delays(row: Reason) -> str:
    if row.hopeless or row.status is ConnectionStatus.CONNECTED:
        return "-"
    first = "default" if row.base is None else f"{row.base:g} s"
    longest = "default" if row.max is None else f"{row.max:g} s"
    return f"{first}, longest {longest}"
