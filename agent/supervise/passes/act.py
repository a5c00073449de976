"""Carries out every plan, within its deadline, and reports its outcome."""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from agent.clock import boot_now
from agent.core.crypto import note_regenerated
from agent.core.model import UnitState
from agent.core.reconcile import ActionKind, Outcome, Plan
from agent.core.reconnect import forgive
from agent.core.recovery.repair import Ground
from agent.core.recovery.steps import NOTHING_TO_REMOVE
from agent.engines.catalog import entry_of
from agent.errors import EngineError, LinkError, VaultError, WaError
from agent.failpoint import failpoint
from agent.log import about, clean, going_on
from agent.supervise.facts import Facts
from agent.supervise.passes.findings import failing_peers
from agent.supervise.registry import Registry, is_written
from agent.supervise.seats import Seats
from agent.supervise.snapshots import Snapshots
from agent.vault.check import inspect
from agent.vault.identity import create
from agent.vault.restore import carried, give_back, note_own_files
from agent.vault.trash import list_trash, retire

log = logging.getLogger(__name__)

T = TypeVar("T")
CALL_TIMEOUT = 15.0
REMOTE_TIMEOUT = 120.0
"""A server takes its time over what it does to a session."""
PLAN_TIMEOUT = 150.0
"""Less than the core's own limit for a step that does not report."""
BURST = 1.0
"""Seconds to wait for further errors of keys: a burst names all peers that fail."""
BACKED_UP_THERE = "each removal of keys, beside it"
"""A session on a server has no files here to copy."""


@dataclass(frozen=True, slots=True)
class Executor:
    """The only class that acts on sessions for a pass."""

    host: Seats
    keeper: Snapshots
    registry: Registry

    async def carry_out(self, facts: Facts, plan: Plan) -> Outcome:
        """A failure of host, worker or disk is not raised: it is the outcome."""
        begun, made, refusal = boot_now(), "", ""
        try:
            async with asyncio.timeout(PLAN_TIMEOUT):
                done = await _to_its_end(facts, self._do_all(facts, plan), plan.name)
                made, detail = done or "", "interrupted" if done is None else ""
        except WaError as error:
            detail = str(error) or type(error).__name__
            refusal = (error.code or "") if isinstance(error, EngineError) else ""
        except TimeoutError:
            detail = "it took too long"
        return Outcome(not detail, boot_now() - begun, detail, refusal, made)

    async def _do_all(self, facts: Facts, plan: Plan) -> str:
        if ActionKind.RESTORE in plan.actions:
            await self.keeper.must_have_room(facts)
            # First, so that a copy that the next agent finds in place has no errors counted against
            # it.
            facts.record = forgive(facts.record)
        made = ""
        for kind in plan.actions:
            made = await self._do(facts, kind, plan) or made
        return made

    async def _do(self, facts: Facts, kind: ActionKind, plan: Plan) -> str:
        """The name of the copy that it made; "" = none."""
        match kind:
            case ActionKind.START:
                await self._begin_run(facts, again=False)
            case ActionKind.RESTART:
                await self._begin_run(facts, again=facts.unit.runs)
            case ActionKind.STOP:
                await self._stop(facts, plan)
            case ActionKind.CONNECT | ActionKind.DISCONNECT:
                answers = self.registry.settings.config.health.timeout
                await _call(facts, kind, timeout=max(answers, CALL_TIMEOUT))
                if kind is ActionKind.DISCONNECT:
                    failpoint("repair_disconnected")
            case ActionKind.SET_ASIDE:
                return await self._set_aside(facts, plan)
            case ActionKind.RESTORE:
                await self.keeper.restore_newest(facts)
                await self._look_at_files(facts)
            case ActionKind.BACK_UP:
                if facts.instance.backend:
                    return BACKED_UP_THERE
                return await self.keeper.back_up(facts, "before a repair")
            case ActionKind.REGENERATE_KEYS:
                await self._regenerate(facts)
            case ActionKind.LOGOUT:
                facts.asked.logout = True
                await _call(facts, kind, timeout=CALL_TIMEOUT)
            case ActionKind.RENEW:
                by_person = plan.proof is not None and plan.proof.ground is Ground.PERSON
                await _call(facts, kind, {"confirmed": by_person}, timeout=REMOTE_TIMEOUT)
        return ""

    async def _begin_run(self, facts: Facts, *, again: bool) -> None:
        """A start by the agent: held to its limits, and a stop may interrupt it. What its worker is
        told, it reads from the file beside its session."""
        if not is_written(facts):
            await self.registry.save(facts)
        self.host.limit_memory(facts.id, self.registry.settings.memory_wall(facts))
        failed = facts.unit.state is UnitState.FAILED
        if failed or facts.action.started_run or facts.record.seen_run:
            # The host's burst limit is against crash loops: starts by the agent must not count.
            await self.host.reset_failed(facts.id)
        facts.action.is_start = True
        try:
            await (self.host.restart if again else self.host.start)(facts.id)
        finally:
            facts.action.is_start = False
            facts.action.started_run = (await self.host.status(facts.id)).run

    async def _stop(self, facts: Facts, plan: Plan) -> None:
        if facts.record.stopped_run != facts.record.seen_run:
            # Saved first: the next agent must not take this stop for an operator's.
            facts.record = replace(facts.record, stopped_run=facts.record.seen_run)
            await self.registry.save(facts)
        await self.host.stop(facts.id)
        facts.unit = await self.host.status(facts.id)
        if plan.repair:
            failpoint("repair_stopped")

    async def _set_aside(self, facts: Facts, plan: Plan) -> str:
        """Repeating it does no harm. A repair clears `paired` in the record first, so that no
        start after a kill uses the old pairing; a renewal clears it afterwards."""
        if plan.repair:
            await self._must_still_be_so(facts, plan)
            facts.record = replace(forgive(facts.record), paired=False, account="")
            await self.registry.save(facts)
            failpoint("cleanup_reset")
        if facts.instance.backend:
            return ""  # its server took the keys away itself, and keeps nothing here
        ended = f"the pairing ended: {facts.record.reason}"
        why = "cleaned up" if plan.name == "cleanup" else ended
        async with self.keeper.ending(facts):
            name = await asyncio.to_thread(set_aside, self.registry.root, facts, why)
        facts.saved.identity = None  # the new folder's file knows less
        await self._look_at_files(facts)
        return name

    async def _must_still_be_so(self, facts: Facts, plan: Plan) -> None:
        """The worker has stopped: what was said of its files can be checked."""
        if facts.instance.backend:
            return
        await self._look_at_files(facts)
        if plan.proof is not None and not plan.proof.stands(facts.folder.files):
            raise VaultError(f"cannot clean up {facts.id}: its files are whole again")

    async def _look_at_files(self, facts: Facts) -> None:
        """The files were replaced: what was found in the old ones must not stay."""
        folder = self.registry.root / facts.id
        found = await asyncio.to_thread(inspect, folder, facts.instance.engine)
        facts.folder.files = found.files

    async def _regenerate(self, facts: Facts) -> None:
        policy = self.registry.settings.config.crypto
        await asyncio.sleep(BURST)
        peers = failing_peers(facts, policy)
        if not peers and not entry_of(facts.instance.engine).finds_records:
            return  # what failed is read again: the new keys are not to be taken away
        limit = REMOTE_TIMEOUT if facts.instance.backend else CALL_TIMEOUT
        try:
            await _call(facts, "regenerate_keys", {"peers": list(peers)}, timeout=limit)
        except WaError as error:
            failed = error.code != NOTHING_TO_REMOVE  # else the keys are new already
            facts.counters.by_word["key_regenerations"]["failed"] += failed
            raise
        facts.counters.by_word["key_regenerations"]["done"] += 1
        # Without a peer the engine took out damaged records, on a server it always does: errors
        # that named no peer.
        unnamed = ("",) if facts.instance.backend or not peers else ()
        facts.crypto = note_regenerated(facts.crypto, (*peers, *unnamed), boot_now())


async def _call(
    facts: Facts, do: str, arguments: Mapping[str, object] | None = None, *, timeout: float
) -> None:
    if facts.link is None:
        raise LinkError(f"cannot {do} {facts.id}: its worker does not answer", code="gone")
    await facts.link.call(do, arguments or {}, timeout=timeout)


async def _to_its_end(facts: Facts, work: Coroutine[Any, Any, T], name: str) -> T | None:
    """Run `work` as a task that a stop may cancel; None: it was cancelled."""
    task = asyncio.create_task(work, name=name)
    facts.action.task = task
    try:
        await asyncio.wait([task])
        return None if task.cancelled() else task.result()
    finally:
        # A cancelled plan ends before this task: the code that closes all workers later must see
        # what this task had asked of the host.
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        facts.action.task = None


def set_aside(root: Path, facts: Facts, why: str) -> str:
    """Retire the folder of a session that is over and lay out an empty one: its name in the trash.

    Its worker does not run; the caller writes down what must outlive a kill in between. Repeating
    it does no harm: an earlier agent may have done a part.
    """
    with carried(root, facts.id):
        if (root / facts.id).exists():
            with suppress(VaultError, OSError):  # a folder that cannot be read goes as it is
                note_own_files(root, facts.id, facts.instance.engine, facts.record.account)
            name = retire(root, facts.id, why).name
        else:
            name = next(
                (retired.name for retired in list_trash(root) if retired.id == facts.id), "nothing"
            )
        failpoint("set_aside")
        create(root, facts.instance)
        _give_back(root, facts)
    return name


def _give_back(root: Path, facts: Facts) -> None:
    back: list[str] = []
    with going_on(f"files that {facts.id} has for itself stay in the trash"):
        back = give_back(root, facts.id)
    if back:
        words = "%d files or folders are none of the pairing that ended, and stay: %s"
        log.info(words, len(back), clean(", ".join(back))[:300], extra=about(facts.id))
