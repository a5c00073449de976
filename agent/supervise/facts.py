"""State that only the running agent has: of a session, of its settings, and the lines for the
journal."""

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.backends.backend import Seat
from agent.config.config import Config
from agent.core import admission, figures, memory, model, session
from agent.core.reasons import Permanence, reason_of
from agent.core.words import BEHIND, Category, Claim, ConnectionStatus
from agent.engines.catalog import entry_of
from agent.link.client import Link
from agent.log import bound
from agent.store.database import Store
from agent.vault.identity import Identity

NEVER = float("-inf")
NOT_FAILING = ("", NEVER)
FOLDER_LOST = "folder_lost"
"""The code of a session whose folder was deleted or replaced under its worker."""

WorkerLink = Link | Seat
"""The way to a session's worker, or to its place in the task of its server."""


@dataclass(slots=True)
class Asked:
    """Requests of other parts of the agent, until a pass does them; operators' orders are in the
    record."""

    try_at_once: bool = False
    """True if the session's own delay is waived once."""
    restart_for: str = ""
    """Why to restart it gracefully; "" = no restart is asked for."""
    logout: bool = False
    """True if the agent ended the pairing: the logout that follows is no error."""


@dataclass(slots=True)
class ActionFacts:
    """The action under way, and how the last ones ended."""

    task: "asyncio.Task[Any] | None" = None
    is_start: bool = False
    """True while the action under way is a start, which a stop may interrupt."""
    refusal: str = ""
    """Why the last start, reconnect or repair step failed; "" = it succeeded."""
    failures: int = 0
    """Failed plans in a row."""
    started_run: str = ""
    """The run that the agent started itself."""

    def interrupt_start(self) -> None:
        if self.task is not None and self.is_start:
            self.task.cancel()


@dataclass(slots=True)
class SavedFacts:
    """The state of a session as it is on the disk."""

    identity: Identity | None = None
    """Content of the identity file; None = not read or written yet."""
    instance: model.Instance | None = None
    record: model.SessionRecord | None = None
    """The rows in the database, as they were last written; None = not written yet."""
    unwritten: str = ""
    """Why the identity file could not be written last; "" = it could."""


@dataclass(slots=True)
class Facts(session.Session):
    """A session with what only the running agent has of it: its link, tasks, locks and orders.
    Callbacks of the link and the host write here and wake the loop; the pass reads."""

    asked: Asked = field(default_factory=Asked)
    action: ActionFacts = field(default_factory=ActionFacts)
    saved: SavedFacts = field(default_factory=SavedFacts)
    sentence: str = ""
    link: WorkerLink | None = None
    begun_at: float = 0.0
    """Boot time of the last order to the server to begin the session again; 0 = none since the
    agent's start."""
    next_probe: float = 0.0
    next_deep: float = 0.0
    lacks: tuple[str, ...] = ()
    """Parts of the engine's page that the last deep probe, connected, did not find."""
    pack: str = ""
    """The pack whose worker holds the session since its last start; "" = a worker of its own."""
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    """The lock of a pass, and of a deletion."""
    gone: bool = False
    """True if the session was deleted: nothing may be written about it any more."""
    observed: bool = False
    """False until the first pass since the agent's start."""
    rested: tuple[object, ...] = ()
    """Inputs of the last whole pass, if that found the session at rest and recorded."""
    of_rooms: Mapping[str, Any] = field(default_factory=dict)
    """Room → the settings of its part in the session's worker."""
    leased: bool = False
    """True if the session's worker connects only with a lease of its machine."""
    passkey_asked: bool = False
    """True if the last claim says that WhatsApp asks for a passkey, and the journal has it."""
    noted_drop: tuple[str, str, float] = ("", "", 0.0)
    """Key of the drop that was counted last."""
    lost_because: str = ""
    """Why the session is no longer connected; "" once it is again."""
    crypto_lines: figures.PerMinute = field(default_factory=figures.PerMinute)
    """Lines about crypto errors in the log: a flood must not end the process by its log."""
    hour_wall: float = 0.0
    hour_messages: int = 0
    """Begin of the hour that `silence` learns from, and the message count at that time."""
    failing: tuple[str, float] = NOT_FAILING
    """Reason and boot time of the last verdict that needs a repair; until the session is well."""
    failures: dict[str, float] = field(default_factory=dict)
    """Code that others may share → boot time of the session's last failure with it."""
    succeeded_at: float = NEVER
    unsaid: list[model.JournalEntry] = field(default_factory=list)
    """Entries for the journal, which the next save writes."""

    def note(
        self, kind: str, sentence: str, category: Category = Category.SESSION, **detail: Any
    ) -> None:
        """Note an entry: the next save writes it into the journal and the log."""
        self.unsaid.append(entry(self, kind, sentence, category, **detail))

    def note_dropped(self, order: str, why: str) -> None:
        said = f"an operator's order ({order.replace('_', ' ')}) {why}"
        self.note("operator", f"{said}: it is dropped, ask again", Category.RECOVERY)

    @property
    def at_rest(self) -> bool:
        """True if the session is well and nothing is to be done; its worker tells of changes."""
        linked = self.link is not None and not self.instance.backend
        ordered = self.record.start_asked or self.record.restart_of == self.unit.run
        busy = self.wait.reason or self.repairing or ordered or self.asked != Asked()
        return self.verdict.healthy and linked and not (busy or self.last_reason.final)

    def heard(self, claim: Claim, now: float) -> bool:
        """Take in a claim of the present run; True if more than the age of its proof is new."""
        before = self.run.claim
        self.engine_version = claim.version or self.engine_version
        same_status = before is not None and before.claim.status is claim.status
        same_phase = before is not None and same_status and before.claim.phase == claim.phase
        # `still_for`: the status may have begun before this agent saw it.
        begun = max(now - claim.still_for, self.begun_at)
        since = before.since if before and same_status else begun
        proved = before is not None and before.claim.proof_age is not None
        if same_status and proved and claim.proof_age is None:
            since = now  # its proof is lost: the next one has its time from here
        last, progressed = (before.claim.progress, before.progress_since) if before else (None, 0.0)
        grew = before is not None and (claim.progress or 0.0) > (last or 0.0)
        phase_since = before.phase_since if before and same_phase else begun
        progress_since = now if grew else progressed
        self.run.claim = model.ClaimFact(claim, now, since, phase_since, progress_since)
        connected = claim.status is ConnectionStatus.CONNECTED and not same_status
        if connected and not self.instance.backend:
            # It has just connected: probed at once, and deep, for its proof and for parts that its
            # page lacks. A server's sessions have their own pace.
            self.next_probe = self.next_deep = 0.0
        return before is None or before.claim != claim or proved is (claim.proof_age is None)


def _own_limit(facts: Facts) -> int | None:
    own = facts.instance.settings.get("memory_limit")
    return own if isinstance(own, int) and own >= 0 else None


REMOTE_STARTS = 50
"""Simultaneous starts of sessions on backends, which start no process here."""


@dataclass(slots=True)
class Settings:
    """The configuration in force; a reload replaces it as a whole."""

    config: Config
    read_wall: float = field(default_factory=time.time)
    refused: bool = False
    """True if the last reload failed: the file could not be read."""

    def take(self, config: Config) -> None:
        self.config, self.read_wall, self.refused = config, time.time(), False

    def start_policy(self, *, remote: bool) -> admission.StartPolicy:
        """Return the limits of a start. One on a backend begins no process here, but takes from the
        machine's budget of logins."""
        start = self.config.start
        parallel = REMOTE_STARTS if remote else start.parallel or 2 * (os.cpu_count() or 1)
        return replace(start, stagger=0.0 if remote else start.stagger, parallel=parallel)

    def killed_above(self, facts: Facts) -> int:
        """Bytes at which a host without units kills it, 0 = none: more than memory_max where its
        own setting grants more."""
        wall, own = self.config.worker.memory_max, _own_limit(facts)
        return 0 if wall == 0 or own == 0 else max(wall, int((own or 0) * BEHIND))

    def memory_limit(self, facts: Facts) -> int:
        """Bytes, 0 = no limit: the session's own setting, else `[memory] instance`."""
        if facts.instance.backend:
            return 0  # it has no process of its own here
        config, own, kind = self.config, _own_limit(facts), entry_of(facts.instance.engine)
        if own is not None:
            return own
        if facts.pack or (not facts.unit.runs and config.worker.pack > 1 and kind.packable):
            return min(config.memory.instance or MEMORY, MEMORY)
        # Never promise more than memory_max: the host kills the worker there.
        walls = (config.memory.instance, config.worker.memory_max, kind.memory)
        return min(wall for wall in walls if wall) if config.memory.instance else 0

    def memory_budget(self) -> int:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # no file: asked often
        return memory.memory_budget(total, self.config.memory)


MEMORY = 96 << 20
"""Bytes counted for one session of a pack: its worker, and its part of the shared process."""

SESSION_CIRCUIT_OPEN, SESSION_CIRCUIT_CLOSED = "session_circuit_open", "session_circuit_closed"
"""Kinds of journal entries about a session's circuit; a backend's has its own."""

_TROUBLES = (SESSION_CIRCUIT_OPEN, "folder_newer", "snapshot_failed")
_MEANT = frozenset({"stopped", "disabled", "masked", "waiting_for_scan", "qr_idle"})
"""Reasons of a session that is down on purpose, or shows a code."""


def entry(
    facts: Facts, kind: str, sentence: str, category: Category = Category.SESSION, **detail: Any
) -> model.JournalEntry:
    return model.JournalEntry(kind, sentence, category, facts.id, time.time(), detail)


def is_trouble(entry: model.JournalEntry) -> bool:
    """True if the log has it as a warning: a session goes down, is stuck, banned, given up, or its
    circuit opens."""
    detail, code = entry.detail, str(entry.detail.get("reason", ""))
    if detail.get("ok") is False or entry.kind in _TROUBLES:
        return True
    if code in _MEANT or detail.get("asked"):
        return False
    if entry.kind == "status":
        return detail.get("before") == ConnectionStatus.CONNECTED or reason_of(code).hopeless
    lasts = reason_of(code).permanence not in (Permanence.RETRY, Permanence.AT_ONCE)
    bad = detail.get("verdict") in (model.Health.STUCK, model.Health.CORRUPTED)
    return entry.kind == "verdict" and (bad or lasts)


def tell(entry: model.JournalEntry) -> None:
    level = logging.WARNING if is_trouble(entry) else logging.INFO
    bound(entry.category, entry.instance, __name__).log(level, "%s", entry.sentence)


class Notes:
    """Writes journal entries without waiting, with the next commit."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._under_way: set[asyncio.Future[None]] = set()

    def write(self, said: model.JournalEntry) -> None:
        task = asyncio.ensure_future(self._store.note(said))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
