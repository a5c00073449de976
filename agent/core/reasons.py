"""The reason table: why a session ended, and what may be done about it.

Engines translate their own words into these codes (engines/whatsapp.py). The agent retries a
code outside the table (`unknown`) like a lost connection, only slower.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from agent.core.words import UNPAIRING, ConnectionStatus


class Permanence(StrEnum):
    """How the agent itself tries again after this reason, if at all."""

    RETRY = "reconnects"
    AT_ONCE = "reconnects at once"
    AT_TIME = "tries when the given time has come"
    PROBE_SLOWLY = "probes more and more rarely"
    WAIT_FOR_PERSON = "waits for a person"
    NEVER = "never by itself"


@dataclass(frozen=True, slots=True)
class Reason:
    code: str
    title: str
    advice: str
    """A sentence for a person: what to know, or to do."""
    permanence: Permanence = Permanence.RETRY
    status: ConnectionStatus = ConnectionStatus.RECONNECTING
    """The status of an instance while this is the last word about it."""
    base: float | None = None
    """First delay in seconds; None = the policy's own."""
    max: float | None = None
    tries: int | None = None
    """Tries until a connection lasts; None = as many as the policy allows."""
    endless: bool = False
    """True if tries go on whatever the count of attempts: no login was reached."""
    fresh_worker: bool = False
    """True if reconnecting inside the worker is useless: only a new worker helps."""
    local: bool = False
    """The cause is on this machine: many at once prove nothing about WhatsApp or the way to it, the
    circuit breaker does not count it, and no pause is longer than a minute."""
    detailed: bool = False
    """True if the engine's words (HTTP status, address, title) belong to the title."""
    scan_again: bool = False
    """True if only a new scan by a person is missing."""

    @property
    def unpairs(self) -> bool:
        """True if WhatsApp no longer knows the pairing: its files are evidence, not a session."""
        return self.code in UNPAIRING

    @property
    def final(self) -> bool:
        """True if WhatsApp ended the session for good: the agent makes not even one more login."""
        return self.permanence is Permanence.NEVER

    def advice_for(self, id: str) -> str:
        """Return the advice with commands for this instance, for which the word ID stands."""
        return re.sub(r"\bID\b", id, self.advice)

    def in_full(self, id: str, more: str = "") -> str:
        """Return title and advice: a sentence for people, with the command to type."""
        title = f"{self.title}: {more}" if more else self.title
        return f"{title}. {self.advice_for(id)}"

    def title_with(self, raw: str) -> str:
        return f"{self.title}: {raw}" if self.detailed and raw else self.title

    @property
    def counts_as_failure(self) -> bool:
        """True if the circuit breaker counts it: a login failed that the agent tries again."""
        spared = self.local or self.endless or self.unpairs or self.hopeless or self.slow
        waits = self.permanence is Permanence.AT_TIME or self.status is ConnectionStatus.QR_REQUIRED
        return not (spared or waits)

    @property
    def slow(self) -> bool:
        """True if the agent goes on trying, ever more rarely; a person should act."""
        return self.permanence is Permanence.PROBE_SLOWLY

    @property
    def hopeless(self) -> bool:
        """True if only a person can end this one."""
        return self.permanence in (Permanence.NEVER, Permanence.WAIT_FOR_PERSON)


_DISCONNECTED = ConnectionStatus.DISCONNECTED
_REFUSED = ConnectionStatus.AUTH_FAILURE
_at_once = partial(Reason, permanence=Permanence.AT_ONCE, base=0.0)
_slow = partial(Reason, permanence=Permanence.PROBE_SLOWLY, status=_DISCONNECTED)
_endless = partial(Reason, endless=True, detailed=True)
_local = partial(Reason, local=True)
_for_person = partial(Reason, permanence=Permanence.WAIT_FOR_PERSON, status=_DISCONNECTED)
_of_files = partial(_for_person, status=_REFUSED, local=True)
"""A reason of which the session's own files are the trouble: a person decides."""
_never = partial(Reason, permanence=Permanence.NEVER, status=_REFUSED)

ROWS = (
    Reason(
        "connection_lost",
        "the connection was lost, or WhatsApp closed it",
        "Nothing to do; check the network if it lasts.",
        base=1.0,
    ),
    Reason(
        "service_unavailable",
        "WhatsApp or the backend is not available",
        "Nothing to do; the session comes back by itself.",
        base=5.0,
    ),
    Reason(
        "unreachable",
        "this machine cannot reach its server",
        "Nothing to do: the agent probes the address and connects as soon as it answers.",
        base=1.0,
        detailed=True,
    ),
    _endless(
        "no_lease",
        "the machine of this session holds no lease of its fleet",
        "`wa-agent fleet status` shows the leases; the session starts with the next one.",
        max=2.0,
        fresh_worker=True,
    ),
    _endless(
        "held_elsewhere",
        "another worker on this machine holds this session, or a copy of it",
        "`ps ax | grep agent.worker` shows both: end the one that should not run. Do not scan.",
        max=5.0,
        fresh_worker=True,
    ),
    _at_once(
        "restart_required",
        "WhatsApp asks for a new connection (as it does once after each pairing)",
        "Nothing to do.",
    ),
    Reason(
        "conflict",
        "another connection with the same keys took the session over",
        "Find the second copy of this session (another server, a copied folder) and stop it.",
        status=_DISCONNECTED,
        base=30.0,
        tries=1,
    ),
    Reason(
        "bad_session",
        "WhatsApp refused the session for an unknown cause",
        "Nothing to do: the agent tries ever less often. If it stays, restore a snapshot.",
        base=10.0,
        max=3600.0,
    ),
    Reason(
        "page_crashed",
        "the page or the browser broke down",
        "Nothing to do; check the memory if it repeats.",
        fresh_worker=True,
    ),
    _local(
        "client_crashed",
        "the client program of the session ended, hung or sent garbage",
        "Nothing to do; if it repeats, `wa-agent doctor` checks Node and its packages.",
        base=0.1,
    ),
    _endless(
        "not_told",
        "its program runs, and does not tell whether its session is connected",
        "Nothing to do: it is kept alive. The page of the program engine has what it can tell.",
        status=ConnectionStatus.INITIALIZING,
        local=True,
    ),
    _endless(
        "program_ended",
        "its program ended, or was ended because it hung",
        "Nothing to do; if it repeats, the worker's log has the program's last lines.",
        base=1.0,
        local=True,
    ),
    _slow(
        "program_failing",
        "its program ends again and again",
        "Correct what its last lines name (`wa-agent logs ID`), then `wa-agent restart ID`.",
        base=10.0,
        detailed=True,
        local=True,
    ),
    _slow(
        "program_missing",
        "the program of this session cannot be started",
        "Correct what the reason names: its [[program]], its files or rights; `wa-agent doctor`"
        " checks it, and the next try finds it.",
        base=5.0,
        detailed=True,
        local=True,
    ),
    _endless(
        "injection_failed",
        "WhatsApp Web loaded, but the injected script cannot work in its page",
        "If it lasts, WhatsApp changed its page: upgrade, or set page=known_good until then.",
        base=10.0,
        max=120.0,
        fresh_worker=True,
    ),
    _endless(
        "page_unusable",
        "WhatsApp Web's page did not come: an error, another page, or nothing",
        "The reason names what came. If it lasts: the network's login page, its firewall or proxy;"
        " for a certificate the machine's clock and ca-certificates.",
        base=10.0,
        max=60.0,
    ),
    _slow(
        "browser_unsupported",
        "WhatsApp Web says that it does not support this browser",
        "Upgrade the browser (apt-get upgrade). No pairing ends by this: do not pair again.",
        base=10.0,
        max=1800.0,
        detailed=True,
    ),
    _for_person(
        "server_stuck",
        "the server still runs an old browser or a second connection of this session",
        "Restart the server: that ends no pairing. If it stays, stop what else has the same keys.",
    ),
    _local(
        "storage_failed",
        "the engine could not read or write the session's files",
        "Check the disk: space, rights, read-only mounts.",
        base=10.0,
        fresh_worker=True,
    ),
    _at_once(
        "zombie",
        "the engine claimed to be connected and answered no ping",
        "Nothing to do.",
        fresh_worker=True,
    ),
    _at_once(
        "start_stuck",
        "a phase of the start took too long",
        "Nothing to do; if it repeats, the named phase shows where to look.",
        fresh_worker=True,
    ),
    _local(
        "worker_failed",
        "its worker, or the client in it, ended more often than it is started again",
        "Read the worker's log: `journalctl -u wa-instance@ID`, or run/ID/worker.log.",
        base=10.0,
        fresh_worker=True,
    ),
    Reason(
        "unknown",
        "the session ended for a reason that is not in the table",
        "Nothing to do yet; the journal has the engine's own word.",
    ),
    Reason(
        "temporary_ban",
        "WhatsApp banned the account for a time",
        "Wait until the ban ends; send less, and not to strangers.",
        permanence=Permanence.AT_TIME,
        status=_DISCONNECTED,
        base=3600.0,
        max=86400.0,
        tries=1,
    ),
    Reason(
        "restricted",
        "WhatsApp lets the account answer known chats only",
        "Stop writing to new contacts until the restriction ends; a restart does not help.",
        permanence=Permanence.AT_TIME,
        status=ConnectionStatus.CONNECTED,
        base=3600.0,
        max=86400.0,
    ),
    _slow(
        "client_outdated",
        "WhatsApp no longer accepts this version of the client",
        "Upgrade wa-agent, or its library: agent/engines/README.md. Do not pair again.",
        base=120.0,
        max=900.0,
    ),
    _for_person(
        "proxy_block",
        "WhatsApp refuses this address, this proxy or how the client describes itself",
        "Use another address or proxy, or correct the engine's user agent or version setting.",
    ),
    _for_person(
        "misconfigured",
        "the worker cannot run with its configuration",
        "Read the worker's last line, correct the setting, then start the instance.",
        local=True,
    ),
    _endless(
        "parts_missing",
        "a part that its engine needs on this machine is missing or damaged",
        "Fetch it with the command that `wa-agent doctor` prints; the next try finds it.",
        status=_DISCONNECTED,
        base=5.0,
        local=True,
    ),
    _local(
        "profile_in_use",
        "another browser has the session's profile open",
        "Close that browser: the detail has its process number. The agent leaves the files alone.",
        status=_DISCONNECTED,
        base=10.0,
        endless=True,
    ),
    _for_person(
        "qr_idle",
        "the QR codes expired without a scan, and WhatsApp sends no more by itself",
        "`wa-agent qr ID --watch` asks for a new one; scan it.",
        status=ConnectionStatus.QR_REQUIRED,
    ),
    _for_person(
        "passkey_required",
        "WhatsApp asks the account's owner for a passkey before it links a device",
        "No server can answer for the owner, who links the account at a desk: `wa-agent pair --out"
        " FILE` there, then `wa-agent import FILE ID --replace --enable` here.",
        status=ConnectionStatus.QR_REQUIRED,
    ),
    Reason(
        "passkey_suspected",
        "WhatsApp accepted the code and never completed the pairing; it may want a passkey",
        "Scan the new code once more. If that ends the same way, the owner links it at a desk:"
        " `wa-agent pair --out FILE`; here then `wa-agent import FILE ID --replace --enable`.",
        status=ConnectionStatus.QR_REQUIRED,
    ),
    _of_files(
        "session_damaged",
        "the session's files are damaged",
        "`wa-agent snapshots ID` lists copies; `wa-agent restore ID NAME --force` puts one back."
        " Without a copy the agent shows a new code, and the trash keeps the damaged files.",
    ),
    _of_files(
        "session_missing",
        "the files of a paired session are gone",
        "Find the files, or restore a copy that `wa-agent snapshots ID` lists, or the session from"
        " the trash. Where there is none, `wa-agent ensure-healthy ID --yes` shows a new code.",
    ),
    _of_files(
        "session_foreign",
        "the session's files are another account's, or were changed since the last login",
        "Put its own files back (`wa-agent snapshots ID`, `wa-agent restore ID NAME --force`): the"
        " next check restarts the session then. Another account's session moves in with `wa-agent"
        " import` under a name of its own.",
    ),
    _of_files(
        "other_account",
        "the session of that name on its backend is another account's now",
        "The agent sends nothing from it. `wa-agent backends sessions NAME` shows their accounts."
        " Where sessions were exchanged, put that right there: the session goes on. If the other"
        " account is meant: `wa-agent delete ID`, then `wa-agent backends adopt NAME SESSION`.",
    ),
    _of_files(
        "session_unreadable",
        "the agent cannot use its session folder at the moment",
        "Put the folder or its rights back; the agent looks each second, and starts it then."
        " Sessions may lie on another disk, but not behind links: set `session_storage_path`.",
    ),
    _for_person(
        "unpaired_suspect",
        "a paired session came up unpaired without a logout",
        "Do not scan yet: a copy of `wa-agent snapshots ID`, or its server if it is on one, may"
        " have the old pairing. If none has, `wa-agent ensure-healthy ID --yes` shows a new code.",
        status=_REFUSED,
    ),
    _for_person(
        "remote_missing",
        "its backend knows no session of that name",
        "Find out why; `wa-agent ensure-healthy ID --yes` creates it again, with a code to scan.",
    ),
    Reason(
        "renewal_unfinished",
        "the agent deleted the session on its backend, and ended before it created it again",
        "Nothing to do; the agent creates it again with its token, settings and webhook.",
        status=_DISCONNECTED,
    ),
    _never(
        "logout", "the account removed this linked device", "Scan a new QR code.", scan_again=True
    ),
    _slow(
        "multidevice_mismatch",
        "the account does not take this kind of linked device",
        "`wa-agent start ID` makes one more try at once. If the reason stays, upgrade the engine;"
        " pair again only if that does not help.",
        base=120.0,
        max=900.0,
    ),
    _never(
        "banned",
        "WhatsApp banned, blocked or locked the account",
        "Settle it with WhatsApp on the phone, then pair again; the agent cannot help.",
    ),
)

UNREACHABLE = "unreachable"
"""The wait reason, and the reason code of a session, while its address is away."""
NETWORK_CODES = {
    *(UNREACHABLE, "connection_lost", "service_unavailable", "zombie", "start_stuck"),
    *("page_crashed", "injection_failed", "page_unusable", "unknown"),
}
"""Reasons that a network which is away can cause, whatever the engine reported."""
REACHED_CODES = {
    *("restart_required", "conflict", "bad_session", "temporary_ban", "restricted", "logout"),
    *("client_outdated", "browser_unsupported", "proxy_block", "qr_idle"),
    *("passkey_required", "multidevice_mismatch", "banned"),
}
"""Reasons that only WhatsApp itself gives, which prove that it was reached."""

REASONS = {row.code: row for row in ROWS}


def reason_of(code: str) -> Reason:
    return REASONS.get(code) or REASONS["unknown"]


def reasons_table() -> list[tuple[str, str, str, str, str, str]]:
    """Return rows of code, title, what happens, delays, status, advice, for commands and pages."""
    rows = []
    for row in ROWS:
        connected = row.status is ConnectionStatus.CONNECTED
        does = "stays connected" if connected else row.permanence.value
        does += ", with a fresh worker" if row.fresh_worker else ""
        does += ", once" if row.tries == 1 else ""
        first = "default" if row.base is None else f"{row.base:g} s"
        longest = "default" if row.max is None else f"{row.max:g} s"
        delays = "-" if row.hopeless or connected else f"{first}, longest {longest}"
        rows.append((row.code, row.title, does, delays, str(row.status), row.advice))
    return rows
