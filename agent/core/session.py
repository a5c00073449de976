"""A session: all that the agent knows of it, in parts, and what follows from them. A view is a
shallow copy. Below: what is shown of backends."""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from agent.core import figures, model, reasons, reconnect, words
from agent.core.crypto import CryptoWindow
from agent.core.recovery.repair import Kept, Repair
from agent.core.words import NO_LEASE, ConnectionStatus, InstanceId, ServerClaim, SessionFiles

WINDOW = 300.0
"""Seconds that the mean time of an answer covers."""

Samples = tuple[tuple[float, int], ...]
"""Memory of a trend, oldest first: (boot time, bytes)."""

_UNKNOWN = ("not_looked_yet", "the agent has not checked it yet")
NOT_LOOKED_YET = model.HealthVerdict(
    model.Health.NOT_FOUND, ConnectionStatus.DISCONNECTED, *_UNKNOWN
)


@dataclass(slots=True)
class Run:
    """Facts of the worker's present run; the next run begins with an empty one."""

    linked_since: float | None = None
    next_attach: float = 0.0
    claim: model.ClaimFact | None = None
    probe: model.ProbeFact | None = None
    measured_at: float = 0.0
    memory_bytes: int | None = None
    cpu_seconds: float | None = None
    processes: int | None = None
    open_fds: int | None = None
    memory_history: Samples = ()
    folder_lost: str = ""
    """Why the folder is not in its place under a live worker; "" = it is in place."""
    folder_deleted: bool = False
    """True if the session's files are gone from the disk: the worker has the only copy."""


@dataclass(slots=True)
class Folder:
    """The session's folder and its disk, as last looked at."""

    files: SessionFiles = SessionFiles.UNPAIRED
    problem: str = ""
    """Why folder and files cannot be used, for people: path and obstacle; "" = they can."""
    away_since: float | None = None
    """Boot time since which each look has found the folder away or unreadable."""
    back: bool = False
    """True once the folder is back, until a worker runs."""
    disk_problem: str = ""
    """Why no worker may start on the disk of sessions; looked at while no worker runs."""


@dataclass(frozen=True, slots=True)
class Wait:
    reason: str = ""
    """A word of WAIT_SENTENCES; "" = the session does not wait."""
    sentence: str = ""
    """The reason with its numbers; "" = WAIT_SENTENCES says enough."""
    again: float = 0.0
    """Boot time at which to ask again at the latest."""


_NONE_COUNTED = {name: Counter(dict.fromkeys(words, 0)) for name, words in figures.COUNTS.items()}


@dataclass(slots=True)
class Counters:
    """Counters of a session since `since_wall`, the agent's start."""

    since_wall: float = 0.0
    by_word: dict[str, Counter[str]] = field(default_factory=_NONE_COUNTED.copy)
    """Name of COUNTS → word → count. Counters that never rose are shared: see `count`."""
    messages: Counter[str] = field(
        default_factory=lambda: Counter(dict.fromkeys(("in", "out", "ack", "failed"), 0))
    )
    per_minute: dict[str, figures.PerMinute] = field(
        default_factory=lambda: {"in": figures.PerMinute(), "out": figures.PerMinute()}
    )
    errors: Counter[str] = field(default_factory=Counter)
    error_rate: figures.ErrorRate = field(default_factory=figures.ErrorRate)
    repair_steps: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Steps by kind and result (done, failed)."""
    repair_seconds: float = 0.0
    """Seconds of those steps together."""
    probes: int = 0
    probe_seconds: float = 0.0
    """Answered probes and the sum of their answer times."""
    answers: tuple[tuple[float, float], ...] = ()
    """Boot time of each of the last ten answered probes, and the seconds of its answer."""

    def count(self, name: str, word: str, times: int = 1) -> None:
        counts = self.by_word[name] = self.by_word[name].copy()
        counts[word] += times


STARTING = (ConnectionStatus.INITIALIZING, ConnectionStatus.LOADING)


@dataclass(slots=True)
class Session:
    """A session as the agent knows it. Times are boot times unless the name says `wall`."""

    instance: model.Instance
    record: model.SessionRecord
    unit: model.UnitStatus = model.UNIT_ABSENT
    run: Run = field(default_factory=Run)
    folder: Folder = field(default_factory=Folder)
    wait: Wait = Wait()
    """Why the session waits for something other than itself, as of the last pass."""
    held: str = ""
    """Why it may not log in beside another instance of its device, as found before its last try;
    until an operator's next order."""
    kept: Kept | None = None
    """Why the repair keeps the pairing, as of the last pass; None = the repair may end it."""
    counters: Counters = field(default_factory=Counters)
    verdict: model.HealthVerdict = NOT_LOOKED_YET
    boot: str = ""
    """The machine's present boot: an override that was made in another one is void."""
    enabled_by_operator: bool = False
    """True if an operator enabled the unit in systemd."""
    counts_messages: bool = True
    """False if the engine reports no messages: their number is unknown, not 0."""
    at: float = 0.0
    at_wall: float = 0.0
    """Boot time and Unix time at which the session was judged, or this view was taken."""
    not_before: float = 0.0
    """Boot time before which the agent makes no start or reconnect."""
    signals: tuple[model.Signal, ...] = ()
    """Findings beside the session's state: memory, crypto errors, silence."""
    turns_before: int | None = None
    """Number of sessions that start or log in before this one; None: it waits for no turn."""
    back_at: float | None = None
    """Boot time at which the session's address was last reached again; None: it never was away."""
    connected_since_wall: float | None = None
    engine_version: str = ""
    """Version of WhatsApp Web, or of the session's server; "" = unknown."""
    last_snapshot_wall: float | None = None
    snapshot_failure: str = ""
    """Why the last snapshot that was due is none to restore; "" once one is whole."""
    status_time: figures.StatusTime = field(default_factory=figures.StatusTime)
    """Seconds of the session in each status, counted while an agent ran."""
    crypto: CryptoWindow = field(default_factory=CryptoWindow)
    crypto_lately: int = 0
    inbound: figures.Inbound = field(default_factory=figures.Inbound)
    circuit: str = "closed"
    """closed, open or half_open."""
    circuit_opens_wall: float | None = None
    """Unix time at which an open circuit lets one trial through."""
    in_incident: bool = False
    """True if the session is a member of an open incident, whose trouble covers it."""
    memory_limit: int = 0
    """Bytes of the memory limit; 0 = none."""
    freed_at: float | None = None
    memory_restart_at: float | None = None

    @property
    def id(self) -> InstanceId:
        return self.instance.id

    @property
    def claim(self) -> model.ClaimFact | None:
        return self.run.claim

    @property
    def repair(self) -> Repair | None:
        """The last repair, over or not; None: there was none."""
        return self.record.repair

    @repair.setter
    def repair(self, repair: Repair | None) -> None:
        self.record = replace(self.record, repair=repair)

    @property
    def repairing(self) -> Repair | None:
        return None if self.repair is None or self.repair.over else self.repair

    @property
    def unsettled(self) -> bool:
        """True if the status should pass by itself."""
        return self.record.status in model.UNSETTLED

    @property
    def linked(self) -> bool:
        return self.run.linked_since is not None

    @property
    def status(self) -> ConnectionStatus:
        """The status. CONNECTED under an earlier agent proves nothing until the first look."""
        if self.verdict is NOT_LOOKED_YET and self.record.status is ConnectionStatus.CONNECTED:
            return ConnectionStatus.INITIALIZING
        return self.record.status

    @property
    def reason(self) -> str:
        return self.verdict.reason or self.record.reason

    @property
    def override(self) -> model.Override:
        """The operator's override, which is void in another boot of the machine."""
        holds = self.record.override_boot == self.boot
        return self.record.override if holds else model.Override.NONE

    @property
    def enabled(self) -> bool:
        return self.instance.enabled or self.enabled_by_operator

    @property
    def should_run(self) -> bool:
        if self.override is not model.Override.NONE:
            return self.override is model.Override.STARTED
        return self.enabled

    @property
    def attempts(self) -> int:
        """Attempts since the last success; 0 while connected: the record keeps them a minute."""
        return 0 if self.status is ConnectionStatus.CONNECTED else self.record.attempts

    @property
    def next_attempt_wall(self) -> float | None:
        """Unix time of the next attempt; None also if the agent makes none, as after bans."""
        next_wall, reason = self.record.not_before_wall, self.ended_by
        over = reason.hopeless or (reason.tries is not None and self.record.strikes > reason.tries)
        over = over or self.reason == words.NOT_TOLD  # it runs
        return next_wall if self.should_run and not over and next_wall > self.at_wall else None

    @property
    def proof_age(self) -> float | None:
        """Seconds from the proof of the status to `at`; None: it was never proved."""
        proved_at = self.run.claim.proved_at() if self.run.claim else None
        return None if proved_at is None else max(self.at - proved_at, 0.0)

    @property
    def proved_wall(self) -> float | None:
        return None if self.proof_age is None else self.at_wall - self.proof_age

    @property
    def uptime(self) -> int:
        """Whole seconds since the session connected; 0 if the clock was set back before that."""
        since = self.connected_since_wall
        return 0 if since is None else max(0, round(self.at_wall - since))

    @property
    def response_seconds(self) -> float | None:
        """Mean seconds of an answer; None: no probe was answered within WINDOW."""
        lately = [seconds for at, seconds in self.counters.answers if self.at - at <= WINDOW]
        return sum(lately) / len(lately) if lately else None

    @property
    def messages_per_minute(self) -> dict[str, int]:
        return {word: rate.count(self.at) for word, rate in self.counters.per_minute.items()}

    @property
    def crypto_operations(self) -> dict[str, int]:
        """Messages that were decrypted (ok) and were not (failed), if the engine counts them."""
        done, failed = self.counters.messages["in"], self.counters.errors["crypto"]
        return {"ok": done, "failed": failed} if self.counts_messages else {}

    def wall(self, moment: float) -> float:
        """Return a boot time as Unix time."""
        return self.at_wall + (moment - self.at)

    # Conclusions: its past, its pairing, and what an operator did to its worker with systemctl.

    @property
    def no_pairing_to_lose(self) -> bool:
        """True when a new start costs no scan that is not due anyway. WhatsApp may lift a ban: then
        its pairing is whole."""
        ended = self.last_reason.unpairs and self.last_reason.code != "banned"
        return ended or not self.may_be_paired

    @property
    def is_other_account(self) -> bool:
        """True if the session that its backend has is not the one that was paired here. Programs
        address an instance by its id: it stays the account that it is, until its pairing ends."""
        record, fact = self.record, self.claim
        if fact is None or not self.instance.backend or not record.paired:
            return False
        known = record.account and fact.claim.paired and fact.claim.account
        return bool(known) and not self.ended_by.unpairs and fact.claim.account != record.account

    @property
    def is_guarded(self) -> bool:
        """True if only a person may end the pairing: its account needs a passkey for another one.
        An end that an engine or a server reports does not lift this: such a report can be wrong."""
        return self.record.needs_passkey and self.may_be_paired

    @property
    def may_be_paired(self) -> bool:
        fact = self.claim
        claimed = fact is not None and (fact.claim.paired or fact.claim.pairing_unknown)
        return self.record.paired or claimed or self.folder.files is SessionFiles.WHOLE

    @property
    def is_paired_now(self) -> bool:
        """True if worker or files say so, whatever the record says, or if neither tells."""
        if self.claim is not None:
            return self.claim.claim.paired or self.claim.claim.pairing_unknown
        whole = self.folder.files is SessionFiles.WHOLE
        return whole or self.unit.runs or bool(self.instance.backend)

    @property
    def ended_by(self) -> reasons.Reason:
        """The reason in the record: what ended the session last."""
        return reasons.reason_of(self.record.reason)

    @property
    def banned(self) -> bool:
        """True until the end of a ban for a time, or an operator's order to try (`forgive`)."""
        return self.record.reason == "temporary_ban" and self.at_wall < self.record.not_before_wall

    @property
    def last_reason(self) -> reasons.Reason:
        """The reason that the engine claims now, else the one in the record (`ended_by`)."""
        said = self.claim.claim.reason if self.claim is not None else ""
        return reasons.reason_of(said) if said else self.ended_by

    @property
    def waits_for_network(self) -> bool:
        """True if the engine connects by itself, waits for an answer, or names the network."""
        if self.claim is None or not self.unit.runs:
            return False
        claim = self.claim.claim
        by_itself = claim.status is ConnectionStatus.RECONNECTING
        asks = claim.phase == "loaded" or claim.reason in reasons.NETWORK_CODES
        return by_itself or (claim.status in STARTING and asks)

    def gave_up(self, policy: reconnect.ReconnectPolicy) -> str:
        """The code for which the agent ended its tries; "" while it goes on trying."""
        record, reason = self.record, self.last_reason
        if reason.hopeless:
            return reason.code
        if reason.tries is not None and record.strikes > reason.tries:
            return "conflict_foreign_owner" if reason.code == "conflict" else reason.code
        if reason.endless or reason.slow:
            # A load of the page harms no account: it may wait for any time.
            return ""
        return "attempts_used_up" if record.attempts >= policy.attempts else ""

    @property
    def stopped_by_hand(self) -> bool:
        """True if the last run of this boot is over and the agent did not stop it."""
        record = self.record
        ran = record.seen_run != "" and record.seen_boot == self.boot
        ours = self.override is model.Override.STOPPED or record.stopped_run == record.seen_run
        return ran and not ours and self.unit.state is model.UnitState.INACTIVE

    def started_by_hand(self, our_run: str) -> bool:
        """True if there is an unwanted run that neither the agent nor systemd's Restart= began."""
        unit, record = self.unit, self.record
        if not unit.runs or unit.restarts or unit.run in ("", record.seen_run, our_run):
            return False
        if unit.state is model.UnitState.DEACTIVATING:
            return False
        # At boot systemd starts what is enabled, this unit too; a later start is an operator's.
        again = (self.ended_by.final or self.banned) and record.seen_boot == self.boot
        return again or self.override is model.Override.STOPPED or not self.enabled

    def forgive(self, *, ban: bool = True, **changes: Any) -> None:
        """An operator's order, or another pairing: try now, whatever happened before. `ban`: False
        where a ban for a time keeps its end."""
        self.record = replace(reconnect.forgive(self.record, ban=ban), **changes)

    def order(self, override: model.Override) -> None:
        """Take an operator's order, which holds for this boot."""
        boot = "" if override is model.Override.NONE else self.boot
        self.record, self.held = replace(self.record, override=override, override_boot=boot), ""


# Why an instance waits for something other than itself, and whether that explains its state.


BACKEND_DOWN = "backend_down"
BACKEND_UNCHECKED = "backend_unchecked"
WAITS_TURN = "waits_turn"
AWAY = frozenset({BACKEND_DOWN, BACKEND_UNCHECKED, "backend_missing"})
"""Wait reasons that leave the session's own state unknown."""
LONG_AWAY = AWAY - {BACKEND_UNCHECKED}
"""Reasons of AWAY that may last for any time: a person's order does not outlive them."""

WAIT_SENTENCES = {
    BACKEND_DOWN: "its backend is down",
    BACKEND_UNCHECKED: "the agent has not checked its backend yet",
    WAITS_TURN: "its turn to start has not come",
    "backend_circuit": "its backend left several checks or requests in a row without an answer;"
    " one session tries first",
    "backend_missing": "agent.toml declares no [[backend]] of the name in its settings",
    reasons.UNREACHABLE: "this machine cannot reach the address that the session needs",
    "network_down": "many sessions lost their connection at once; one of them tries first",
    "incident": "many instances of its engine fail the same way; one of them tries first",
    "same_device": "another instance is the same linked device",
    "memory_full": "the machine has too little memory for one more worker",
    NO_LEASE: "this machine holds no lease of its fleet for the session",
    "disk_full": "the disk of the sessions has too little free space",
}
"""Wait reasons; a wait costs the instance no attempt."""


@dataclass(frozen=True, slots=True)
class BackendView:
    """Everything that is shown of a backend."""

    name: str
    engine: str
    url: str
    """The server's address, without a password."""
    claim: ServerClaim
    sentence: str = ""
    warning: str = ""
    """While the backend is up: what its logs leave unclear, or why they cannot be read."""
    since_wall: float = 0.0
    """Unix time since which the backend is up, or is not."""
    checked_wall: float | None = None
    """Unix time of the last check; None: not yet."""
    held: int = 0
    """Number of instances on the backend."""
    connected: int = 0
    breaker: str = "closed"
    """closed, open or half_open."""
    next_check_wall: float | None = None


def wall_text(wall: float | None) -> str | None:
    """RFC 3339 in UTC with milliseconds; None and 0 (never) give None."""
    if not wall:
        return None
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def local_text(wall: float | None) -> str | None:
    """Return a time as the log has it, in this machine's zone; None if it is none."""
    return datetime.fromtimestamp(wall).strftime("%Y-%m-%d %H:%M:%S") if wall else None


def show_event(entry: model.JournalEntry) -> dict[str, Any]:
    return {
        "cursor": entry.cursor,
        "time": wall_text(entry.wall),
        "category": entry.category.value,
        "kind": entry.kind,
        "instance": entry.instance,
        "sentence": entry.sentence,
        "detail": dict(entry.detail),
    }
