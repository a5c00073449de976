"""The fleet as a person sees it: its machines, and each trouble with its cause."""

import asyncio
import calendar
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.clock import boot_now
from agent.core.words import NO_LEASE
from agent.errors import WaError
from agent.fleet.taking import View, in_order

if TYPE_CHECKING:
    from agent.fleet.joined import Joined

NO_PART = "its agent began without a good fleet.key, or it has no [fleet] address"
STATES = {"forgotten": "forgotten", "lost": "lost", "released": "stopped", "drained": "drained"}
LATE, SILENT = 5.0, 10.0
"""Seconds that the files of a session may take to its machine, and a machine from one renewal to
the next."""


async def show(fleet: "Joined") -> dict[str, Any]:
    """Return the fleet as this machine knows it, and what else is worth a look."""
    rows = list[dict[str, str]]()
    with suppress(WaError):  # `problem` says it
        rows = await _missing_members(fleet)
    found = await asyncio.to_thread(list, certificates(fleet.folder, fleet.name))
    rows += [{"machine": fleet.name, "id": "", "cause": it} for it, now in found if now]
    notes = [it for it, now in found if not now]
    every = ((id, it.record) for id, it in sorted(fleet.view.sessions.items()))
    bare = [id for id, it in every if it.failover == "newest" and not (it.copies or it.deleted)]
    if bare and len(fleet.view.machines) > 1:
        notes.append(f"no copy is in sync, so no machine can take: {', '.join(bare[:9])}")
    why = [it.cause for it in fleet.copies.rows.values() if it.cause] if fleet.copies else []
    notes += [f"sessions of which no copy is made: {why.count(it)}; {it}" for it in sorted({*why})]
    rows += [{"machine": it, "id": id, "cause": why} for it, id, why in fleet.troubles()]
    view, now, machines = fleet.view, boot_now(), list[dict[str, Any]]()
    for name, seen in sorted(view.machines.items()):
        it = seen.record
        usual = "up" if now - seen.since < SILENT else "silent"
        state = next((said for name, said in STATES.items() if getattr(it, name)), usual)
        row: dict[str, Any] = {"name": name, "address": it.address, "version": it.version}
        row |= {"used": it.used, "capacity": it.capacity, "owned": len(view.owned(name))}
        renewed = None if it.lost else round(now - seen.since, 1)  # else it was others who wrote
        machines.append(row | {"state": state, "renewed_seconds": renewed})
    left = fleet.keeper.until - now if fleet.keeper else 0.0
    return {
        **{"fleet": fleet.fleet, "machine": fleet.name, "problem": fleet.problem},
        "halt": view.halt and {"by": view.halt.by, "why": view.halt.why, "id": view.halt.id},
        "lease_seconds": round(max(left, 0.0), 1),
        **{"machines": machines, "troubles": rows, "notes": notes},
    }


def troubles(fleet: "Joined") -> Iterator[tuple[str, str, str]]:
    """Yield machine, session and cause of what is not as it should be."""
    view, copies = fleet.view, fleet.copies
    lines, deaf = (copies.lines, copies.peers.deaf) if copies else ({}, "")
    for cause in filter(None, (fleet.problem, deaf)):
        yield fleet.name, "", cause
    marks = [it.record.key for it in view.machines.values() if not it.record.lost]
    most = max(filter(None, marks), key=marks.count, default="")
    silent = () if fleet.problem else view.standing_still(fleet.name, boot_now(), SILENT)
    for name, machine in view.machines.items():
        if (it := machine.record).lost and not (it.forgotten or name == fleet.name):
            yield name, "", "it is lost: it renews nothing"
        elif name in silent and not it.released:
            yield name, "", "it renews nothing: it is off, or cannot reach etcd"
        elif machine.since == view.began and not (it.lost or it.released or name == fleet.name):
            yield name, "", "it was not seen yet: it renews each few seconds, unless it is off"
        elif it.key != most and not it.lost:
            other = "its fleet.key is another one: others cannot use its copies, nor it theirs"
            yield name, "", other if it.key else NO_PART
        elif not (it.lost or it.drained) and (line := lines.get(name)) and line.cause:
            yield name, "", f"it gets no copies from {fleet.name}: {line.cause}"
    for id, seen in view.sessions.items():
        if not seen.record.deleted and (cause := _trouble(fleet, id)):
            yield seen.record.machine, id, cause
    for id in fleet.here().keys() - view.sessions.keys() if not fleet.problem else ():
        yield fleet.name, id, "it has no record in the fleet yet"


def _trouble(fleet: "Joined", id: str) -> str:
    """Return why a session is not where it should be; "" = it is."""
    seen, here = fleet.view.sessions[id], fleet.here()
    record, there = seen.record, fleet.view.machines.get(seen.record.machine)
    # Where it has just come from its folder goes, and where it goes it comes.
    late, me = boot_now() - seen.since > LATE, fleet.name
    if record.machine == me:
        if not fleet.settled(id, record):
            return fleet.unsettled.get(id) or "its files are brought in" * late
        if id not in here or (fleet.copies and id in fleet.copies.away):
            copies = " or ".join(record.copies)
            comes = f"the copy of {copies} comes in its place" if copies else "restore or delete it"
            return f"its files on {me} are damaged or gone: {comes}; or closed: wa-agent why {id}"
        if late and (hold := here[id].wait).reason in (NO_LEASE, "disk_full") and not fleet.problem:
            return hold.sentence or f"it waits for a lease of {me} under which it may start"
        if fleet.drained:
            there_is, why = fleet.place_for(id)
            moves = fleet.told.get(f"{id} stays here") or "it moves"
            return f"{me} is drained; {moves if there_is else f'it stays: {why}'}"
        return ""
    if id in here and late:
        return f"its folder lies on {me}, and does not run there"
    if there is None or there.record.lost:
        return explain(fleet.view, id)
    stopped = there.record.released and record.wanted == "running"
    return there.record.lacks.get(id, "its agent was stopped" if stopped else "")


def explain(view: View, id: str) -> str:
    """Return why a session of the fleet does not run, from the records; else where it does."""
    record = view.sessions[id].record
    owner, machine = view.machines.get(record.machine), record.machine
    if record.deleted:
        return "it was deleted"
    if owner is None:
        return f"its machine {machine} is not known"
    if not owner.record.lost:
        if record.wanted != "running":
            return "it was stopped by an order, or waits for a person after `fleet accept`"
        if view.halt:
            return f"halted by {view.halt.by}: nothing starts before `wa-agent fleet accept`"
        return f"it is a session of {machine}; there: wa-agent why {id}"
    living = {name for name, it in view.machines.items() if not it.record.lost} & {*record.copies}
    if record.failover == "wait" or not living:
        how = f"failover: {record.failover}; machines with its copy: {len(living)}"
        return f"machine {machine} is lost: it waits for it ({how})"
    return f"machine {machine} is lost: {' or '.join(in_order(id, living))} takes it"


async def _missing_members(fleet: "Joined") -> list[dict[str, str]]:
    """Return as troubles members of etcd that do not answer, or have not started or no leader."""
    members = await (etcd := fleet.reached()).members()
    well = await asyncio.gather(*map(etcd.is_well, members))
    missing = [it for it, good in zip(members, well, strict=True) if not good]
    stops = "has stopped" if 2 * len(missing) >= len(members) else "may stop at the next loss"
    cause = f"this member of etcd is off, new, full, or cut from the others: the fleet {stops};"
    cause += " there: systemctl start etcd, free its disk, let port 2380 through, or join"
    return [{"machine": it.name or it.peers[0], "id": "", "cause": cause} for it in missing]


def certificates(folder: Path, name: str) -> Iterator[tuple[str, bool]]:
    """Yield faults of this machine's certificates; True: now, not only soon."""
    for file in ("machine.pem", "ca.pem"):
        with suppress(OSError, ValueError, IndexError):
            der = ssl.PEM_cert_to_DER_cert((folder / file).read_text())
            # In UTC: the second of the two times in it.
            short, long = re.findall(rb"\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z", der)[1]
            end = time.strptime((long or b"20" + short).decode(), "%Y%m%d%H%M%S")
            left = (calendar.timegm(end) - time.time()) / 86400
            ends = f"ends in {left:.0f} days" if left > 0 else "has ended"
            if left < 30:
                yield f"certificate {file} of this machine {ends}", left <= 0
            named = re.escape(bytes([len(name)]) + name.encode())  # marked as a text, or a host
            if file == "machine.pem" and not re.search(rb"[\x0c\x13\x82]" + named, der):
                yield f"[fleet] name is {name}, and its keys are of another machine", True
