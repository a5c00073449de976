"""All instances of this machine: their facts, their views, and how they are saved."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from agent import clock, instance_file, log
from agent.config.config import check_declared, declared_for, worker_settings
from agent.core import crypto, health, reasons, session, words
from agent.core.figures import RepairStatistics, StatusTime
from agent.core.model import Instance, InstanceId, JournalEntry, SessionRecord
from agent.engines.base import Linked
from agent.engines.catalog import entry_of
from agent.errors import NotFound, Refused, VaultError, WaError
from agent.store.database import Store
from agent.supervise.facts import Facts, Settings, tell
from agent.supervise.gate import Gate
from agent.vault import folders, identity
from agent.vault.folder import SESSION
from agent.vault.identity import read_linked


def identity_of(facts: Facts) -> identity.Identity:
    record = facts.record
    # With this word of WhatsApp its worker must not log in; a backend's sessions have no worker.
    ban = record.reason == "temporary_ban"
    ends = (ban or reasons.reason_of(record.reason).final) and not facts.instance.backend
    same = {name: getattr(record, name) for name in identity.IN_RECORD} | {"leased": facts.leased}
    same |= {"ended": record.reason, "ended_until": record.not_before_wall * ban} if ends else {}
    return identity.Identity(facts.instance, of_rooms=facts.of_rooms, **same)


def is_written(facts: Facts) -> bool:
    """True if the session's identity file says what the agent knows."""
    written, wanted = facts.saved.identity, identity_of(facts)
    if written is None:
        return False
    return replace(written, lineage="", generation=wanted.generation) == wanted


def _inodes(folder: str) -> dict[str, int]:
    found = {}
    for name, path in (("folder", folder), ("session", f"{folder}/{SESSION}")):
        with suppress(OSError):
            found[name] = os.lstat(path).st_ino
    return found


def _same_device(doing: str, twin: InstanceId, how: str) -> Refused:
    why = f"instance {twin} is the same linked device, and two programs with one device end"
    sentence = f"cannot {doing}: {why} each other's connections; {how} {twin} first"
    return Refused(sentence, code=words.SAME_DEVICE)


_ORDERED = ("override", "override_boot", "restart_of", "start_asked", "past_looks")
"""Fields of the record that hold an order."""
PROGRAM_FAILS = ("program_missing", "program_ended", "program_failing")
"""With these reasons the worker tries with the settings of its start: a correction needs another
worker."""


@dataclass(slots=True, eq=False, repr=False)
class Registry:
    store: Store
    gate: Gate
    root: Path
    facts: dict[InstanceId, Facts] = field(default_factory=dict)
    """All sessions. The registry fills the dict, which other parts may hold already."""
    boot: str = ""
    kept_more: Callable[[InstanceId], None] = field(init=False)
    """Hears that a worker kept more messages, or was connected and may have. The reader of messages
    sets both."""
    forgotten: Callable[[InstanceId], None] = field(init=False)
    """Called when a session was deleted."""
    _locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = field(
        init=False, default_factory=WeakValueDictionary
    )
    """By device, as two copies are compared one after the other; by the name that is made, and of
    the identity file that is written."""
    stopping: bool = field(init=False, default=False)
    """True while the agent stops: callers that wait are answered, so that they delay no stop."""
    statistics: RepairStatistics = field(init=False, default_factory=RepairStatistics)
    _look: "asyncio.Task[dict[InstanceId, dict[str, int]]] | None" = field(init=False, default=None)
    """The look at the folders of `_looked_at`; it begins with the loop's next turn."""
    _looked_at: list[InstanceId] = field(init=False, default_factory=list)

    @property
    def settings(self) -> Settings:
        return self.gate.settings

    def add(self, instance: Instance, record: SessionRecord) -> Facts:
        last = record.repair
        resumed = None if last is None else last.resume(time.time())
        facts = Facts(
            instance,
            replace(record, repair=resumed),
            counters=session.Counters(time.time()),
            boot=self.boot,
            counts_messages=not entry_of(instance.engine).remote,
            # Counted from here on: an earlier agent counted the time since the record's status
            # began, or no agent ran.
            status_time=StatusTime(record.status, clock.boot_now()),
            of_rooms=self._of_rooms(instance),
            leased=self.gate.fleet.leased and not instance.backend,
        )
        if last and resumed and resumed.goal is not last.goal:
            facts.note_dropped(last.goal, "had not begun when the last agent ended")
        # The caller has just written or read its row.
        facts.saved.instance, facts.saved.record = instance, record
        self.facts[instance.id] = facts
        return facts

    @asynccontextmanager
    async def making(
        self, id: InstanceId, doing: str, *, replaces: bool = False
    ) -> AsyncIterator[None]:
        """One request at a time makes the instance of a name: what another one has just made or
        put back does not go when this one is refused."""
        async with self._locks.setdefault(("name", id), asyncio.Lock()):
            if id in self.facts and not replaces:
                look = f"it exists: wa-agent why {id}, and to pair it wa-agent qr {id}"
                words = f"cannot {doing}: {look}; to replace it: wa-agent delete {id}"
                raise Refused(words, field="id", code="exists")
            self.gate.fleet.may_make(id, doing)
            yield
            await self.gate.fleet.made(id, doing)

    async def create(self, instance: Instance, sentence: str) -> Facts:
        """Lay out the folder, then write the row: a crash in between leaves an empty folder."""
        if instance.adopted and words.ADOPTED not in instance.settings:
            # It has a name of its own on its server, and was not adopted: it is to be made.
            instance = replace(instance, settings={**instance.settings, words.ADOPTED: False})
        async with self.making(instance.id, f"create {instance.id}"):
            now_wall, own = time.time(), self._of_rooms(instance)
            record = SessionRecord(status_since_wall=now_wall)
            said = JournalEntry("created", sentence, instance=instance.id, wall=now_wall)
            try:
                await asyncio.to_thread(identity.create, self.root, instance, own)
                await self.store.add(instance, record, said)
            except WaError as error:  # what is refused must not be there after the next start
                if not isinstance(error, VaultError | Refused):
                    with log.going_on():  # a full disk refuses that as well
                        await asyncio.to_thread(folders.retire, self.root, instance.id, "deleted")
                    (self.root / instance.id / instance_file.NAME).unlink(missing_ok=True)
                # Empty folders go, too: they would hold the name.
                for empty in (self.root / instance.id / SESSION, self.root / instance.id):
                    with suppress(OSError):
                        empty.rmdir()
                raise
            facts = self.add(instance, record)
            facts.saved.identity = None if facts.leased else identity_of(facts)
            self.gate.wake(facts.id)
            return facts

    def check(self, instance: Instance) -> None:
        """Refuse one that names what agent.toml has not, or whose session another instance has."""
        check_declared(self.settings.config, instance, [it.instance for it in self.facts.values()])

    def look_up(self, facts: Facts) -> None:
        """The instance's settings or agent.toml changed: its worker's share is looked up again. Its
        file says so with its next pass, before a worker starts."""
        if facts.of_rooms != (own := self._of_rooms(facts.instance)):
            facts.of_rooms = own
            if facts.verdict.reason in PROGRAM_FAILS:
                facts.asked.restart_for = "agent.toml has another [[program]] for it"

    def _of_rooms(self, instance: Instance) -> Mapping[str, Any]:
        """Return room → the settings of its part in the instance's worker."""
        config = self.settings.config
        own = {**worker_settings(config), **declared_for(config, instance)}
        return {} if instance.backend else own

    def drop(self, facts: Facts) -> None:
        facts.gone = True
        self.facts.pop(facts.id, None)
        self.gate.forget(facts.id)
        self.forgotten(facts.id)

    def get(self, id: InstanceId) -> Facts:
        if (facts := self.facts.get(id)) is None:
            raise NotFound(f"cannot find instance {id}: no instance has that name", field="id")
        return facts

    def views(self) -> Mapping[InstanceId, session.Session]:
        return {id: self.view(id) for id in self.facts}

    def view(self, id: InstanceId) -> session.Session:
        """A copy for those who keep it while the session goes on. Its proof may have become too old
        since its last pass, as in a suspend of the machine: then it is not CONNECTED."""
        shown, policy = copy(self.present(id)), self.settings.config.health_policy
        old = (shown.proof_age or 0.0) > policy.proof_limit
        if old and shown.record.status is words.ConnectionStatus.CONNECTED:
            shown.verdict = health.judge_health(shown, policy, shown.at)
            shown.record = replace(shown.record, status=shown.verdict.state)
        return shown

    def present(self, id: InstanceId) -> session.Session:
        """Return the session itself, brought up to date; read it at once."""
        facts, settings = self.get(id), self.settings
        facts.at, facts.at_wall = clock.boot_now(), time.time()
        breaker, rules = facts.record.breaker, settings.config.reconnect.breaker
        facts.circuit = breaker.state(facts.at_wall, rules).value
        trial_in = breaker.trial_in(facts.at_wall, rules)
        facts.circuit_opens_wall = facts.at_wall + trial_in if trial_in else None
        facts.turns_before = self.gate.queues.before(id)
        facts.in_incident = self.gate.incidents.incident_of(facts) is not None
        facts.memory_limit = settings.memory_limit(facts)
        lately = crypto.forget_old(facts.crypto, settings.config.crypto, facts.at)
        facts.crypto_lately = len(lately.errors)
        if facts.instance.backend:
            server = self.gate.backends.of(facts)
            facts.engine_version = server.claim.version if server is not None else ""
        return facts

    async def inodes(self, id: InstanceId) -> Mapping[str, int]:
        """Return the inodes at the paths of the session's folders. Passes that ask in one turn of
        the loop share a look, in a thread, as the disk may hang."""
        self._looked_at.append(id)
        look = self._look = self._look or asyncio.create_task(self._look_at_folders())
        await asyncio.wait({look})  # one that is cancelled takes the look from no other
        return look.result()[id]

    async def _look_at_folders(self) -> dict[InstanceId, dict[str, int]]:
        ids, self._looked_at, self._look = self._looked_at, [], None
        return await asyncio.to_thread(lambda: {id: _inodes(f"{self.root}/{id}") for id in ids})

    # Which linked device each session is. WhatsApp ends the connection of a device whenever another
    # program logs in as the same one: of its copies, one may be an instance that runs.

    @asynccontextmanager
    async def alone(
        self,
        id: InstanceId,
        engine: str,
        doing: str,
        linked: Linked | None = None,
        *,
        arrives: bool = False,
    ) -> AsyncIterator[None]:
        """Refused where another instance is the same device. `linked`: of a session that is not in
        its place yet; else of this one. One that `arrives` no other instance may be; one that is
        here already may not run with another that runs."""
        if linked is None:
            linked = await asyncio.to_thread(read_linked, self.root, id, engine)
        if not linked.device:
            yield
            return
        async with self._locks.setdefault(("device", linked.device), asyncio.Lock()):
            if twin := await self._twin_of(id, linked, running=not arrives):
                raise _same_device(doing, twin, "delete" if arrives else "disable")
            yield

    async def hold_copies(self, ids: Iterable[InstanceId]) -> None:
        """At the agent's start hold sessions of one device, but for the first one."""
        paired = [facts for facts in map(self.get, ids) if facts.should_run and facts.record.paired]
        accounts = [facts.record.account for facts in paired]
        for facts in reversed(paired):
            # Most sessions have an account of their own: not a file is read.
            if accounts.count(facts.record.account) > 1 or "" in accounts:
                with suppress(Refused):
                    await self.hold_copy(facts)

    async def hold_copy(self, facts: Facts) -> None:
        """Refused where another session that should run is the same device: this one waits for an
        order. Without the lock of `alone`: its holders wait for passes, and a pass asks this."""
        linked = await asyncio.to_thread(read_linked, self.root, facts.id, facts.instance.engine)
        twin = await self._twin_of(facts.id, linked, running=True) if linked.device else None
        # If two sessions ask at once, the second finds the first one held.
        if twin and (other := self.get(twin)).should_run and not other.held:
            refused = _same_device(f"enable {facts.id}", twin, "disable")
            facts.held = str(refused)
            log.bound(words.Category.SESSION, facts.id).warning("%s", facts.held)
            raise refused

    async def _twin_of(self, id: InstanceId, linked: Linked, *, running: bool) -> InstanceId | None:
        for facts in list(self.facts.values()):
            instance, account = facts.instance, facts.record.account
            other = instance.id != id and not instance.backend and facts.record.paired
            runs = (instance.enabled and not facts.held) or facts.unit.runs or not running
            # Where one of both accounts is not known, the files tell.
            if other and runs and (not account or linked.account in ("", account)):
                it = await asyncio.to_thread(read_linked, self.root, facts.id, instance.engine)
                if it.device == linked.device:
                    return instance.id
        return None

    async def save(self, facts: Facts, *orders: JournalEntry) -> None:
        """Write rows, identity and what was noted: they must be on the disk before a plan is
        carried out."""
        if facts.gone:
            return
        said, facts.unsaid = facts.unsaid, []
        for each in said:
            tell(each)
        if not is_written(facts):
            await self._write_identity(facts)
        await self._save_row(facts, *said, *orders)

    async def save_order(self, facts: Facts, order: JournalEntry) -> None:
        """As `save`, for an order: where it cannot be written, what is wanted is what was. The log
        has it once the disk has it."""
        instance, record = facts.saved.instance, facts.saved.record
        assert instance is not None and record is not None, "the registry has what was written"
        try:
            await self.save(facts, order)
        except WaError:
            facts.instance = instance
            self.look_up(facts)
            ordered = {name: getattr(record, name) for name in _ORDERED}
            facts.record = replace(facts.record, **ordered)
            if not is_written(facts):  # its file has the order, and would count as newer
                await self._write_identity(facts)
            raise
        tell(order)

    async def _save_row(self, facts: Facts, *entries: JournalEntry) -> None:
        instance, record = facts.instance, facts.record
        facts.status_time = facts.status_time.enter(record.status, clock.boot_now())
        await self.store.save(instance, record, *entries)
        facts.saved.instance, facts.saved.record = instance, record

    async def save_all(self, *, closing: bool) -> None:
        """Save every record in one commit. `closing`: the agent itself ends the workers."""
        for facts in self.facts.values():
            if closing and not facts.instance.backend:
                # A worker found stopped in this same boot was stopped by an operator, unless the
                # agent did it.
                facts.record = replace(facts.record, stopped_run=facts.record.seen_run)
        await asyncio.gather(*(self._save_row(facts) for facts in self.facts.values()))

    async def _write_identity(self, facts: Facts) -> None:
        # The newest state must be written last.
        async with self._locks.setdefault(("identity", facts.id), asyncio.Lock()):
            record, written = facts.record, facts.saved.identity
            if written is None or record.generation <= written.generation:
                facts.record = replace(record, generation=record.generation + 1)
            wanted = identity_of(facts)
            try:
                await asyncio.to_thread(identity.replace_identity, self.root, wanted)
            except VaultError as error:
                # The database has it and counts as newer; each save tries the file again.
                if error.code != identity.OTHERS:  # its verdict says so
                    cause = f"cannot write its identity file: {error}"
                    if cause != facts.saved.unwritten:
                        log.bound(words.Category.SESSION, facts.id).warning("%s", cause)
                    facts.saved.unwritten = cause
            else:
                facts.saved.identity, facts.saved.unwritten = wanted, ""
