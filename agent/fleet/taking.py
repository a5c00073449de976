"""View: the fleet as one machine knows it, and the sessions that it may take over. Pure."""

from collections.abc import Container, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Generic, TypeVar

from msgspec import Struct

from agent.fleet.etcd import Pair
from agent.fleet.records import Halt, Machine, Session, decoded, named

R = TypeVar("R", Machine, Session)
BATCH = 100
"""Sessions of one transaction: etcd takes 128 operations and as many comparisons."""


class Seen(Struct, Generic[R], frozen=True):
    record: R
    revision: int
    since: float
    """Boot time at which this machine first saw this revision."""


class View(Struct):
    """The fleet as of this machine's last committed renewal, with what it wrote since."""

    revision: int = 0
    machines: dict[str, Seen[Machine]] = {}
    sessions: dict[str, Seen[Session]] = {}
    halt: Halt | None = None
    written: set[str] = set()
    """Sessions that this machine wrote since: the next renewal must read them."""
    began: float = 0.0
    """Boot time of the first renewal, or of the last one that was `blind`."""

    def learn(
        self, found: Sequence[Sequence[Pair]], revision: int, now: float, *, blind: bool = False
    ) -> str:
        """Take in a renewal's answer: all machines, sessions that changed, the halt. Returns how
        the store is older than this view; "" if it is not. `blind`: this machine read nothing for
        a while, in which others may have renewed nothing either: their time begins again."""
        machines, sessions, halts = found
        self.revision, self.halt = revision, read_halt(halts)
        before = {} if blind else self.machines
        self.began = self.began if before else now
        seen = [(it.key, _seen(it, Machine, before, now)) for it in machines]
        self.machines = {named(key): it for key, it in seen if it is not None}
        back = sorted(self.written - {named(it.key) for it in sessions})[:1]
        self.written.clear()
        for pair in sessions:
            known, now_seen = self.sessions.get(named(pair.key)), _seen(pair, Session, {}, now)
            if now_seen is None:
                continue  # it stays with the owner that this machine knows
            had = known.record if known else now_seen.record
            if now_seen.record.epoch < had.epoch and not had.deleted:  # it may be a new one
                back.append(named(pair.key))
            self.sessions[named(pair.key)] = now_seen
        return f"session {back[0]} had a newer owner" if back else ""

    def hear(self, pair: Pair, now: float) -> bool:
        """A machine's record as it is written: the time of its silence begins there, and not with
        the renewal that reads it. True if it is lost."""
        heard, known = _seen(pair, Machine, {}, now), self.machines.get(named(pair.key))
        if heard is not None and known is not None and pair.revision > known.revision:
            self.machines[named(pair.key)] = heard
        return heard is not None and heard.record.lost

    def owned(self, name: str) -> dict[str, Session]:
        found = ((id, seen.record) for id, seen in self.sessions.items())
        return {id: it for id, it in found if it.machine == name and not it.deleted}

    def standing_still(self, me: str, now: float, ttl: float) -> dict[str, Seen[Machine]]:
        """Return machines whose record here stood still for a ttl: their workers have ended."""
        still = ((name, it) for name, it in self.machines.items() if now - it.since >= ttl)
        return {name: it for name, it in still if name != me and not it.record.lost}

    def to_take(self, me: str, now: float, ttl: float, copied: Container[str]) -> list[str]:
        """At most a BATCH of sessions, of one lost machine, that `me` may take now: the first of
        the living machines with a copy at once, the second a third of a ttl later, and so on."""
        every = ((name, it.record) for name, it in self.machines.items())
        living = {me, *(name for name, it in every if not (it.lost or it.drained))}
        found = list[str]()
        for id, seen in self.sessions.items():
            it, owner = seen.record, self.machines.get(seen.record.machine)
            if owner is None or not owner.record.lost or me not in it.copies or it.deleted:
                continue
            if id not in copied or (found and it.machine != self.sessions[found[0]].record.machine):
                continue
            before = in_order(id, living & {*it.copies}).index(me)
            if it.failover == "newest" and now >= owner.since + before * ttl / 3:
                found.append(id)
        return found[:BATCH]

    def forgotten(self, id: str) -> None:
        """Note that the store has no record of a session any more; a new one has the next epoch."""
        self.sessions[id] = Seen(self.sessions[id].record, 0, float("inf"))

    def place_for(self, id: str, away: Mapping[str, str]) -> tuple[str, str]:
        """The machine that this session may go to: one with a copy, else one with the most room;
        "" = none. And why each of the others is none. `away`: why a machine is not reached."""
        it = self.sessions[id].record
        others = {name: seen.record for name, seen in self.machines.items() if name != it.machine}
        faults = {name: self.fault(id, others[name]) or away.get(name, "") for name in others}
        left = {name: there.capacity - there.used for name, there in others.items()}
        good = (name for name in in_order(id, others) if not faults[name])
        best = max(good, key=lambda name: (name in it.copies, left[name]), default="")
        why = "; ".join(f"{name}: {cause}" for name, cause in sorted(faults.items()) if cause)
        return best, why or "no other machine is known"

    def fault(self, id: str, there: Machine) -> str:
        """Return why a session cannot go to that machine; "" = it can."""
        it, runs = self.sessions[id].record, f"it runs {there.used} sessions"
        faults = {
            "its agent does not run": there.lost or there.released,
            "it is drained": there.drained,
            f"its agent lacks engine {it.engine}": it.engine not in there.engines,
            f"its agent.toml lacks program {it.program}": it.program not in ("", *there.programs),
            "its fleet.key is another one": there.key != self.machines[it.machine].record.key,
            "it has room for none: its disk is full or closed": there.closed,
            f"{runs}, and has memory for {there.capacity}": there.used >= there.capacity,
        }
        return next((cause for cause, is_so in faults.items() if is_so), "")


def in_order(id: str, names: Iterable[str]) -> list[str]:
    """Return names in an order that is the same on each machine (rendezvous hash)."""
    return sorted(names, key=lambda it: blake2b(f"{id}\0{it}".encode(), digest_size=8).digest())


def read_halt(pairs: Sequence[Pair]) -> Halt | None:
    return next((decoded(it.value, Halt) or Halt("?", "its record", "") for it in pairs), None)


def _seen(pair: Pair, kind: type[R], known: dict[str, Seen[R]], now: float) -> Seen[R] | None:
    if (before := known.get(named(pair.key))) is not None and before.revision == pair.revision:
        return before
    record = decoded(pair.value, kind)
    return None if record is None else Seen(record, pair.revision, now)
