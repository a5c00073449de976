"""The orders of operators: a session's settings, whether it runs, its deletion into the trash and
its return; and repairs: check, recover, clean up, ensure healthy. Passes carry them out; a request
for a repair joins the one that runs, and waits."""

import asyncio
import time
from collections.abc import Collection, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from agent import errors, files
from agent.core import breaker, reasons
from agent.core.model import HealthVerdict, Instance, JournalEntry, Override
from agent.core.recovery import ladder, pairing
from agent.core.recovery.repair import Consent, Ending, Goal, Repair
from agent.core.session import AWAY, NOT_LOOKED_YET, WAITS_TURN, Session, local_text
from agent.core.words import SAME_DEVICE, Category, ConnectionStatus, InstanceId
from agent.engines import base, catalog
from agent.errors import InvalidRequest, LinkError, NotFound, Refused, TryLater, WaError
from agent.supervise import calls, gate, observe, passes
from agent.supervise.facts import Facts, entry
from agent.supervise.record import Means
from agent.supervise.registry import Registry
from agent.supervise.seats import Seats
from agent.vault import folder, restore
from agent.vault.folders import Retired, list_trash, restore_trash, retire
from agent.vault.identity import read_identity


def check_settings_of(instance: Instance) -> None:
    """Refuse an unknown engine, and settings with which its worker could not start."""
    try:
        catalog.check_settings(instance.engine, instance.settings)
    except errors.ConfigError as error:
        field, code = f"settings.{error.field}", "invalid_settings"
        if error.code == "unknown_engine":
            field, code = "engine", error.code
        raise InvalidRequest(str(error), field=field, code=code) from None


@dataclass(slots=True, eq=False, repr=False)
class Orders:
    """Writes each order down and wakes a pass, which carries it out; only a logout is done at once,
    for its answer is the result. Unknown ids raise NotFound."""

    registry: Registry
    seats: Seats
    asking: calls.Calls

    async def create(self, instance: Instance) -> Session:
        check_settings_of(instance)
        self.registry.check(instance)
        if catalog.entry_of(instance.engine).remote or instance.backend:
            self.registry.gate.backends.check_place(instance)
        made = replace(instance, created_wall=instance.created_wall or time.time())
        disabled = "" if made.enabled else ", disabled"
        facts = await self.registry.create(made, f"created with engine {made.engine}{disabled}")
        self.registry.gate.note_wait(facts)
        return self.registry.view(facts.id)

    async def change_settings(self, id: InstanceId, settings: Mapping[str, Any]) -> Session:
        """The worker reads them at its next start; its limits change at once. The caller has
        refused another backend or session."""
        facts = self.registry.get(id)
        changed = replace(facts.instance, settings=dict(settings))
        check_settings_of(changed)
        self.registry.check(changed)
        facts.instance = changed
        self.registry.look_up(facts)
        return await self.intend(facts, "settings", "its settings changed")

    async def enable(self, id: InstanceId) -> Session:
        facts = self.registry.get(id)
        if facts.ended_by.final and facts.instance.enabled and facts.should_run:
            # An enabled session that WhatsApp ended gets no further login.
            return await self.intend(facts, "enabled", "an operator enabled it; it was already")
        with suppress(InvalidRequest):  # a program that is missing says so itself
            self.registry.check(facts.instance)
        async with self.registry.alone(id, facts.instance.engine, f"enable {id}"):
            facts.instance = replace(facts.instance, enabled=True)
            facts.forgive(ban=False, start_asked=True)
            facts.order(Override.NONE)
            return await self.intend(facts, "enabled", "an operator enabled it")

    async def disable(self, id: InstanceId) -> Session:
        facts = self.registry.get(id)
        observe.refuse_to_end(facts, "disable")
        if facts.enabled_by_operator:
            why = f"its unit is enabled in systemd; run: systemctl disable wa-instance@{id}"
            raise Refused(f"cannot disable {id}: {why}", code="enabled_in_systemd")
        facts.instance = replace(facts.instance, enabled=False)
        facts.order(Override.NONE)
        facts.action.interrupt_start()
        return await self.intend(facts, "disabled", "an operator disabled it")

    async def start(self, id: InstanceId) -> Session:
        facts = self.registry.get(id)
        async with self.registry.alone(id, facts.instance.engine, f"start {id}"):
            facts.forgive(start_asked=True)
            facts.order(Override.NONE if facts.enabled else Override.STARTED)
            return await self.intend(facts, "operator", "an operator started it")

    async def stop(self, id: InstanceId) -> Session:
        facts = self.registry.get(id)
        observe.refuse_to_end(facts, "stop")
        facts.order(Override.STOPPED)
        facts.action.interrupt_start()
        stays = "an operator stopped it: it stays stopped until a start"
        return await self.intend(facts, "operator", stays)

    async def restart(self, id: InstanceId) -> Session:
        facts = self.registry.get(id)
        observe.refuse_to_end(facts, "restart")
        # Right after the agent's start no pass has looked at it yet.
        unit = facts.unit if facts.observed else await self.seats.status(facts)
        if not unit.runs:
            return await self.start(id)
        facts.forgive(restart_of=unit.run)
        return await self.intend(facts, "operator", "an operator asked for a restart")

    async def mark_passkey(self, id: InstanceId, needed: bool) -> Session:
        """Note whether the session's account needs a passkey to link a device."""
        facts = self.registry.get(id)
        facts.record = replace(facts.record, needs_passkey=needed)
        word = "needs a passkey to link" if needed else "needs no passkey to link"
        return await self.intend(facts, "operator", f"an operator noted: its account {word}")

    async def logout(self, id: InstanceId, **word: Any) -> Session:
        """End the pairing. `word`: a person's, as `must_be_confirmed` takes it."""
        facts = self.registry.get(id)
        if facts.no_pairing_to_lose:
            why = "it is not paired, there is no pairing to end; to pair it:"
            raise Refused(f"cannot log out {id}: {why} `wa-agent qr {id}`", code="not_paired")
        calls.must_be_confirmed(facts, "log out", **word)
        await self.asking.logout(id)
        await self.registry.gate.fleet.kept(id)
        return self.registry.view(id)

    async def intend(
        self, facts: Facts, kind: str, sentence: str, category: Category = Category.SESSION
    ) -> Session:
        facts.saved.identity = None  # its file is written again: it may have been changed
        await self.registry.save_order(facts, entry(facts, kind, sentence, category))
        self.registry.gate.wake(facts.id)
        self.registry.gate.note_wait(facts)
        await self.registry.gate.fleet.kept(facts.id)
        return self.registry.view(facts.id)

    async def delete(self, id: InstanceId, *, passkey: str = "") -> str:
        """Stop it, retire its folder, forget it. The session can be restored from the trash. After
        a kill it is as before while it has its folder; without it the next start ends this."""
        facts = self.registry.get(id)
        calls.must_be_confirmed(facts, "delete", confirmed=True, passkey=passkey)
        facts.action.interrupt_start()
        async with facts.busy:
            self.registry.get(id)  # another request may have deleted it meanwhile
            said = entry(facts, "deleting", "an operator deletes it")
            await self.registry.save_order(facts, said)
            await self.seats.stop(facts)
            files.failpoint("deletion_begun")
            if facts.instance.backend:
                await self.registry.gate.backends.let_go(facts.instance)
            name = ""
            async with self.asking.keeping.ending(facts):
                with folder.unless_absent():
                    retire_it = partial(retire, self.registry.root, id, "deleted", follows=False)
                    name = (await asyncio.to_thread(retire_it)).name
            words = f"deleted; its session is in the trash as {name or 'nothing'}"
            files.failpoint("deletion_retired")
            await self.registry.store.remove(id, entry(facts, "deleted", words))
            self.registry.drop(facts)
        await self.registry.gate.fleet.kept(id)
        return name

    async def trash(self) -> list[Retired]:
        return await asyncio.to_thread(list_trash, self.registry.root)

    async def restore_trash(self, name: str) -> Session:
        id = InstanceId(name.partition(".")[0])
        async with self.registry.making(id, f"restore {id}"):
            await asyncio.to_thread(restore_trash, self.registry.root, name)
            try:
                identity = await asyncio.to_thread(read_identity, self.registry.root / id)
                instance = identity.instance
                if not (self.registry.root / id / restore.MESSAGES).exists():
                    # Messages and readers' places went on with the session that replaced this one.
                    instance = replace(instance, created_wall=time.time())
                # Restored by an operator: a former stop or logout in its record is dropped. A ban
                # stays, and a pairing that WhatsApp no longer knows stays ended.
                kept = identity.paired and not reasons.reason_of(identity.ended).unpairs
                ended = "" if identity.ended == "logout" else identity.ended
                record = replace(identity.record, override=Override.NONE, override_boot="")
                record = replace(record, reason=ended, paired=kept, status_since_wall=time.time())
                said = JournalEntry("restored", f"restored from the trash ({name})", instance=id)
                async with self.registry.alone(id, instance.engine, f"restore {id}", arrives=True):
                    await self.registry.store.add(instance, record, said)
                    self.registry.add(instance, record)
            except WaError:
                await asyncio.to_thread(retire, self.registry.root, id, "deleted")
                raise
        self.registry.gate.wake(id)
        return self.registry.view(id)


T = TypeVar("T")
GRACE = 0.2
"""Seconds for work that ends at the deadline by itself to say how far it came."""

_working: set[asyncio.Task[Any]] = set()
"""Tasks that go on without their callers: the loop keeps no task that nothing waits for."""


async def in_time(work: Coroutine[Any, Any, T], deadline: float) -> T | None:
    """Return the result; None: `work` goes on alone. `deadline` is of time.monotonic()."""
    task = asyncio.create_task(work, name="asked for")
    _working.add(task)
    task.add_done_callback(_over)
    await asyncio.wait({task}, timeout=max(deadline - time.monotonic(), 0.0) + GRACE)
    return task.result() if task.done() else None


def _over(task: asyncio.Task[Any]) -> None:
    _working.discard(task)
    if not task.cancelled():
        task.exception()  # read here: its caller may have had its answer before


AWAY_PATIENCE = 5.0
"""Seconds for which a request waits for a server that is away: longer than a blink."""
GOES_ON = "goes_on"
"""The ending of a repair that takes longer than its caller waits."""
POLL = 0.1
_NOTHING_DONE = {"healthy": False, "cleaned": False, "recovered": False}
_COMING_UP = ("starting", "stopping", "not_running", WAITS_TURN)
REFUSALS = 4
"""Failed plans in a row after which a start is not on its way."""
_HOLDS = AWAY | {gate.MEMORY_FULL, SAME_DEVICE}
"""Wait reasons for which no repair is begun."""

Answer = dict[str, Any]
"""healthy, cleaned, recovered; `ending`, and `sentence`: the trouble that is left, "" = it is well.
As JSON shows it."""


@dataclass(frozen=True, slots=True)
class SetUp:
    created: bool
    result: Answer
    qr: base.Qr | None
    """The code to scan; None: the session is connected, or `goes_on`."""
    goes_on: bool = False
    """True if the time to wait is over, and the agent goes on."""


@dataclass(slots=True, eq=False, repr=False)
class Repairs:
    """Requests for repairs; unknown ids raise NotFound."""

    means: Means
    orders: Orders
    _checks: asyncio.Semaphore = field(init=False, default_factory=partial(asyncio.Semaphore, 64))
    _creating: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)

    async def check_now(
        self, ids: Collection[InstanceId] | None = None
    ) -> Mapping[InstanceId, HealthVerdict]:
        registry = self.means.registry
        all_facts = [registry.get(id) for id in (registry.facts if ids is None else ids)]
        await asyncio.gather(*(self._check(facts) for facts in all_facts))
        return {facts.id: facts.verdict for facts in all_facts}

    async def _check(self, facts: Facts) -> None:
        facts.next_probe = 0.0
        async with self._checks:
            await passes.run_pass(self.means, facts)
        self.means.gate.wake(facts.id)  # the loop knows its next deadline

    async def until(
        self, goal: Goal, id: InstanceId, *, wait: float, confirmed: bool = False, passkey: str = ""
    ) -> Answer:
        """The answer to every request for a repair; after `wait` seconds the ending "goes_on".

        RECOVER tries once all steps that keep the pairing; WORKING_QR goes on to a new session if
        nothing milder helped; CLEANUP begins with that. TryLater where it stays unwell and its
        pairing may not end without a person's word.
        """
        facts, consent = self.means.registry.get(id), Consent.NONE
        if goal is Goal.CLEANUP or (goal is Goal.WORKING_QR and confirmed):
            doing = "clean up" if goal is Goal.CLEANUP else "renew"
            consent = calls.must_be_confirmed(facts, doing, confirmed=confirmed, passkey=passkey)
        self._must_be_wanted(facts)
        deadline = time.monotonic() + wait
        if answer := await in_time(self._reach(goal, facts, deadline, consent), deadline):
            return answer
        _refuse_away(facts)
        so_far = facts.repairing.answer if facts.repairing else _NOTHING_DONE
        return {**so_far, "ending": GOES_ON, "sentence": _trouble(facts)}

    async def set_up(self, wanted: Instance, *, wait: float, **word: Any) -> SetUp:
        """Create the instance, or enable it; then repair it until it is connected or shows a QR.
        `wait`: seconds after which it is answered, whatever still goes on. `word`: a person's, as
        `until` takes it."""
        id, deadline = wanted.id, time.monotonic() + wait
        # A second request for the same new instance joins the first: it is created once.
        async with self._creating:
            if (facts := self.means.registry.facts.get(id)) is None:
                await self.orders.create(wanted)
        if facts and wanted.engine and facts.instance.engine != wanted.engine:
            words = f"cannot set up {id} with {wanted.engine}: it uses {facts.instance.engine}"
            raise Refused(words, field="engine", code="other_engine")
        if facts and not facts.should_run:
            await self.orders.enable(id)
        result = await self.until(Goal.WORKING_QR, id, wait=deadline - time.monotonic(), **word)
        made = SetUp(facts is None, result, qr=None, goes_on=result["ending"] == GOES_ON)
        verdict = self.means.registry.get(id).verdict
        # Asking for its code wakes one whose codes expired.
        if result["ending"] == Ending.NEEDS_PERSON and verdict.reason != "qr_idle":
            raise Refused(f"cannot show a code for {id}: {verdict.sentence}", code=verdict.reason)
        if result["ending"] == Ending.GAVE_UP:
            raise TryLater(f"cannot set up {id}: {result['sentence']}", code="no_qr")
        while not made.goes_on:
            status = self.means.registry.get(id).record.status
            if status is ConnectionStatus.CONNECTED:
                break
            if status is ConnectionStatus.QR_REQUIRED:
                # The worker may be replaced meanwhile: the next look finds the new one.
                with suppress(LinkError, Refused):
                    shown = await self.orders.asking.qr(id)
                    if shown is not None and shown.expires_in > 0:
                        return replace(made, qr=shown)
            if time.monotonic() >= deadline:
                return replace(made, goes_on=True)
            await self.pause()
        return made

    async def force_reconnection(self, id: InstanceId) -> None:
        """Try now, whatever the attempts, the delay and the circuit say."""
        facts = self.means.registry.get(id)
        self._must_be_wanted(facts)
        if (reason := facts.ended_by).unpairs:
            raise Refused(f"cannot reconnect {id}: {reason.in_full(id)}", code="never_reconnects")
        connected = facts.record.status is ConnectionStatus.CONNECTED
        # The worker or the server reconnects a connected session.
        again = facts.unit.run if connected and facts.unit.runs else facts.record.restart_of
        facts.forgive(restart_of=again, start_asked=True, past_looks=True)
        facts.asked.try_at_once = True
        asked = "an operator asked to connect now"
        await self.orders.intend(facts, "operator", asked, Category.RECONNECT)

    async def reset_circuit_breaker(self, id: InstanceId) -> None:
        facts = self.means.registry.get(id)
        facts.record = replace(facts.record, breaker=breaker.Breaker())
        closed = "an operator closed the circuit"
        await self.orders.intend(facts, "operator", closed, Category.RECONNECT)

    async def pause(self) -> None:
        """Wait between two looks. TryLater when the agent stops."""
        if self.means.registry.stopping:
            raise TryLater("the agent stops; ask again after its start", code="stopping")
        await asyncio.sleep(POLL)

    async def _reach(self, goal: Goal, facts: Facts, deadline: float, consent: Consent) -> Answer:
        heals = goal is Goal.WORKING_QR and not facts.repairing
        if heals or (facts.verdict is NOT_LOOKED_YET and not facts.repairing):
            await self.check_now([facts.id])
        if heals:
            # A start or a stop ends first: its deadlines say when it is late.
            while _is_on_its_way(facts) and not facts.repairing and time.monotonic() < deadline:
                await self.pause()
            if _is_well(facts.verdict):
                return {**_NOTHING_DONE, "healthy": True, "ending": "", "sentence": ""}
            if _is_on_its_way(facts) and not facts.repairing:
                # It starts in its time: a repair would only begin the start again.
                return {**_NOTHING_DONE, "ending": GOES_ON, "sentence": facts.sentence}
        patience = time.monotonic() + AWAY_PATIENCE
        while facts.wait.reason in _HOLDS and time.monotonic() < patience:
            await self.pause()
        _refuse_away(facts)  # its server stayed away: no wait would help
        asked = await self._begin(goal, facts, consent)
        while not (over := _is_over(facts, asked)) and time.monotonic() < deadline:
            if goal is Goal.WORKING_QR and _is_kept_away(facts):
                break
            await self.pause()
        if facts.gone:
            raise NotFound(f"cannot repair {facts.id}: it was deleted, or moved", field="id")
        await self.means.gate.fleet.kept(facts.id)
        return _answer(goal, facts, over=over)

    async def _begin(self, goal: Goal, facts: Facts, consent: Consent) -> Repair:
        """A requested repair joins the running one, or begins."""
        before, runs, facts.kept = facts.repair, facts.repairing, None
        asked = replace(ladder.begin_repair(facts.verdict, goal, time.time()), consent=consent)
        facts.repair = asked = runs.join(goal, consent) if runs else asked
        word = "joins the repair that runs" if runs else "begins a repair"
        sentence = f"an operator asked for a repair ({goal.replace('_', ' ')}): it {word}"
        try:
            await self.orders.intend(facts, "operator", sentence, Category.RECOVERY)
        except WaError:
            # It could not be written: nothing more is done by its word.
            last, begun = facts.repair, runs.acts if runs else 0
            if last is not None:
                facts.repair = before if last.acts == begun else last.lapse()
            raise
        return asked

    def _must_be_wanted(self, facts: Facts) -> None:
        if not facts.should_run:
            why = "it is disabled or stopped; enable or start it first"
            raise Refused(f"cannot repair {facts.id}: {why}", code="not_wanted")


def _is_over(facts: Facts, asked: Repair) -> bool:
    """True if the repair has ended, also if the next one has begun already."""
    now = facts.repairing
    return facts.gone or now is None or now.started_wall != asked.started_wall


def _answer(goal: Goal, facts: Facts, *, over: bool) -> Answer:
    """Return the answer; TryLater if the repair cannot reach what was asked for."""
    last, verdict = facts.repair, facts.verdict
    assert last is not None
    if not over:
        _refuse_away(facts)
    ending, answer = last.ending if over else GOES_ON, last.answer
    if goal is Goal.WORKING_QR and (kept := facts.kept) is not None:
        # The repair keeps the pairing, and has ended or cannot help now.
        if not over and _is_kept_away(facts):
            goes_on = "The agent goes on with the steps that keep it"
            words = f"cannot heal {facts.id} now: {kept.sentence}. {goes_on}"
            raise TryLater(words, code=kept.code)
        if ending == Ending.GAVE_UP:
            raise TryLater(f"cannot heal {facts.id}: {kept.sentence}", code=kept.code)
    undone = ending in (Ending.GAVE_UP, Ending.RECOVERED) and not answer["cleaned"]
    if goal is Goal.CLEANUP and undone:
        cause = "it came back; ask again" if answer["healthy"] else _trouble(facts)
        raise TryLater(f"cannot clean up {facts.id}: {cause}", code="cleanup_failed")
    if _is_well(verdict):
        if ending is Ending.NO_STEP:
            answer["healthy"] = True
        if goal is Goal.RECOVER and ending != GOES_ON and not verdict.healthy:
            # No step that keeps a pairing helps where a person has to link the session.
            told: Answer = {**_NOTHING_DONE, "cleaned": answer["cleaned"], "ending": "needs_scan"}
            return {**told, "sentence": f"{facts.sentence}: wa-agent qr {facts.id} --watch"}
    return {**answer, "ending": ending, "sentence": "" if answer["healthy"] else _trouble(facts)}


def _refuse_away(facts: Facts) -> None:
    if facts.wait.reason in _HOLDS:
        raise TryLater(f"cannot repair {facts.id} now: {facts.sentence}", code=facts.wait.reason)


def _is_kept_away(facts: Facts) -> bool:
    """True if WhatsApp is away: no step of the repair can help, and the pairing is kept."""
    return facts.kept is not None and facts.kept.code == pairing.WHATSAPP_AWAY


def _is_on_its_way(facts: Facts) -> bool:
    return facts.verdict.reason in _COMING_UP and facts.action.failures < REFUSALS


def _is_well(verdict: HealthVerdict) -> bool:
    return verdict.healthy or verdict.reason == "waiting_for_scan"


def _trouble(facts: Facts) -> str:
    ban = local_text(facts.next_attempt_wall) if facts.verdict.reason == "temporary_ban" else None
    return facts.action.refusal or facts.sentence + (f"; it waits until {ban}" if ban else "")
