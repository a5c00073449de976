"""What this machine owns, as the fleet's database said it last, and until when."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.clock import boot_now
from agent.core.fleet.lease import Lease
from agent.core.model import InstanceId
from agent.core.words import NO_LEASE
from agent.fleet.coordinator import Owned
from agent.fleet.keeper import Keeper
from agent.supervise.facts import Facts
from agent.supervise.fleet.epochs import Epochs
from agent.supervise.fleet.leases import Leases


@dataclass(slots=True, eq=False, repr=False)
class Ownership:
    keeper: Keeper
    facts: Mapping[InstanceId, Facts]
    """Of the sessions that are here."""
    epochs: Epochs
    leases: Leases
    wake: Callable[[InstanceId], None]
    lease: Lease = field(init=False, default=Lease(0.0))
    owned: Mapping[InstanceId, Owned] = field(init=False, default_factory=dict)
    """With what this machine did since."""
    known: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    """Set when the database has said what this machine owns."""
    news: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    """Set when what is here may differ from what is owned."""
    left: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    """Set when this machine has left its fleet."""
    _claimed: dict[InstanceId, Owned] = field(init=False, default_factory=dict)
    """Made by this machine, and not yet in an answer of the database."""
    _losses: int = field(init=False, default=0)
    _released: dict[InstanceId, int] = field(init=False, default_factory=dict)
    """Given away or deleted, and still in an older answer: the epoch that ended."""

    def changed(self, owned: Sequence[Owned], lease: Lease) -> None:
        if self.left.is_set():
            return
        held, self.lease = self.lease.holds(boot_now()), lease
        if not lease.holds(boot_now()):
            self._claimed.clear()
            self.leases.give(lease.until, ())
            return
        if self._losses != self.keeper.losses:
            self._losses = self.keeper.losses
            self._released.clear()  # what was given away may have come back
        answer = {InstanceId(it.id): it for it in owned}
        for id in [id for id in self._released if id not in answer]:
            del self._released[id]
        for id in answer.keys() & self._claimed.keys():
            del self._claimed[id]
        kept = {id: it for id, it in answer.items() if it.epoch > self._released.get(id, -1)}
        self.owned = {**kept, **self._claimed}
        self.give_lease()
        self.known.set()
        self.news.set()
        if not held:
            for id in self.facts:
                self.wake(id)

    def give_lease(self) -> None:
        """To those whose folder here is the newest; the others' workers end by themselves."""
        until, owned = self.lease.until, self.owned
        self.leases.give(until, [id for id, it in owned.items() if self.is_of(id, it)])

    def wait_reason(self, facts: Facts) -> str:
        """Why this session may not start here; its worker, if it runs, has a deadline itself."""
        if self.left.is_set() or not facts.instance.leased:
            return ""
        held = self.lease.holds(boot_now()) and facts.id in self.owned
        return "" if held and self.is_of(facts.id, self.owned[facts.id]) else NO_LEASE

    def is_of(self, id: InstanceId, owned: Owned) -> bool:
        known = self.epochs.known.get(id)
        return known is None or known.is_of(owned)

    def mine(self, id: InstanceId) -> Owned | None:
        """None also where the newest files are not here."""
        owned = self.owned.get(id)
        return owned if owned is not None and self.is_of(id, owned) else None

    def newest_here(self) -> Mapping[InstanceId, Owned]:
        """What this machine owns and has the newest files of."""
        return {id: it for id, it in self.owned.items() if self.is_of(id, it)}

    def claimed(self, owned: Owned) -> None:
        """It was made on this machine: an answer of the database may lack it for now."""
        id = InstanceId(owned.id)
        self._released.pop(id, None)
        self._claimed[id] = owned
        self.owned = {**self.owned, id: owned}
        self.give_lease()

    def released(self, id: InstanceId) -> None:
        """It was given away or deleted: an older answer of the database says otherwise for now."""
        owned = self.owned.get(id)
        self._released[id] = owned.epoch if owned is not None else 0
        self._claimed.pop(id, None)
        self.owned = {other: it for other, it in self.owned.items() if other != id}
        self.give_lease()
