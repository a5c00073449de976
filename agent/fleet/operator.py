"""Decisions of an operator: which records count after a store went back, and that a machine is off.

Each can be cut off at any write and be done again. They need the store alone, no agent. A store
that is restored must begin a ttl and a half after the old one has stopped: all leases have ended.
"""

import asyncio
import calendar
import re
import ssl
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from agent.errors import NotFound, Refused
from agent.fleet import records
from agent.fleet.etcd import Etcd
from agent.fleet.records import Failover, Held, Keys, Machine, Session, decoded, encoded, named
from agent.fleet.store import Delete, Get, Put, Same, Step
from agent.fleet.taking import BATCH, View, in_order, read_halt


async def accept(store: Etcd, keys: Keys, without: Collection[str] = ()) -> Mapping[str, Session]:
    """End a halt. Each session goes to the machine whose files are of its highest epoch; one that
    no machine has comes back as stopped. Returns the sessions as they are now, without the deleted.

    `without`: machines that are off and whose files do not count.
    """
    halts = (await store.read(Get(keys.halt))).found[0]
    if (halt := read_halt(halts)) is None:
        return {}
    same = Same(keys.halt, halts[0].revision)
    claims = (await store.read(Get(keys.claims))).found[0]
    machines = (await store.read(Get(keys.machines))).found[0]
    said = {named(it.key): decoded(it.value, records.Claim) for it in claims}
    held = {name: it.sessions for name, it in said.items() if it and it.halt == halt.id}
    every = {named(it.key): decoded(it.value, Machine) or Machine() for it in machines}
    if unknown := ", ".join(sorted({*without} - every.keys())):
        raise NotFound(f"cannot accept the store without {unknown}: the fleet has no such machine")
    if silent := {id for id, it in every.items() if not it.forgotten} - held.keys() - {*without}:
        words = f"cannot accept the store: {', '.join(sorted(silent))} did not say which sessions"
        words += " it has; start its agent, or name it with --without if it is off for good"
        raise Refused(words, code="machine_silent")
    known = {named(it.key): it for it in (await store.read(Get(keys.sessions))).found[0]}
    decided = dict[str, Session]()
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
    await _must(store, [same], [Delete(keys.halt), Delete(keys.claims)])
    return {id: it for id, it in decided.items() if not it.deleted}


async def forget(store: Etcd, keys: Keys, name: str) -> Mapping[str, str]:
    """The operator has switched this machine off: its sessions may run elsewhere, and it is missed
    no more. Returns for each session that others do not take by themselves the machine that has it
    now; "" = none has a copy, so it waits for its machine."""
    every = {named(it.key): it for it in (await store.read(Get(keys.machines))).found[0]}
    if name not in every:
        raise NotFound(f"cannot forget machine {name}: the fleet has none of that name")
    known = {name: decoded(it.value, Machine) for name, it in every.items()}
    if not (host := known[name] or Machine()).lost:
        raise Refused(f"cannot forget machine {name}: it is not lost yet; switch it off", code="up")
    no_halt, put = Same(keys.halt, 0), Put(every[name].key, encoded(replace(host, forgotten=True)))
    revision = await _must(store, [no_halt, Same(put.key, every[name].revision)], [put])
    there = ((name, it) for name, it in known.items() if it)
    living = {name for name, it in there if not (it.lost or it.released or it.drained)}
    gone = dict[str, str]()
    for pair in (await store.read(Get(keys.sessions))).found[0]:
        record = decoded(pair.value, Session)
        if record is None or record.machine != name or record.deleted:
            continue
        heirs = in_order(named(pair.key), living & {*record.copies})
        if record.failover is Failover.NEWEST and heirs:
            continue
        gone[named(pair.key)] = heir = next(iter(heirs), "")
        if heir:
            same = [no_halt, Same(put.key, revision), Same(pair.key, pair.revision)]
            await _must(store, same, [Put(pair.key, encoded(record.taken_by(heir)))])
    return gone


def explain(view: View, id: str) -> str:
    """Why a session of the fleet does not run, from the records; else where it does."""
    record = view.sessions[id].record
    owner, machine = view.machines.get(record.machine), record.machine
    if record.deleted:
        return "it was deleted"
    if record.wanted != "running":
        return "it was stopped by an order, or waits for a person after `fleet accept`"
    if owner is None:
        return f"its machine {machine} is not known"
    if not owner.record.lost:
        if view.halt:
            return f"halted by {view.halt.by}: nothing starts before `wa-agent fleet accept`"
        return f"it is a session of {machine}; there: wa-agent why {id}"
    living = {name for name, it in view.machines.items() if not it.record.lost} & {*record.copies}
    waits = f"machine {machine} is lost: it waits for it"
    waits += f", or for `wa-agent fleet forget {machine}`" * (not owner.record.forgotten)
    if record.failover is not Failover.NEWEST or not living:
        return f"{waits} (failover: {record.failover}; machines with its copy: {len(living)})"
    return f"machine {machine} is lost: {' or '.join(in_order(id, living))} takes it"


async def missing_members(etcd: Etcd) -> list[dict[str, str]]:
    """As troubles: members of etcd that do not answer, have not started, or have no leader."""
    members = await etcd.members()
    well = await asyncio.gather(*map(etcd.is_well, members))
    missing = [it for it, good in zip(members, well, strict=True) if not good]
    cause = "this member of etcd is missing or full: the next loss may stop the fleet"
    if 2 * len(missing) >= len(members):
        cause = "this member of etcd is missing, or has no majority: the fleet has stopped"
    return [{"machine": it.name or it.peers[0], "id": "", "cause": cause} for it in missing]


def note(folder: Path, view: View) -> Iterator[str]:
    """Yield what a fleet works without today and needs one day. `folder`: of its keys."""
    for name in ("machine.pem", "ca.pem"):
        with suppress(OSError, ValueError, IndexError):
            left = (_end_of((folder / name).read_text()) - time.time()) / 86400
            if left < 30:
                yield f"certificate {name} of this machine ends in {left:.0f} days"
    every = [it.record for it in view.sessions.values() if not it.record.deleted]
    bare = sum(not it.copies and it.failover is Failover.NEWEST for it in every)
    if bare and len(view.machines) > 1:
        yield f"sessions without a copy in sync: {bare}; none is taken over if its machine dies"


def _end_of(certificate: str) -> float:
    """Unix time: the second of the two times in it."""
    der = ssl.PEM_cert_to_DER_cert(certificate)
    times = re.findall(rb"\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z", der)
    short, long = (it.decode() for it in times[1])
    return calendar.timegm(time.strptime(long or f"20{short}", "%Y%m%d%H%M%S"))


def _decide(record: Session | None, held: Mapping[str, Held], off: Collection[str]) -> Session:
    epochs = [it[0] for it in held.values()] + ([record.epoch] if record else [])
    decided = replace(record or Session("", 0), epoch=max(epochs) + 1, copies=())
    if not (left := sorted(held.keys() - {*off})):
        return replace(decided, wanted="stopped")
    return replace(decided, machine=max(left, key=lambda name: held[name]))


async def _must(store: Etcd, same: list[Same], then: Sequence[Step]) -> int:
    answer = await store.commit(same, then)
    if not answer.committed:
        raise Refused("the fleet changed meanwhile; type the command again", code="fleet_changed")
    return answer.revision
