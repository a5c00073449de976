"""Decisions of an operator: which records count after a store went back, and that a machine is off.

Each can be cut off at any write and be done again. They need the store alone, no agent. A store
that is restored must begin a ttl and a half after the old one has stopped: all leases have ended.
"""

from collections.abc import Collection, Mapping, Sequence

from msgspec.structs import replace

from agent.errors import NotFound, Refused
from agent.fleet.etcd import Delete, Etcd, Get, Put, Same, Step
from agent.fleet.records import Claim, Held, Keys, Machine, Session, decoded, encoded, named
from agent.fleet.taking import BATCH, read_halt


async def accept(store: Etcd, keys: Keys, without: Collection[str] = ()) -> Mapping[str, Session]:
    """End a halt. Each session goes to the machine whose files are of its highest epoch; one that
    no machine has comes back as stopped. Returns the sessions as they are now, without the deleted.

    `without`: machines that are off and whose files do not count. One that comes back finds that
    it was forgotten, and halts nothing.
    """
    every = keys.halt, keys.claims, keys.machines, keys.sessions
    halts, claims, hosts, sessions = [(await store.read(Get(it))).found[0] for it in every]
    if (halt := read_halt(halts)) is None:
        return {}
    same = Same(keys.halt, halts[0].revision)
    said = {named(it.key): decoded(it.value, Claim) for it in claims}
    held = {name: it.sessions for name, it in said.items() if it and it.halt == halt.id}
    machines = {named(it.key): decoded(it.value, Machine) or Machine() for it in hosts}
    if unknown := ", ".join(sorted({*without} - machines.keys())):
        raise NotFound(f"cannot accept the store without {unknown}: the fleet has no such machine")
    if silent := {id for id, it in machines.items() if not it.forgotten} - held.keys() - {*without}:
        words = f"cannot accept the store: {', '.join(sorted(silent))} did not say which sessions"
        words += " it has; start its agent, or name it with --without if it is off for good"
        raise Refused(words, code="machine_silent")
    known, decided = {named(it.key): it for it in sessions}, dict[str, Session]()
    for id in known.keys() | {id for part in held.values() for id in part}:
        record = decoded(known[id].value, Session) if id in known else None
        had = {name: part[id] for name, part in held.items() if id in part}
        decided[id] = _decide(record, had, without)
    ids = sorted(decided)
    for at in range(0, len(ids), BATCH):
        batch = ids[at : at + BATCH]
        as_read = [Same(keys.session(id), known[id].revision if id in known else 0) for id in batch]
        puts = [Put(keys.session(id), encoded(decided[id])) for id in batch]
        await _must(store, [same, *as_read], puts)
    puts = [Put(keys.machine(it), encoded(replace(machines[it], forgotten=True))) for it in without]
    await _must(store, [same], [*puts, Delete(keys.halt), Delete(keys.claims)])
    return {id: it for id, it in decided.items() if not it.deleted}


async def forget(store: Etcd, keys: Keys, name: str) -> list[str]:
    """The operator has switched this machine off: it is missed no more, and none of its sessions
    waits for it to be asked. Returns those that no machine takes: none has a copy."""
    every = {named(it.key): it for it in (await store.read(Get(keys.machines))).found[0]}
    if name not in every:
        raise NotFound(f"cannot forget machine {name}: the fleet has none of that name")
    known = {name: decoded(it.value, Machine) for name, it in every.items()}
    if not (host := known[name] or Machine()).lost:
        words = "it is not lost yet; switch it off, and wait until `wa-agent fleet status` says so"
        raise Refused(f"cannot forget machine {name}: {words}", code="up")
    put = Put(every[name].key, encoded(replace(host, forgotten=True)))
    await _must(store, [Same(keys.halt, 0), Same(put.key, every[name].revision)], [put])
    living = {id for id, it in known.items() if it and not (it.lost or it.drained)}
    pairs = (await store.read(Get(keys.sessions))).found[0]
    sessions = ((named(it.key), decoded(it.value, Session)) for it in pairs)
    mine = ((id, it) for id, it in sessions if it and it.machine == name and not it.deleted)
    return [id for id, it in mine if it.failover == "wait" or not living & {*it.copies}]


def _decide(record: Session | None, held: Mapping[str, Held], off: Collection[str]) -> Session:
    known = record or Session("", 0)
    newest = max([known.epoch, *(it[0] for it in held.values())])
    decided = replace(known, epoch=newest + 1, copies=())
    if not (left := sorted(held.keys() - {*off})):
        return replace(decided, wanted="stopped")
    machine = max(left, key=lambda name: held[name])
    epoch, runs, _ = held[machine]
    gone = runs < 0 or (known.deleted and epoch <= known.epoch)
    return replace(decided, machine=machine, deleted=gone)


async def _must(store: Etcd, same: list[Same], then: Sequence[Step]) -> None:
    if not (await store.commit(same, then)).committed:
        raise Refused("the fleet changed just now, or is halted; try again", code="fleet_changed")
