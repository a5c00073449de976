"""What the agent knows of one instance right now: the only mutable thing of supervision.

Callbacks of the link and the host write here and wake the loop; the pass reads.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from agent.core.durations import Acknowledgements, Durations
from agent.core.findings.crypto import CryptoWindow, LogLimit
from agent.core.findings.error_rate import ErrorRate, PerMinute
from agent.core.findings.memory import MemoryHistory
from agent.core.findings.response_time import RecentTimes
from agent.core.findings.silence import Inbound
from agent.core.model import (
    UNIT_ABSENT,
    Claim,
    ClaimFact,
    HealthVerdict,
    Instance,
    InstanceId,
    ProbeFact,
    SessionFiles,
    SessionRecord,
    UnitStatus,
)
from agent.core.recovery.repair import Repair
from agent.core.time_in_status import StatusTime
from agent.supervise.backends.facts import WorkerLink
from agent.vault.identity import Identity


@dataclass(slots=True)
class Facts:
    """One instance. Times are of the boot clock unless the name says `wall`."""

    instance: Instance
    record: SessionRecord
    unit: UnitStatus = UNIT_ABSENT
    link: WorkerLink | None = None
    linked_since: float | None = None
    next_attach: float = 0.0
    claim: ClaimFact | None = None
    begun_at: float = 0.0
    """When its server was last asked to begin it again; 0 = not in this life of the agent."""
    awaited: asyncio.Event | None = None
    """There while somebody waits for a claim, or for the link's end."""
    probe: ProbeFact | None = None
    next_probe: float = 0.0
    next_deep: float = 0.0
    disagrees: str = ""
    """What the last deep probe found to contradict itself."""
    lacks: tuple[str, ...] = ()
    """Parts of its engine's page that the last deep probe, connected, did not find."""
    files: SessionFiles = SessionFiles.UNPAIRED
    files_problem: str = ""
    """What stands in the way of reading them; "" = nothing."""
    away_since: float | None = None
    """Since when its folder is away or unreadable, at each look."""
    folder_lost: str = ""
    """What became of its folder under its live worker; "" = it is where the worker has it."""
    folder_deleted: bool = False
    """What it had on the disk is gone: its worker holds the only copy."""
    refuge_tried: ProbeFact | None = None
    """The probe after which saving it elsewhere was tried last."""
    disk_problem: str = ""
    """Why no worker may begin to write where sessions lie; looked at while none runs."""
    verdict: HealthVerdict | None = None
    sentence: str = ""
    enabled_by_operator: bool = False
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever works on this instance: a pass, a deletion."""
    gone: bool = False
    """Deleted: nobody may write about it any more."""
    acting: "asyncio.Task[Any] | None" = None
    acting_start: bool = False
    """True while the action under way is a start, which a stop may interrupt."""
    start_asked: bool = False
    """A person said: start it now, whatever made it fail before."""
    refusal: str = ""
    """What the last start, reconnect or step of a repair met, if it failed."""
    failed_actions: int = 0
    """Plans in a row that failed."""
    started_run: str = ""
    """The run that we started ourselves."""
    noted_drop: tuple[str, str, float] = ("", "", 0.0)
    """Which ending was counted last."""
    logout_asked: bool = False
    """We ended its pairing ourselves: the logout that follows is no error of WhatsApp's."""
    durations: Durations = field(default_factory=Durations)
    """Shared by all sessions."""
    lost_at: float | None = None
    """When it was connected last; None while it is, or never was."""
    acknowledgements: Acknowledgements = field(default_factory=Acknowledgements)
    lost_because: str = ""
    """Why it is no longer connected, until it is again."""
    limits_changed: bool = False
    """Its settings are not yet what its worker is held to."""
    limited_run: str = ""
    """The run whose worker is held to its limits; another run may have begun past us."""
    identity_changed: bool = False
    """The identity file in its folder is behind what is recorded."""
    written: Identity | None = None
    """What its identity file holds; None = it was not read or written yet."""
    saved_instance: Instance | None = None
    saved_record: SessionRecord | None = None
    """What of both is on the disk, and so may be shown; None = not written yet, or it failed."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the identity file is written: the last state must be the last in the file."""
    observed: bool = False
    """False until the first pass of this agent's life."""
    connected_since_wall: float | None = None
    started_wall: float | None = None
    memory_bytes: int | None = None
    cpu_seconds: float | None = None
    processes: int | None = None
    open_fds: int | None = None
    """As its worker counts them."""
    engine_version: str = ""
    restarts: Counter[str] = field(default_factory=Counter)
    reconnects: Counter[str] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)
    per_minute: dict[str, PerMinute] = field(default_factory=dict)
    """By direction: in, out."""
    errors: Counter[str] = field(default_factory=Counter)
    error_rate: ErrorRate = field(default_factory=ErrorRate)
    status_time: StatusTime = field(default_factory=StatusTime)
    repair: Repair | None = None
    """The last repair, over or not."""
    repair_over: asyncio.Event | None = None
    """There while somebody waits for its end."""
    repair_steps: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Steps by kind and result."""
    repair_seconds: float = 0.0
    key_regenerations: Counter[str] = field(default_factory=Counter)
    cleanups: Counter[str] = field(default_factory=Counter)
    """By what the repair was for."""
    hold: str = ""
    """Why it waits for others, as the last pass found it."""
    last_snapshot_wall: float | None = None
    may_try_at_once: bool = False
    """It goes first for others: its own delay is waived once."""
    forced: bool = False
    """An operator asked for a try now: no look at its address is waited for, once."""
    crypto: CryptoWindow = field(default_factory=CryptoWindow)
    crypto_log: dict[str, LogLimit] = field(default_factory=dict)
    memory_history: MemoryHistory = field(default_factory=MemoryHistory)
    restart_for: str = ""
    """Why it should be restarted gracefully; "" = it should not."""
    freed_at: float | None = None
    memory_restart_at: float | None = None
    inbound: Inbound = field(default_factory=Inbound)
    hour_wall: float = 0.0
    hour_messages: int = 0
    """When the hour began that silence is learned from, and the count of messages then."""
    probes: int = 0
    probe_seconds: float = 0.0
    recent_times: RecentTimes = field(default_factory=RecentTimes)
    """Of the answered probes."""
    late_facts: int = 0

    @property
    def id(self) -> InstanceId:
        return self.instance.id

    def heard(self, claim: Claim, now: float) -> bool:
        """Take in a claim of the present run; True when it says more than a newer proof."""
        before = self.claim
        self.engine_version = claim.version or self.engine_version
        same_status = before is not None and before.claim.status is claim.status
        same_phase = before is not None and same_status and before.claim.phase == claim.phase
        # By the worker's word where we did not see it begin: an agent before us may have.
        begun = max(now - claim.still_for, self.begun_at)
        self.claim = ClaimFact(
            claim,
            at=now,
            since=before.since if before and same_status else begun,
            phase_since=before.phase_since if before and same_phase else begun,
            progress_since=now
            if _grew(before, claim)
            else before.progress_since
            if before
            else 0.0,
        )
        self.stirred()
        return before is None or _words(before.claim) != _words(claim)

    def begin_again(self, now: float) -> None:
        """A server was asked to begin this session again: what was claimed before that says
        nothing about what it does now, and its time begins here. Pings that failed and what
        its list contradicts stay until an answer says otherwise."""
        self.begun_at = self.linked_since = now
        self.claim = None
        self.next_probe = self.next_deep = 0.0

    def stirred(self) -> None:
        """The worker said something, or will not any more."""
        if self.awaited is not None:
            self.awaited.set()

    def repair_ended(self) -> None:
        if self.repair_over is not None:
            self.repair_over.set()
            self.repair_over = None

    def forget_run(self) -> None:
        """The worker of these facts is gone: nothing it said counts any more."""
        self.claim = None
        self.probe = None
        self.memory_bytes = self.cpu_seconds = self.processes = self.open_fds = None
        self.memory_history = MemoryHistory()
        self.folder_lost, self.folder_deleted, self.refuge_tried = "", False, None
        self.linked_since = None
        self.next_attach = 0.0


def _words(claim: Claim) -> tuple[object, ...]:
    """All that it says, but how old it and its proof are."""
    return (
        claim.status,
        claim.reason,
        claim.phase,
        claim.progress,
        claim.paired,
        claim.account,
        claim.until_wall,
        claim.raw,
        claim.guess,
        claim.useless,
        claim.pairing_unknown,
    )


def _grew(before: ClaimFact | None, claim: Claim) -> bool:
    if before is None or claim.progress is None:
        return False
    return claim.progress > (before.claim.progress or 0.0)
