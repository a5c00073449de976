"""Planned moves: a session is stopped, copied exactly, handed over, and retired here.

One after another. Until the hand-over is sent, every failure starts the session here again. What a
kill cuts short goes on at the next start: the database says whose the session is.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.core.fleet.placement import Placing, place
from agent.core.model import ConnectionStatus, InstanceId
from agent.errors import NotFound, Refused, TryLater, WaError
from agent.failpoint import failpoint
from agent.fleet.coordinator import MachineRow, Owned
from agent.fleet.fleet import Fleet
from agent.fleet.places import place_of
from agent.host.base import Host
from agent.log import about
from agent.store.database import Store
from agent.supervise.facts import Facts
from agent.supervise.fleet.giving_up import GivingUp
from agent.supervise.fleet.handing_on import hand_over
from agent.supervise.fleet.owner import JOINED_WITHIN, at_most
from agent.supervise.fleet.ownership import Ownership
from agent.supervise.fleet.stored.baggage import Baggage
from agent.supervise.fleet.stored.replicas import Replicas
from agent.supervise.registry import Registry
from agent.supervise.story import entry

log = logging.getLogger(__name__)

MOVING = "moving/"
"""A planned move that was begun: its fact's name, before the id."""
CONNECTED_WITHIN = 30.0
"""Seconds that the next move waits for this one's session: the target's logins stay few."""
LOOK_EVERY, DRAIN_EVERY = 0.5, 2.0
REFUSED_AGAIN = 30.0
DRAINED = "its machine is drained"


@dataclass(frozen=True, slots=True)
class Move:
    id: InstanceId
    to: str
    """The machine's name; "" = the one with most room, at its turn."""
    why: str


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class Moves:
    fleet: Fleet
    ownership: Ownership
    giving_up: GivingUp
    replicas: Replicas
    baggage: Baggage
    registry: Registry
    store: Store
    host: Host
    wake: Callable[[InstanceId], None]
    refused: dict[InstanceId, str] = field(init=False, default_factory=dict)
    """Why a session of this drained machine stays."""
    _queue: deque[Move] = field(init=False, default_factory=deque)
    _under_way: Move | None = field(init=False, default=None)
    _rung: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    @property
    def listed(self) -> Sequence[tuple[str, str]]:
        every = [self._under_way, *self._queue] if self._under_way else [*self._queue]
        return [(it.id, it.to) for it in every]

    async def ask(self, id: InstanceId, to: str | None, why: str) -> str:
        """Begin one; the name of the next owner. Refused with a sentence where it cannot be."""
        await at_most(JOINED_WITHIN, self.ownership.known)
        row = await self._target(self._owned(id), to or "")
        if any(id == it for it, _ in self.listed):
            raise Refused(f"cannot move {id}: a move of it is under way", code="moving")
        await self._put(Move(id, row.name, why))
        return row.name

    async def run(self) -> None:
        await self.ownership.known.wait()
        for name, text in (await self.store.get_facts(MOVING)).items():
            self._queue.append(Move(InstanceId(name.removeprefix(MOVING)), *json.loads(text)))
        while True:
            try:
                await self._one_round()
            except WaError as error:
                log.error("%s", error)
                await asyncio.sleep(DRAIN_EVERY)

    async def _one_round(self) -> None:
        if not self._queue:
            await self._drain_one()
        if not self._queue:
            try:
                async with asyncio.timeout(REFUSED_AGAIN if self.refused else DRAIN_EVERY):
                    await self._rung.wait()
            except TimeoutError:
                self.refused.clear()
            self._rung.clear()
            return
        self._under_way = self._queue.popleft()
        try:
            await self._carry_out(self._under_way)
        finally:
            self._under_way = None

    async def _put(self, move: Move) -> None:
        await self.store.put_fact(MOVING + move.id, json.dumps([move.to, move.why]))
        self._queue.append(move)
        self._rung.set()

    async def _drain_one(self) -> None:
        """The next session of this machine, where an operator drained it."""
        row = self.fleet.own_row()
        if row is None or not row.drained:
            self.refused.clear()
            return
        for facts in sorted(self.registry.facts.values(), key=lambda it: it.id):
            if facts.id in self.refused or facts.id not in self.ownership.owned:
                continue
            try:
                target = await self._target(self._owned(facts.id), "")
            except (Refused, NotFound) as error:
                self.refused[facts.id] = str(error)
                log.warning("%s", error, extra=about(facts.id))
                continue
            await self._put(Move(facts.id, target.name, DRAINED))
            return

    # choosing

    def _owned(self, id: InstanceId) -> Owned:
        facts, owned = self.registry.get(id), self.ownership.owned.get(id)
        if owned is None or not facts.instance.leased:
            raise Refused(
                f"cannot move {id}: "
                + (
                    f"its session is on the backend {facts.instance.backend}, which this machine"
                    " reaches"
                    if facts.instance.backend
                    else "this machine does not own it now"
                ),
                code="on_a_backend" if facts.instance.backend else "not_owned",
            )
        self.replicas.refuse_unfit(facts)
        return owned

    async def _target(self, owned: Owned, name: str) -> MachineRow:
        rows = await self.fleet.coordinator.machines()
        others = [row for row in rows if row.name != self.fleet.machine]
        if name == self.fleet.machine:
            raise Refused(f"cannot move {owned.id}: it is on {name} already", code="already_there")
        if name and name not in {row.name for row in others}:
            raise NotFound(f"cannot move {owned.id}: the fleet has no machine {name}", field="to")
        alive = [row for row in others if row.alive]
        placing = Placing(owned.id, owned.engine, owned.labels, name or owned.only_on)
        placement = place([placing], [place_of(row) for row in alive])
        if owned.id in placement.waiting:
            why = placement.waiting[owned.id]
            raise Refused(f"cannot move {owned.id}: {why}", field="to", code="no_machine")
        return next(row for row in alive if row.name == placement.on[owned.id])

    # carrying out

    async def _carry_out(self, move: Move) -> None:
        facts = self.registry.facts.get(move.id)
        outcome = "refused"
        try:
            if facts is not None:
                row = await self._target(self._owned(move.id), move.to)
                said = entry(facts, "moving", f"it moves to {row.name}: {move.why}")
                await self.store.note(said)
                if facts.action.task is not None and facts.action.is_start:
                    facts.action.task.cancel()
                outcome = "undone"
                async with facts.busy:
                    if not facts.gone and await self._move(facts, row, move.why):
                        outcome = "done"
        except WaError as error:
            log.error("%s; it stays here", error, extra=about(move.id))
            if facts is not None and not facts.gone:
                said = entry(facts, "move_undone", f"it stays on this machine: {error}")
                await self.store.note(said)
                self.refused[move.id] = str(error)
        finally:
            if outcome != "done":
                self.baggage.stay(move.id)
            await self.store.forget_facts([MOVING + move.id])
            self.fleet.counts.moves[outcome] += 1
            self.wake(move.id)
        if outcome == "done":
            await self.baggage.follow(move.id)
            await self._wait_for_connection(move.id)

    async def _move(self, facts: Facts, row: MachineRow, why: str) -> bool:
        await self.host.stop(facts.id)
        facts.unit = await self.host.status(facts.id)
        failpoint("move_stopped")
        await self.baggage.leave(facts.id)
        await self.replicas.flush(facts)
        await self.baggage.flush(facts.id)
        failpoint("move_copied")
        if not await hand_over(self.fleet, facts.id, row, why):
            raise TryLater(f"cannot move {facts.id}: the hand-over to {row.name} was refused")
        failpoint("move_handed_over")
        self.ownership.released(facts.id)
        sentence = f"it runs on {row.name} from now on ({why}); its files here are kept"
        try:
            await self.giving_up.retire_held(facts, "moved", sentence)
        except WaError as error:  # the next comparison goes on with it
            log.error("%s", error, extra=about(facts.id))
        return True

    async def _wait_for_connection(self, id: InstanceId) -> None:
        """So no target gets more logins at once than there are machines that drain."""
        try:
            async with asyncio.timeout(CONNECTED_WITHIN):
                while not await self._settled_there(id):  # noqa: ASYNC110 - no event says so
                    await asyncio.sleep(LOOK_EVERY)
        except (TimeoutError, WaError):
            pass

    async def _settled_there(self, id: InstanceId) -> bool:
        views = await self.fleet.coordinator.views([id])
        if not views or views[0].machine == self.fleet.keeper.member.id:
            return False
        status = views[0].view.get("connection_status")
        return status not in (ConnectionStatus.INITIALIZING, ConnectionStatus.LOADING, None)
