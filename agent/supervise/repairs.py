"""Repairs that a request asks for: check, recover, clean up, ensure healthy. A request joins the
repair that runs; passes carry it out, the request waits."""

import asyncio
import time
from collections.abc import Collection, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from agent.core.breaker import Breaker
from agent.core.incidents import Incident
from agent.core.model import Category, ConnectionStatus, HealthVerdict, Instance, InstanceId
from agent.core.recovery.ladder import begin_repair
from agent.core.recovery.pairing import WHATSAPP_AWAY
from agent.core.recovery.repair import Consent, Ending, Goal, Repair
from agent.core.session import AWAY, NOT_LOOKED_YET, WAITS_TURN
from agent.engines.base import Qr
from agent.errors import LinkError, NotFound, Refused, TryLater, WaError
from agent.supervise.calls import must_be_confirmed
from agent.supervise.facts import Facts
from agent.supervise.gate import MEMORY_FULL
from agent.supervise.orders import Orders
from agent.supervise.record import Means
from agent.supervise.run import run_pass

T = TypeVar("T")
GRACE = 0.2
"""Seconds for work that ends at the deadline by itself to say how far it came."""

_working: set[asyncio.Task[Any]] = set()
"""The loop itself keeps no task that nothing waits for."""


async def in_time(work: Coroutine[Any, Any, T], deadline: float) -> T | None:
    """None: it goes on without its caller. `deadline` is of time.monotonic()."""
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
NEEDS_SCAN = "needs_scan"
"""The answer where nothing that keeps a pairing helps: a person has to link the session."""
GOES_ON = "goes_on"
"""The ending of a repair that takes longer than its caller waits."""
POLL = 0.1
_NOTHING_DONE = {"healthy": False, "cleaned": False, "recovered": False}
_COMING_UP = ("starting", "stopping", "not_running", WAITS_TURN)
REFUSALS = 4
"""After so many failed plans in a row a start is not on its way."""
_HOLDS = AWAY | {MEMORY_FULL}
"""Wait reasons for which no repair is begun."""


Answer = dict[str, Any]
"""healthy, cleaned, recovered; `ending`, and `sentence`: the trouble that is left, "" = it is well.
As JSON shows it."""


@dataclass(frozen=True, slots=True)
class SetUp:
    created: bool
    result: Answer
    qr: Qr | None
    """None: it is connected, or `goes_on`."""
    goes_on: bool = False
    """The time to wait is over, and the agent goes on."""


@dataclass(slots=True, eq=False, repr=False)
class Repairs:
    """Unknown ids raise NotFound."""

    means: Means
    orders: Orders
    _checks: asyncio.Semaphore = field(init=False, default_factory=partial(asyncio.Semaphore, 64))
    _creating: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)

    async def check_now(
        self, ids: Collection[InstanceId] | None = None
    ) -> Mapping[InstanceId, HealthVerdict]:
        chosen = list(self.means.registry.facts) if ids is None else list(ids)
        all_facts = [self.means.registry.get(id) for id in chosen]
        await asyncio.gather(*(self._check(facts) for facts in all_facts))
        return {facts.id: facts.verdict for facts in all_facts}

    async def _check(self, facts: Facts) -> None:
        facts.next_probe = 0.0
        async with self._checks:
            await run_pass(self.means, facts)
        self.means.gate.wake(facts.id)  # the loop knows its next deadline

    async def until(
        self,
        goal: Goal,
        id: InstanceId,
        *,
        wait: float,
        confirmed: bool = False,
        passkey: str = "",
    ) -> Answer:
        """The answer to every request for a repair; after `wait` seconds the ending "goes_on".

        RECOVER tries once all steps that keep the pairing; WORKING_QR goes on to a new session if
        nothing milder helped; CLEANUP begins with that. TryLater where it stays unwell and its
        pairing may not end without a person's word.
        """
        facts, consent = self.means.registry.get(id), Consent.NONE
        if goal is Goal.CLEANUP or (goal is Goal.WORKING_QR and confirmed):
            doing = "clean up" if goal is Goal.CLEANUP else "renew"
            consent = must_be_confirmed(facts, doing, confirmed=confirmed, passkey=passkey)
        self._must_be_wanted(facts)
        deadline = time.monotonic() + wait
        work = self._reach(goal, facts, deadline, consent)
        if (answer := await in_time(work, deadline)) is not None:
            return answer
        _refuse_away(facts)
        so_far = facts.repairing.answer if facts.repairing else _NOTHING_DONE
        return {**so_far, "ending": GOES_ON, "sentence": _trouble(facts)}

    async def set_up(
        self, wanted: Instance, *, wait: float, confirmed: bool = False, passkey: str = ""
    ) -> SetUp:
        """Create the instance, or enable it; then repair it until it is connected or shows a QR.
        `wait`: seconds after which it is answered, whatever still goes on."""
        id, deadline = wanted.id, time.monotonic() + wait
        # A second request for the same new instance joins the first: it is created once.
        async with self._creating:
            if (facts := self.means.registry.facts.get(id)) is None:
                await self.orders.create(wanted)
        if facts and wanted.engine and facts.instance.engine != wanted.engine:
            raise Refused(
                f"cannot set up {id} with {wanted.engine}: it exists and its engine is"
                f" {facts.instance.engine}",
                field="engine",
                code="other_engine",
            )
        if facts and not facts.should_run:
            await self.orders.enable(id)
        left = max(deadline - time.monotonic(), 0.0)
        result = await self.until(
            Goal.WORKING_QR, id, wait=left, confirmed=confirmed, passkey=passkey
        )
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
        # Its worker or its server reconnects a connected session.
        again = facts.unit.run if connected and facts.unit.runs else ""
        facts.forgive(restart_of=again or facts.record.restart_of)
        facts.asked.start = facts.asked.try_at_once = facts.asked.past_looks = True
        asked = "an operator asked to connect now"
        await self.orders.intend(facts, "operator", asked, Category.RECONNECT)

    async def reset_circuit_breaker(self, id: InstanceId) -> None:
        facts = self.means.registry.get(id)
        facts.record = replace(facts.record, breaker=Breaker())
        closed = "an operator closed the circuit"
        await self.orders.intend(facts, "operator", closed, Category.RECONNECT)

    def active_incidents(self) -> Collection[Incident]:
        return tuple(self.means.gate.incidents.active.values())

    def release_incident(self, group: str) -> None:
        if (incident := self.means.gate.incidents.active.get(group)) is None:
            raise NotFound(f"cannot release an incident of {group}: there is none")
        for id in incident.members:
            if (facts := self.means.registry.facts.get(id)) is not None:
                facts.asked.try_at_once = True
        self.means.gate.incidents.release(group, "an operator released it")

    async def pause(self) -> None:
        """Between two looks. TryLater when the agent stops."""
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
            raise NotFound(f"cannot repair {facts.id}: it was deleted meanwhile", field="id")
        return _answer(goal, facts, over=over)

    async def _begin(self, goal: Goal, facts: Facts, consent: Consent) -> Repair:
        """A requested repair joins the running one, or begins."""
        before, runs, facts.kept = facts.repair, facts.repairing, None
        asked = begin_repair(facts.verdict, goal, time.time(), consent)
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
            raise Refused(
                f"cannot repair {facts.id}: it is disabled or stopped; enable or start it first",
                code="not_wanted",
            )


def _is_over(facts: Facts, asked: Repair) -> bool:
    """True also where the next one has begun already."""
    now = facts.repairing
    return facts.gone or now is None or now.started_wall != asked.started_wall


def _answer(goal: Goal, facts: Facts, *, over: bool) -> Answer:
    """TryLater where the repair cannot reach what was asked for."""
    last, verdict = facts.repair, facts.verdict
    assert last is not None
    if not over:
        _refuse_away(facts)
    ending, answer = last.ending if over else GOES_ON, last.answer
    if goal is Goal.WORKING_QR and ending in (Ending.GAVE_UP, GOES_ON):
        _refuse_kept(facts)
    if goal is Goal.CLEANUP and ending == Ending.GAVE_UP and not answer["cleaned"]:
        cause = f"cannot clean up {facts.id}: {_trouble(facts)}"
        raise TryLater(cause, code="cleanup_failed")
    if _is_well(verdict):
        if ending is Ending.NO_STEP:
            answer["healthy"] = True
        if goal is Goal.RECOVER and ending != GOES_ON and not verdict.healthy:
            # No step that keeps a pairing helps where a person has to link the session.
            told = f"{facts.sentence}: wa-agent qr {facts.id} --watch"
            cleaned = {**_NOTHING_DONE, "cleaned": answer["cleaned"]}
            return {**cleaned, "ending": NEEDS_SCAN, "sentence": told}
    sentence = "" if answer["healthy"] else _trouble(facts)
    return {**answer, "ending": ending, "sentence": sentence}


def _refuse_away(facts: Facts) -> None:
    if facts.wait.reason in _HOLDS:
        raise TryLater(f"cannot repair {facts.id} now: {facts.sentence}", code=facts.wait.reason)


def _refuse_kept(facts: Facts) -> None:
    """TryLater where its repair keeps the pairing, and has ended or cannot help now."""
    last, kept = facts.repair, facts.kept
    if kept is None or last is None:
        return
    if not last.over and _is_kept_away(facts):
        goes_on = "The agent goes on with the steps that keep it"
        raise TryLater(f"cannot heal {facts.id} now: {kept.sentence}. {goes_on}", code=kept.code)
    if last.ending is Ending.GAVE_UP:
        raise TryLater(f"cannot heal {facts.id}: {kept.sentence}", code=kept.code)


def _is_kept_away(facts: Facts) -> bool:
    """WhatsApp is not reached, so no step of its repair can help it, and its pairing is kept."""
    return facts.kept is not None and facts.kept.code == WHATSAPP_AWAY


def _is_on_its_way(facts: Facts) -> bool:
    return facts.verdict.reason in _COMING_UP and facts.action.failures < REFUSALS


def _is_well(verdict: HealthVerdict) -> bool:
    return verdict.healthy or verdict.reason == "waiting_for_scan"


def _trouble(facts: Facts) -> str:
    return facts.action.refusal or facts.sentence
