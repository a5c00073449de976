"""Troubles: conditions that hold begin them and end them. First what a row is made of and what
judges the rows, then their conditions, with the counters that these compare, and the table."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any

from agent.core.crypto_patterns import OF_KEYS
from agent.core.health import HealthPolicy, has_given_up
from agent.core.memory import MemoryPolicy
from agent.core.model import ConnectionStatus, Health
from agent.core.reasons import REASONS
from agent.core.recovery.repair import RecoveryKind
from agent.core.session import AWAY, BackendView, Session, local_text
from agent.core.setting import setting
from agent.core.words import NOT_TOLD, PASSKEY_REQUIRED, PASSKEY_SUSPECTED

MINUTE = 60.0
LONGEST = 1800.0
"""Seconds that the counters of a session are remembered for."""
KEPT = {"done": 5 * MINUTE}
"""Seconds for which a figure that each look finds changed is kept: as long as a condition looks
back."""


class Severity(StrEnum):
    CRITICAL = "critical"
    WARNING = "warning"


class Of(StrEnum):
    """The kinds of things with troubles. The value is the label of the metric."""

    SESSION = "session"
    BACKEND = "backend"
    GROUP = "group"
    MACHINE = "machine"


Found = str | bool | None
"""A text, "" as well: it holds, and this is the {value} of its sentence; True: it holds. None: it
does not hold just now, and may again within `hold`. False: it is over."""
Condition = Callable[["Sight", Any], Found]
"""Judges what the trouble is about: a session, a backend, an incident's code; None: the machine."""


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    condition: Condition
    sentence: str
    """Sentence for people; {who} stands for the name of session, backend or group."""
    advice: str
    severity: Severity = Severity.WARNING
    of: Of = Of.SESSION
    wait: float = 0.0
    """Seconds for which the condition must hold before the trouble begins."""
    hold: float = 0.0
    """Seconds for which the condition may not hold and the trouble goes on all the same."""
    window: float = 0.0
    """Seconds that the condition looks back at."""
    covers: tuple[str, ...] = ()
    """Troubles that do not begin while this one goes on, and wait their time again after it."""
    of_incident: bool = False
    """True if an incident of the session speaks for this trouble."""


@dataclass(frozen=True, slots=True)
class TroublesPolicy:
    cpu: float = setting(
        0.90, "share of the machine's cores in use that is a trouble", low=0.1, high=1
    )


Counted = Mapping[str, float]
"""Counters of one session, or of the agent, by name."""


class Windows:
    """Remembers how much counters rose lately."""

    def __init__(self) -> None:
        self._last: Mapping[str, Counted] = {}
        self._rose: dict[tuple[str, str], list[tuple[float, float]]] = {}
        """Counter → its values as they changed, with the time of the look that found each."""

    def note(self, counted: Mapping[str, Counted], now: float) -> None:
        """Note counters by owner; one that is not named any more is forgotten."""
        before, self._last = self._last, counted
        self._rose = {key: past for key, past in self._rose.items() if key[0] in counted}
        for who, values in counted.items():
            last = before.get(who, values)
            for name, value in values.items():
                if value != last[name]:
                    self._rose.setdefault((who, name), [(0.0, last[name])]).append((now, value))
        for (_, name), past in self._rose.items():
            # The newest of those that are too old says what was so at the window's beginning.
            while len(past) > 1 and past[1][0] <= now - KEPT.get(name, LONGEST):
                del past[0]

    def rise(self, who: str, name: str, seconds: float, now: float) -> float:
        if (past := self._rose.get((who, name))) is None or len(past) < 2:
            return 0.0
        then = next((at for at in reversed(past) if at[0] <= now - seconds), past[0])
        last, before = past[-1][1], then[1]
        return last - before if last >= before else last


@dataclass(frozen=True, slots=True)
class Sight:
    """Everything that a condition may look at."""

    now: float
    wall: float
    sessions: Mapping[str, Session] = field(default_factory=dict)
    """Sessions that should run."""
    backends: Mapping[str, BackendView] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    """The groups with an incident, each with the code of what its members fail with."""
    machine: Mapping[str, float] = field(default_factory=dict)
    """Figures by the name of their metric."""
    outbox_oldest: Mapping[str, float] = field(default_factory=dict)
    webhooks_oldest: tuple[float, str] | None = None
    policy: TroublesPolicy = field(default_factory=TroublesPolicy)
    health: HealthPolicy = field(default_factory=HealthPolicy)
    memory: MemoryPolicy = field(default_factory=MemoryPolicy)
    windows: Windows = field(default_factory=Windows)
    not_kept: Collection[str] = ()
    """Sessions whose disk refuses what arrives."""
    database_lost: str = ""
    """Sentence on what befell the agent's database, or why it is not written; "" = nothing."""
    outbox_lost: str = ""
    """Sentence on a loss of the outbox, or on why it cannot be opened; "" = none."""
    fleet: str = ""
    """A machine of this one's fleet that is not as it should be, and why; "" = none."""

    def rise(self, who: str, name: str, seconds: float) -> float:
        return self.windows.rise(who, name, seconds, self.now)

    def judged(self, of: Of) -> Mapping[str, Any]:
        """Return the sessions, backends, groups or the machine that such rows judge, by name."""
        named: dict[Of, Mapping[str, Any]] = {Of.SESSION: self.sessions, Of.BACKEND: self.backends}
        return {**named, Of.GROUP: self.groups, Of.MACHINE: {"": None}}[of]

    def away(self) -> set[str]:
        """Return sessions that no row speaks of, since their server is down."""
        down = {name for name, backend in self.backends.items() if not backend.claim.up}
        return {who for who, view in self.sessions.items() if view.instance.backend in down}


Key = tuple[str, str]
"""A row's name, and what it is about."""


@dataclass(frozen=True, slots=True)
class Trouble:
    row: Row
    who: str
    since: float
    """Boot time at which the condition began to hold."""
    last: float
    """Boot time at which the condition was last seen to hold."""
    value: str = ""
    begun_wall: float | None = None
    """Unix time of `since`; None: its time to wait is not over."""
    stays_until: float = 0.0

    @property
    def key(self) -> Key:
        return self.row.name, self.who

    @property
    def sentence(self) -> str:
        return self.row.sentence.format(who=self.who, value=self.value)


Look = tuple[Mapping[Key, Trouble], list[Trouble], list[Trouble]]
"""Troubles that are present, that begin, and that are over."""


def look(table: Iterable[Row], before: Mapping[Key, Trouble], sight: Sight) -> Look:
    present: dict[Key, Trouble] = {}
    away = sight.away()
    in_incident = {who for who, view in sight.sessions.items() if view.in_incident}
    for row in table:
        hidden = set[str]()
        if row.of is Of.SESSION:
            hidden = away | in_incident if row.of_incident else away
        for who, judged in sight.judged(row.of).items():
            last = seen = before.get((row.name, who)) if before else None
            if who in hidden:  # one that has begun goes on
                seen = replace(last, last=sight.now) if last and last.begun_wall else None
            elif (found := row.condition(sight, judged)) not in (None, False) or last:
                seen = _seen(row, who, last, sight.now, found)
            if seen:
                present[seen.key] = seen
    began = [
        replace(trouble, begun_wall=sight.wall - (sight.now - trouble.since))
        for trouble in present.values()
        if trouble.begun_wall is None
        and trouble.last == sight.now  # it may be well by now
        and sight.now - trouble.since >= trouble.row.wait
    ]
    present.update((trouble.key, trouble) for trouble in began)
    begun = [trouble for trouble in present.values() if trouble.begun_wall is not None]
    for trouble in begun:
        for key in list(present):
            same = trouble.row.of is Of.MACHINE or key[1] == trouble.who
            if key[0] in trouble.row.covers and same:
                del present[key]
    over = [trouble for key, trouble in before.items() if trouble.begun_wall and key not in present]
    return present, [one for one in began if one.key in present], over


def _seen(row: Row, who: str, before: Trouble | None, now: float, found: Found) -> Trouble | None:
    if found is True or isinstance(found, str):
        value = "" if found is True else found
        return replace(before or Trouble(row, who, now, now), last=now, value=value)
    if before is None or now < before.stays_until:
        return before
    return before if found is None and now - before.last < row.hold else None


TOGETHER = 3
"""Sessions at once that have one cause."""
KEY_ERRORS = 0.10
RECONNECTS = 10
HANGS = 2
FAILED_SENDS = 5
OLD = 15 * MINUTE
DISK_LOW, DISK_FULL, OPEN_FILES = 0.10, 0.02, 0.80
_ENDED = tuple(code for code, reason in REASONS.items() if reason.final)
"""Codes by which WhatsApp ended the pairing or the account."""
_KEYS_FAILED = (RecoveryKind.REGENERATE_KEYS.value, "failed")
_FOR_A_PERSON = (PASSKEY_REQUIRED, PASSKEY_SUSPECTED, "session_missing")
"""Codes with which no try can succeed before a person acts."""
_NOT_WELL = ("silent_inbound", "memory_leak")


def counted_of(view: Session) -> dict[str, float]:
    """Return the counters of a session that conditions look back at."""
    errors, keys, words = view.counters.errors, view.crypto_operations, view.counters.by_word
    return {
        # An outage of its server is not its own.
        "reconnects": sum(words["reconnects"][word] for word in words["reconnects"].keys() - AWAY),
        "hangs": words["restarts"].get("watchdog", 0),
        "keys_failed": words["key_regenerations"].get("failed", 0),
        "key_steps_failed": view.counters.repair_steps.get(_KEYS_FAILED, 0),
        "unreadable": keys.get("failed", 0),
        "decryptions": sum(keys.values()) if view.counts_messages else 0,
        "ended": sum(count for code, count in errors.items() if code in _ENDED),
        "errors": sum(count for kind, count in errors.items() if kind not in OF_KEYS),
        "done": view.counters.probes + sum(view.counters.messages.values()),
    }


def _because(code: str, sentence: str = "") -> str:
    """Return plain words: the title of a reason, or the sentence of another code."""
    said = REASONS[code].title if code in REASONS else sentence or code
    return f": {said}" if said else ""


def _cause(view: Session) -> str:
    return _because(view.reason, view.verdict.sentence)


def _share(part: float, whole: float, limit: float) -> str | None:
    return f"{part / whole:.0%}" if whole > 0 and part / whole > limit else None


def _down(_: Sight, view: Session) -> Found:
    if view.status is ConnectionStatus.CONNECTED or view.reason == NOT_TOLD:
        return False
    # A code that stays lacks only a scan; one that comes and goes lacks more.
    return None if view.status is ConnectionStatus.QR_REQUIRED else _cause(view)


def _needs_scan(_: Sight, view: Session) -> Found:
    if view.status is ConnectionStatus.CONNECTED:
        return False
    return view.status is ConnectionStatus.QR_REQUIRED or None


def _is_corrupted(view: Session) -> bool:
    return view.verdict.health is Health.CORRUPTED


def _unstable(sight: Sight, view: Session) -> str | None:
    if view.reason in ("worker_failed", "program_failing"):
        return REASONS[view.reason].title
    if (hangs := sight.rise(view.id, "hangs", 30 * MINUTE)) > HANGS:
        return f"its worker hung {hangs:g} times in half an hour"
    if (reconnects := sight.rise(view.id, "reconnects", 10 * MINUTE)) > RECONNECTS:
        return f"it reconnected {reconnects:g} times in ten minutes"
    return None


def _key_errors(sight: Sight, view: Session) -> str | None:
    if not (failed := sight.rise(view.id, "unreadable", 5 * MINUTE)):
        return None
    return _share(failed, sight.rise(view.id, "decryptions", 5 * MINUTE), KEY_ERRORS)


def _keys_not_renewed(sight: Sight, view: Session) -> str | None:
    if sight.rise(view.id, "keys_failed", 15 * MINUTE):
        return ""
    # Where an error names no contact and no record is damaged, the step finds nothing to renew.
    tried = sight.rise(view.id, "key_steps_failed", 15 * MINUTE)
    return "" if tried and _is_corrupted(view) else None


def _memory(sight: Sight, view: Session | None, level: str) -> str | None:
    limit = sight.memory.warn if level == "warn" else sight.memory.critical
    if view:
        return _share(view.run.memory_bytes or 0, view.memory_limit, limit)
    used = sight.machine["wa_host_memory_used_bytes"]
    return _share(used, sight.machine["wa_host_memory_total_bytes"], limit)


def _disk(sight: Sight, _: None, least: float) -> str | None:
    machine = sight.machine
    size, inodes = machine.get("wa_host_filesystem_size_bytes"), machine.get("free_files", 1.0)
    free = machine["wa_host_filesystem_avail_bytes"] / size if size else 1.0
    of_inodes = " of the inodes" * (inodes < free)
    return f"{min(free, inodes):.0%}{of_inodes}" if min(free, inodes) < least else None


def _open_files(sight: Sight, _: None) -> str | None:
    return _share(sight.machine["process_open_fds"], sight.machine["process_max_fds"], OPEN_FILES)


def _slow(sight: Sight, view: Session) -> str | None:
    seconds = view.response_seconds
    return f"{seconds:.0f} s" if seconds is not None and seconds > sight.health.slow else None


def _together(number: int) -> str | None:
    return str(number) if number >= TOGETHER else None


def _ended_together(sight: Sight, _: None) -> str | None:
    return _together(sum(sight.rise(who, "ended", 15 * MINUTE) > 0 for who in sight.sessions))


def _error_rate(sight: Sight, _: None) -> str | None:
    limit, window = sight.health.error_rate, 5 * MINUTE
    up = {who for who, view in sight.sessions.items() if view.status is ConnectionStatus.CONNECTED}
    # A session that is down while others are connected has a trouble of its own.
    failed = sum(sight.rise(who, "errors", window) for who in up or sight.sessions)
    done = sum(sight.rise(who, "done", window) for who in sight.sessions)
    failures, requests = (sight.rise("", it, window) for it in ("requests_failed", "requests"))
    return _share(failed, failed + done, limit) or _share(failures, requests, limit)


def _age(at: float, wall: float) -> str | None:
    return f"{(wall - at) / MINUTE:.0f} minutes" if wall - at > OLD else None


def _messages(sight: Sight, view: Session) -> str | None:
    who = view.id
    if who in sight.not_kept:
        return "what arrives cannot be kept, so WhatsApp holds it back for a time"
    if lost := sight.rise(who, "lost", 30 * MINUTE):
        return f"{lost:g} or more went unread: their reader was away, or their file was damaged"
    if (failed := sight.rise(who, "sends_failed", 30 * MINUTE)) > FAILED_SENDS:
        return f"{failed:g} were not sent within half an hour"
    age = _age(sight.outbox_oldest.get(who, sight.wall), sight.wall)
    return f"one waits to be sent for {age}" if age else None


def _not_delivered(sight: Sight, _: None) -> str | None:
    at, name = sight.webhooks_oldest or (sight.wall, "")
    age = _age(at, sight.wall)
    return f"webhook {name} has not taken an event for {age}" if age else None


_lasting = partial(Row, wait=5 * MINUTE)
_critical = partial(Row, severity=Severity.CRITICAL)
_machine = partial(Row, of=Of.MACHINE)
_critical_machine = partial(_machine, severity=Severity.CRITICAL)

TABLE = (
    _lasting(
        "down",
        _down,
        "{who} should be connected and is not{value}",
        "`wa-agent why {who}` says what is wrong and when the next try is due. If many are down,"
        " look at the network first. `wa-agent recover {who}` tries now.",
        hold=MINUTE,
        covers=("circuit_open", "needs_scan"),
        of_incident=True,
    ),
    _lasting(
        "needs_scan",
        _needs_scan,
        "{who} waits for a person to scan its QR code",
        "`wa-agent qr {who} --watch` or its page shows the code; scan it with the phone (Linked"
        " devices). `wa-agent events {who}` says why an earlier pairing ended.",
        hold=MINUTE,
    ),
    _critical(
        "given_up",
        lambda _, it: _cause(it) if has_given_up(it) or it.reason in _FOR_A_PERSON else None,
        "the agent alone does not bring {who} back; a person should act{value}",
        "`wa-agent why {who}` says what to do, and when or how it is tried again. Do not scan again"
        " before you read it.",
        covers=("down", "circuit_open", "needs_scan", "unstable"),
        of_incident=True,
    ),
    Row(
        "banned",
        # A second one soon after the first is `given_up`.
        lambda _, it: local_text(it.next_attempt_wall) if it.reason == "temporary_ban" else None,
        "WhatsApp banned the account of {who} for a time; the agent connects it again at {value}",
        "Wait: a login before then prolongs it. Afterwards send less, and not to strangers.",
        covers=("down",),
    ),
    _critical(
        "corrupted",
        lambda _, view: _cause(view) if _is_corrupted(view) else None,
        "{who} is corrupted, and no repair has cured it{value}",
        "`wa-agent why {who}` names the finding and the steps tried. `wa-agent restore {who} NAME`"
        " brings back a copy that `wa-agent snapshots {who}` lists; a server has its own.",
        wait=10 * MINUTE,
        # The repair reconnects the session, which is well until the next errors come.
        hold=5 * MINUTE,
        covers=("down",),
    ),
    _critical_machine(
        "corrupted_together",
        lambda sight, _: _together(sum(map(_is_corrupted, sight.sessions.values()))),
        "{value} sessions are corrupted at once: look for one cause",
        "A full or failing disk (`df -h`, `dmesg`), the session folder in use on a second machine,"
        " an update of the engine? Remove it, then `wa-agent repair all`.",
        wait=MINUTE,
        covers=("corrupted",),
    ),
    _critical_machine(
        "ended_together",
        _ended_together,
        "WhatsApp ended {value} sessions within a quarter of an hour: look for one cause",
        "The address that they share, a reported campaign, one client version, one phone? Stop"
        " sending from the others until you know. `wa-agent events ID` has WhatsApp's word.",
        window=15 * MINUTE,
    ),
    _lasting(
        "key_errors",
        _key_errors,
        "{who} cannot decrypt {value} of its messages",
        "The agent renews keys. If it stays: does {who} run twice? Then `wa-agent repair {who}`.",
        window=5 * MINUTE,
    ),
    _critical(
        "keys_not_renewed",
        _keys_not_renewed,
        "{who} could not make new keys with its contacts",
        "`wa-agent events {who}` names the cause. If messages stay unreadable, `wa-agent restart"
        " {who}`, or restore a snapshot where there is one (`wa-agent snapshots {who}`).",
        window=15 * MINUTE,
    ),
    _lasting(
        "circuit_open",
        lambda _, view: _cause(view) if view.circuit == "open" else None,
        "the circuit of {who} is open after failures in a row{value}",
        "The pause protects the account. `wa-agent recover {who}` ends it when the cause is gone.",
        of_incident=True,
    ),
    Row(
        "unstable",
        _unstable,
        "{who} does not stay up: {value}",
        "`wa-agent events {who}` names the cause of each end, `wa-agent logs {who}` has the stack"
        " of each hang: the same keys in use elsewhere, an unstable line, too little memory?",
        hold=5 * MINUTE,
        window=30 * MINUTE,
        covers=("down",),
        of_incident=True,
    ),
    _critical(
        "folder_lost",
        lambda _, it: next((one.detail for one in it.signals if one.name == "folder_lost"), None),
        "{who} works without its folder: {value}",
        "Do not restart it. The check after its folder is back finds it; `wa-agent snapshots {who}`"
        " and `wa-agent restore {who} NAME` put a copy in the place of a deleted one.",
    ),
    Row(
        "degraded",
        lambda _, view: view.verdict.sentence if view.verdict.reason in _NOT_WELL else None,
        "{who} is connected and not well: {value}",
        "`wa-agent restart {who}` keeps the session and frees its memory. If no message comes, send"
        " it one from another phone first.",
    ),
    _lasting(
        "slow",
        _slow,
        "{who} takes {value} to answer",
        "`wa-agent show {who}` has its memory and processor use; `wa-agent restart {who}` frees a"
        " browser that grew. If all are slow, the machine is too small.",
        of_incident=True,
    ),
    _critical(
        "incident",
        lambda _, code: _because(code),
        "many sessions of {who} fail the same way; one tries before the others{value}",
        "`wa-agent incidents` names the members. WhatsApp changed something, or the network is"
        " down. When the cause is gone, `wa-agent incidents release {who}` lets all try.",
        of=Of.GROUP,
    ),
    _critical(
        "backend_down",
        lambda _, view: None if view.claim.up else _because("", view.claim.sentence),
        "the backend {who} cannot be used; the state of its sessions is unknown{value}",
        "Does its server run, and is its key right? `wa-agent backends show {who}`. Its sessions"
        " need nothing: the agent brings them back once it answers.",
        of=Of.BACKEND,
        wait=2 * MINUTE,
    ),
    Row(
        "backend_logs",
        lambda _, view: view.warning or None,
        "backend {who} lacks something: {value}",
        "See to what it names; `[[backend]] log_session` tells whose a line of its log is.",
        of=Of.BACKEND,
    ),
    _critical_machine(
        "error_rate",
        _error_rate,
        "{value} of the operations or HTTP requests fail",
        "`wa-agent top` shows which sessions, `journalctl -u wa-agent` has each failed request.",
        wait=5 * MINUTE,
        window=5 * MINUTE,
    ),
    _lasting(
        "memory_high",
        partial(_memory, level="warn"),
        "{who} uses {value} of the memory it may have",
        "It was asked to free memory. If it stays, raise `[memory] instance` or `memory_limit`.",
    ),
    _critical(
        "memory_critical",
        partial(_memory, level="critical"),
        "{who} uses {value} of the memory it may have",
        "The agent restarts it. If it comes back soon (`wa-agent events {who}`), raise the limit.",
        wait=MINUTE,
        covers=("memory_high",),
    ),
    _machine(
        "machine_memory",
        partial(_memory, level="warn"),
        "{value} of the machine's memory is in use",
        "`wa-agent list` and `ps aux --sort -rss` show who uses it.",
        wait=5 * MINUTE,
    ),
    _critical_machine(
        "machine_memory_critical",
        partial(_memory, level="critical"),
        "{value} of the machine's memory is in use: the kernel will soon end processes",
        "Stop sessions that you can spare: `wa-agent stop ID` keeps the session.",
        wait=MINUTE,
        covers=("machine_memory",),
    ),
    _machine(
        "machine_cpu",
        lambda sight, _: _share(sight.machine["wa_host_cpu_usage_ratio"], 1, sight.policy.cpu),
        "the machine's cores are {value} busy",
        "Healthy sessions look dead when checks run out of time. `top` shows the processes; if it"
        " stays, the machine has too many sessions.",
        wait=10 * MINUTE,
    ),
    _machine(
        "disk_low",
        partial(_disk, least=DISK_LOW),
        "{value} of the disk that holds the sessions, or the agent's own files, is free",
        "`du -xhd2 DIR | sort -h` (or --inodes) shows what is large; `wa-agent doctor` names DIR.",
        wait=5 * MINUTE,
    ),
    _critical_machine(
        "disk_full",
        partial(_disk, least=DISK_FULL),
        "{value} of the disk that holds the sessions, or the agent's own files, is free",
        "A full disk leaves session files half written. Free space now: `wa-agent trash list`, `du"
        " -xhd2 DIR | sort -h` (or --inodes; `wa-agent doctor` names DIR).",
        hold=MINUTE,
        covers=("disk_low",),
    ),
    _machine(
        "open_files",
        _open_files,
        "the agent has opened {value} of the files it may open",
        "Each session needs a few. Raise `LimitNOFILE=` with `systemctl edit wa-agent`.",
        wait=5 * MINUTE,
    ),
    Row(
        "messages",
        _messages,
        "messages of {who} are late or lost: {value}",
        "`wa-agent outbox {who}` names the reason of each that was not sent, `wa-agent messages"
        " {who}` shows a gap, `wa-agent why {who}` says why none can be kept.",
        window=30 * MINUTE,
    ),
    _machine(
        "not_delivered",
        _not_delivered,
        "messages or events are not delivered: {value}",
        "`wa-agent webhooks` says which target answers what.",
    ),
    _critical_machine(
        "database_lost",
        lambda sight, _: sight.database_lost or None,
        "the agent's database is not as it was: {value}",
        "Where agent.db.back is named: stop the agent, mv that to agent.db, start it. Else restart:"
        " `wa-agent key list` has the keys that are left; revoke again what was revoked.",
    ),
    _machine(
        "outbox_lost",
        lambda sight, _: sight.outbox_lost or None,
        "{value}",
        "Refused: remove the cause. Lost: send again what is missing; a damaged file lies beside"
        " outbox.db, or outbox.db.back with what waited; the next start without it ends this.",
    ),
    _machine(
        "fleet",
        lambda sight, _: sight.fleet or None,
        "the fleet is not whole: {value}",
        "`wa-agent fleet status` names all that it lacks.",
        wait=MINUTE,
    ),
)
