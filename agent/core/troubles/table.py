"""The table of troubles, and the counters that their conditions compare."""

from collections.abc import Callable

from agent.core.findings.crypto_patterns import OF_KEYS
from agent.core.health.wanted import has_given_up, is_silent
from agent.core.model import ConnectionStatus as CS
from agent.core.model import Health
from agent.core.reasons import REASONS
from agent.core.recovery.repair import RecoveryKind
from agent.core.session import Session
from agent.core.troubles.trouble import Condition, Found, Of, Row, Severity, Sight
from agent.core.view import BackendView
from agent.core.words import PASSKEY_REQUIRED, PASSKEY_SUSPECTED

MINUTE = 60.0
TOGETHER = 3
"""So many sessions at once have one cause."""
KEY_ERRORS = 0.10
RECONNECTS = 10
HANGS = 2
FAILED_SENDS = 5
OLD = 15 * MINUTE
DISK_LOW, DISK_FULL, OPEN_FILES = 0.10, 0.02, 0.80
_ENDED = tuple(code for code, reason in REASONS.items() if reason.final)
"""WhatsApp ended the pairing or the account."""
_KEYS_FAILED = (RecoveryKind.REGENERATE_KEYS.value, "failed")


def counted_of(view: Session) -> dict[str, float]:
    """The counters of a session that conditions look back at."""
    errors, keys = view.counters.errors, view.crypto_operations
    return {
        "reconnects": sum(view.counters.by_word["reconnects"].values()),
        "hangs": view.counters.by_word["restarts"].get("watchdog", 0),
        "keys_failed": view.counters.by_word["key_regenerations"].get("failed", 0),
        "key_steps_failed": view.counters.repair_steps.get(_KEYS_FAILED, 0),
        "unreadable": keys.get("failed", 0),
        "decryptions": sum(keys.values()) if view.counts_messages else 0,
        "ended": sum(errors.get(code, 0) for code in _ENDED),
        "errors": sum(count for kind, count in errors.items() if kind not in OF_KEYS),
        "done": view.counters.probes + sum(view.counters.messages.values()),
    }


def of_session(judge: Callable[[Session], Found]) -> Condition:
    return lambda sight, who: judge(sight.sessions[who])


def of_backend(judge: Callable[[BackendView], Found]) -> Condition:
    return lambda sight, who: judge(sight.backends[who])


def _reason(code: str) -> Condition:
    return of_session(lambda view: view.reason == code)


def _down(view: Session) -> Found:
    if view.status is CS.CONNECTED:
        return False
    # A code that stays lacks only a scan; one that comes and goes lacks more.
    return None if view.status is CS.QR_REQUIRED else _because(view.reason)


def _because(code: str) -> str:
    return f": {code}" if code else ""


def _rose(name: str, seconds: float, most: float) -> Condition:
    return lambda sight, who: (
        f"{rise:g}" if (rise := sight.rise(who, name, seconds)) > most else None
    )


def _share(part: float, whole: float, limit: float) -> str | None:
    return f"{part / whole:.0%}" if whole > 0 and part / whole > limit else None


def _key_errors(sight: Sight, who: str) -> str | None:
    failed = sight.rise(who, "unreadable", 5 * MINUTE)
    return _share(failed, sight.rise(who, "decryptions", 5 * MINUTE), KEY_ERRORS)


def _keys_not_renewed(sight: Sight, who: str) -> str | None:
    if sight.rise(who, "keys_failed", 15 * MINUTE):
        return ""
    # Where an error names no contact and no record is damaged, the step finds nothing to renew.
    tried = sight.rise(who, "key_steps_failed", 15 * MINUTE)
    return "" if tried and sight.sessions[who].verdict.health is Health.CORRUPTED else None


def _memory(critical: bool) -> Condition:
    def judge(sight: Sight, who: str) -> str | None:
        view, limits = sight.sessions[who], sight.limits
        limit = limits.memory_critical if critical else limits.memory_warn
        return _share(view.run.memory_bytes or 0, view.memory_limit, limit)

    return judge


def _machine_memory(critical: bool) -> Condition:
    def judge(sight: Sight, _: str) -> str | None:
        used, total = (sight.machine[f"wa_host_memory_{what}_bytes"] for what in ("used", "total"))
        limits = sight.limits
        return _share(used, total, limits.memory_critical if critical else limits.memory_warn)

    return judge


def _machine_cpu(sight: Sight, _: str) -> str | None:
    return _share(sight.machine["wa_host_cpu_usage_ratio"], 1, sight.limits.cpu)


def _disk(least: float) -> Condition:
    def judge(sight: Sight, _: str) -> str | None:
        size = sight.machine.get("wa_host_filesystem_size_bytes")
        free = sight.machine.get("wa_host_filesystem_avail_bytes", 0.0)
        return f"{free / size:.0%}" if size and free / size < least else None

    return judge


def _open_files(sight: Sight, _: str) -> str | None:
    return _share(sight.machine["process_open_fds"], sight.machine["process_max_fds"], OPEN_FILES)


def _slow(sight: Sight, who: str) -> str | None:
    seconds = sight.sessions[who].response_seconds
    return f"{seconds:.0f} s" if seconds is not None and seconds > sight.limits.slow else None


def _together(count: Callable[[Sight, str], bool]) -> Condition:
    def judge(sight: Sight, _: str) -> str | None:
        number = sum(count(sight, who) for who in sight.sessions)
        return str(number) if number >= TOGETHER else None

    return judge


def _is_corrupted(sight: Sight, who: str) -> bool:
    return sight.sessions[who].verdict.health is Health.CORRUPTED


def _error_rate(sight: Sight, _: str) -> str | None:
    limit, window = sight.limits.error_rate, 5 * MINUTE
    up = {who for who, view in sight.sessions.items() if view.status is CS.CONNECTED}
    # A session that is down while others are connected has a trouble of its own.
    counting = up or set(sight.sessions)
    failed = sum(sight.rise(who, "errors", window) for who in counting)
    done = sum(sight.rise(who, "done", window) for who in sight.sessions)
    requests = sight.rise("", "requests", window)
    return _share(failed, failed + done, limit) or _share(
        sight.rise("", "requests_failed", window), requests, limit
    )


def _age(at: float | None, wall: float) -> str | None:
    age = 0.0 if at is None else wall - at
    return f"{age / MINUTE:.0f} minutes" if age > OLD else None


S, B, M = Of.SESSION, Of.BACKEND, Of.MACHINE
BAD, WARN = Severity.CRITICAL, Severity.WARNING
_DOWN = ("down", "circuit_open")
KEEPS_ENDING = ("worker_failed", "client_failing", "program_failing")

TABLE = (
    Row(
        "down",
        WARN,
        S,
        of_session(_down),
        "{who} should be connected and is not{value}",
        "`wa-agent why {who}` says what is wrong and when the next try is due. If many are down,"
        " look at the network first. `wa-agent recover {who}` tries now.",
        wait=5 * MINUTE,
        hold=MINUTE,
        covers=("circuit_open", "needs_scan"),
        of_incident=True,
    ),
    Row(
        "needs_scan",
        WARN,
        S,
        of_session(
            lambda view: (
                False if view.status is CS.CONNECTED else view.status is CS.QR_REQUIRED or None
            )
        ),
        "{who} waits for a person to scan its QR code",
        "`wa-agent qr {who} --watch` or its page shows the code; scan it with the phone (Linked"
        " devices). `wa-agent events {who}` says why an earlier pairing ended.",
        wait=5 * MINUTE,
        hold=MINUTE,
    ),
    Row(
        "given_up",
        BAD,
        S,
        of_session(lambda view: _because(view.reason) if has_given_up(view) else None),
        "the agent has given {who} up; a person must look at it{value}",
        "`wa-agent why {who}` names the reason and the command that tries again.",
        covers=_DOWN,
    ),
    Row(
        "temporary_ban",
        BAD,
        S,
        _reason("temporary_ban"),
        "WhatsApp banned the account of {who} for a time",
        "Each login makes it longer: the agent tries once when the ban is over. Stop every program"
        " that sends through this account, and send less afterwards.",
        covers=(*_DOWN, "given_up"),
    ),
    Row(
        "client_outdated",
        BAD,
        S,
        _reason("client_outdated"),
        "WhatsApp no longer accepts the client of {who}",
        "The pairing is good: do not scan again. Upgrade the engine (`wa-agent doctor`), or the"
        " server of its backend; the agent tries again by itself within minutes.",
        covers=(*_DOWN, "given_up"),
        of_incident=True,
    ),
    Row(
        "passkey_required",
        BAD,
        S,
        _reason(PASSKEY_REQUIRED),
        "WhatsApp asks the owner of {who} for a passkey: it can only be linked at a desk",
        "Another scan ends the same way. The owner links the account at a desk with `wa-agent pair"
        " --out FILE`; `wa-agent import FILE {who} --replace --enable` takes it here.",
        covers=("needs_scan",),
    ),
    Row(
        "passkey_suspected",
        WARN,
        S,
        _reason(PASSKEY_SUSPECTED),
        "WhatsApp accepted the code of {who} and linked nothing; it may want a passkey",
        "Scan once more and read what the phone says. If it asks for a passkey: `wa-agent passkey"
        " {who} needed`, then pair it at a desk.",
        covers=("needs_scan",),
    ),
    Row(
        "corrupted",
        BAD,
        S,
        of_session(
            lambda view: _because(view.reason) if view.verdict.health is Health.CORRUPTED else None
        ),
        "{who} is corrupted, and no repair has cured it{value}",
        "`wa-agent why {who}` names the finding and the steps tried. `wa-agent snapshots {who}` and"
        " `wa-agent restore {who} NAME` bring a good copy back.",
        wait=10 * MINUTE,
        # Its repair reconnects it, and it is well until the next errors come.
        hold=5 * MINUTE,
        covers=("down",),
    ),
    Row(
        "corrupted_together",
        BAD,
        M,
        _together(_is_corrupted),
        "{value} sessions are corrupted at once: look for one cause",
        "A full or failing disk (`df -h`, `dmesg`), the session folder in use on a second machine,"
        " an update of the engine? Remove it, then `wa-agent repair all`.",
        wait=MINUTE,
        covers=("corrupted",),
    ),
    Row(
        "key_errors",
        WARN,
        S,
        _key_errors,
        "{who} cannot decrypt {value} of its messages",
        "The agent renews the keys of single contacts. If it stays: does the same session run"
        " twice? Then `wa-agent repair {who}`.",
        wait=5 * MINUTE,
        window=5 * MINUTE,
    ),
    Row(
        "keys_not_renewed",
        BAD,
        S,
        _keys_not_renewed,
        "{who} could not make new keys with its contacts",
        "`wa-agent events {who}` names the cause. If messages stay unreadable, `wa-agent restart"
        " {who}`, or restore a snapshot where there is one (`wa-agent snapshots {who}`).",
        window=15 * MINUTE,
    ),
    Row(
        "hangs",
        WARN,
        S,
        _rose("hangs", 30 * MINUTE, HANGS),
        "the worker of {who} hung {value} times in half an hour",
        "Too little memory or processor time, or a disk that hangs? `journalctl WA_INSTANCE={who}`"
        " has the stack of each hang.",
        window=30 * MINUTE,
    ),
    Row(
        "keeps_ending",
        WARN,
        S,
        of_session(lambda view: _because(view.reason) if view.reason in KEEPS_ENDING else None),
        "what runs {who} ends again and again{value}",
        "`wa-agent why {who}` has its last words, the worker's log more. It is started again each"
        " minute at least.",
        hold=5 * MINUTE,
        covers=("down",),
    ),
    Row(
        "circuit_open",
        WARN,
        S,
        of_session(lambda view: _because(view.reason) if view.circuit == "open" else None),
        "the circuit of {who} is open after failures in a row{value}",
        "The pause protects the account. `wa-agent recover {who}` ends it when the cause is gone.",
        wait=5 * MINUTE,
        of_incident=True,
    ),
    Row(
        "silent",
        WARN,
        S,
        of_session(is_silent),
        "{who} is connected, and no message came for far longer than usual",
        "Send it a message from another phone. If none arrives, `wa-agent restart {who}`.",
    ),
    Row(
        "reconnects",
        WARN,
        S,
        _rose("reconnects", 10 * MINUTE, RECONNECTS),
        "{who} reconnected {value} times in ten minutes",
        "`wa-agent events {who}` names the reason of each: the same keys in use elsewhere, an"
        " unstable line or proxy, too little memory.",
        window=10 * MINUTE,
        of_incident=True,
    ),
    Row(
        "ended_together",
        BAD,
        M,
        _together(lambda sight, who: sight.rise(who, "ended", 15 * MINUTE) > 0),
        "WhatsApp ended {value} sessions within a quarter of an hour: look for one cause",
        "The address that they share, a reported campaign, one client version, one phone? Stop"
        " sending from the others until you know. `wa-agent events ID` has WhatsApp's word.",
        window=15 * MINUTE,
    ),
    Row(
        "incident",
        BAD,
        Of.GROUP,
        lambda sight, who: _because(sight.groups[who]),
        "many sessions of {who} fail the same way; one tries before the others{value}",
        "`wa-agent incidents` names the members. WhatsApp changed something, or the network is"
        " down. When the cause is gone, `wa-agent incidents release {who}` lets all try.",
    ),
    Row(
        "backend_down",
        BAD,
        B,
        of_backend(lambda view: None if view.up else _because(view.reason)),
        "the backend {who} cannot be used; the state of its sessions is unknown{value}",
        "Does its server run, and is its key right? `wa-agent backends show {who}`. Its sessions"
        " need nothing: the agent brings them back once it answers.",
        wait=2 * MINUTE,
    ),
    Row(
        "backend_logs",
        WARN,
        B,
        of_backend(lambda view: bool(view.warning)),
        "the logs of backend {who} are unreadable, or hold errors that name no session",
        "`wa-agent backends show {who}` says which. Check the log's path and rights, or set"
        " `log_session` of its `[[backend]]`.",
    ),
    Row(
        "slow",
        WARN,
        S,
        _slow,
        "{who} takes {value} to answer",
        "`wa-agent show {who}` has its memory and processor use; `wa-agent restart {who}` frees a"
        " browser that grew. If all are slow, the machine is too small.",
        wait=5 * MINUTE,
        of_incident=True,
    ),
    Row(
        "error_rate",
        BAD,
        M,
        _error_rate,
        "{value} of the operations or HTTP requests fail",
        "`wa-agent top` shows which sessions, `journalctl -u wa-agent` has each failed request.",
        wait=5 * MINUTE,
        window=5 * MINUTE,
    ),
    Row(
        "memory_high",
        WARN,
        S,
        _memory(critical=False),
        "{who} uses {value} of the memory it may have",
        "The agent has asked it to free its caches. If it stays there, raise `[memory] instance`,"
        " or `memory_limit` of the instance.",
        wait=5 * MINUTE,
    ),
    Row(
        "memory_critical",
        BAD,
        S,
        _memory(critical=True),
        "{who} uses {value} of the memory it may have",
        "The agent restarts it gracefully. If it comes back soon, raise the limit: `wa-agent events"
        " {who}` shows how often it was restarted.",
        wait=MINUTE,
        covers=("memory_high",),
    ),
    Row(
        "memory_leak",
        WARN,
        S,
        of_session(lambda view: view.verdict.reason == "memory_leak"),
        "the memory of {who} grew through the last hour and goes on growing",
        "`wa-agent restart {who}` frees it and keeps the session. Report it if it comes back.",
    ),
    Row(
        "machine_memory",
        WARN,
        M,
        _machine_memory(critical=False),
        "{value} of the machine's memory is in use",
        "`wa-agent list` and `ps aux --sort -rss` show who uses it.",
        wait=5 * MINUTE,
    ),
    Row(
        "machine_memory_critical",
        BAD,
        M,
        _machine_memory(critical=True),
        "{value} of the machine's memory is in use: the kernel will soon end processes",
        "Stop sessions that you can spare: `wa-agent stop ID` keeps the session.",
        wait=MINUTE,
        covers=("machine_memory",),
    ),
    Row(
        "machine_cpu",
        WARN,
        M,
        _machine_cpu,
        "the machine's cores are {value} busy",
        "Healthy sessions look dead when checks run out of time. `top` shows the processes; if it"
        " stays, the machine has too many sessions.",
        wait=10 * MINUTE,
    ),
    Row(
        "disk_low",
        WARN,
        M,
        _disk(DISK_LOW),
        "{value} of the disk that holds the sessions is free",
        "`du -xh --max-depth=2 /var/lib/wa-agent | sort -h` shows what is large.",
        wait=5 * MINUTE,
    ),
    Row(
        "disk_full",
        BAD,
        M,
        _disk(DISK_FULL),
        "{value} of the disk that holds the sessions is free",
        "A full disk leaves session files half written. Free space now: `wa-agent trash list`, `du"
        " -xh --max-depth=2 /var/lib/wa-agent | sort -h`.",
        wait=MINUTE,
        covers=("disk_low",),
    ),
    Row(
        "open_files",
        WARN,
        M,
        _open_files,
        "the agent has opened {value} of the files it may open",
        "`wa-agent doctor` says how many its sessions need. Raise `LimitNOFILE=` with `systemctl"
        " edit wa-agent`.",
        wait=5 * MINUTE,
    ),
    Row(
        "messages_lost",
        WARN,
        S,
        _rose("lost", 30 * MINUTE, 0),
        "{who} dropped messages that were not delivered",
        "Its reader was away for too long. `wa-agent messages {who}` shows the gap.",
        window=30 * MINUTE,
    ),
    Row(
        "messages_not_kept",
        WARN,
        S,
        lambda sight, who: who in sight.not_kept,
        "{who} cannot keep what arrives; WhatsApp holds it back for a time",
        "`wa-agent why {who}` names the cause: a full disk, or rights of its folder.",
    ),
    Row(
        "outbox_old",
        WARN,
        S,
        lambda sight, who: _age(sight.outbox_oldest.get(who), sight.wall),
        "a message of {who} waits to be sent for {value}",
        "`wa-agent outbox {who}` says why.",
        wait=5 * MINUTE,
    ),
    Row(
        "sends_fail",
        WARN,
        S,
        _rose("sends_failed", 30 * MINUTE, FAILED_SENDS),
        "{who}: {value} messages failed within half an hour",
        "`wa-agent outbox {who}` names the reason of each.",
        window=30 * MINUTE,
    ),
    Row(
        "outbox_lost",
        WARN,
        M,
        lambda sight, _: sight.outbox_lost or None,
        "messages that waited to be sent are lost: {value}",
        "Send again what is missing; the old file lies beside outbox.db. The next start ends this.",
    ),
    Row(
        "webhook_backlog",
        WARN,
        M,
        lambda sight, _: _age(sight.webhooks_oldest, sight.wall),
        "a webhook has not taken an event for {value}",
        "`wa-agent webhooks` says which, and what its target answers.",
        wait=5 * MINUTE,
    ),
)
