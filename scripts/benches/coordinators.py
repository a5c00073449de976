"""A fleet's machines on one real PostgreSQL: renewals, and taking over a lost one."""

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from agent.core.fleet.lease import LeasePolicy
from agent.fleet.coordinator import Machine, Member, NewSession
from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.fleet.postgres.schema import prepare
from scripts.benches.machine import this_machine
from scripts.benches.report import OURS, Report, Row
from tests.standin.postgres import temporary_postgres

POLICY = LeasePolicy()
SESSIONS = 1000
COPY = bytes(64 << 10)
"""As large as a packed baileys session."""

Pair = tuple[PostgresCoordinator, Member]


def measure(machines: int, *, quick: bool = False) -> Report:
    with temporary_postgres("-c", f"max_connections={machines + 20}") as server:
        rows = asyncio.run(_measure(server.url, machines, 15.0 if quick else 60.0))
    return Report(
        f"{machines} coordinators on one PostgreSQL",
        this_machine(),
        {OURS: "this tree"},
        rows,
        [
            "PostgreSQL and all coordinators share this machine; every commit is on the disk.",
            f"Each machine renews every {POLICY.renew_every:.1f} s, as agents do.",
            f"The lost machine had {SESSIONS} sessions with a stored copy of 64 KiB each.",
        ],
    )


async def _measure(address: str, machines: int, window: float) -> list[Row]:
    await prepare(address)
    fleet = [await _join(address, number) for number in range(machines)]
    seconds = await _renew_for(fleet, window)
    throughput = await _hammer(fleet[:50], window / 4)
    moved = await _move(fleet)
    for coordinator, _ in fleet:
        await coordinator.close()
    ordered = sorted(seconds)
    return [
        Row("renewals a second, at their pace", "1/s", {OURS: [len(seconds) / window]}),
        Row("one renewal, median", "ms", {OURS: [median(ordered) * 1000]}),
        Row(
            "one renewal, 99th percentile", "ms", {OURS: [ordered[len(ordered) * 99 // 100] * 1e3]}
        ),
        Row("renewals a second, as fast as 50 machines can", "1/s", {OURS: [throughput]}),
        Row(f"take over {SESSIONS} sessions of a lost machine", "ms", {OURS: [moved * 1000]}),
    ]


async def _join(address: str, number: int) -> Pair:
    coordinator = PostgresCoordinator(address, POLICY.ttl, 30.0)
    return coordinator, await coordinator.join(Machine(f"m{number}", str(uuid.uuid4())))


async def _renew(pair: Pair, rivals: frozenset[int]) -> Pair:
    coordinator, member = pair
    answer = await coordinator.renew(member, rivals, 0)
    assert answer.accepted
    return coordinator, replace(member, renewals=answer.renewals[member.id])


async def _renew_for(fleet: list[Pair], window: float) -> list[float]:
    """Every machine renews at its pace, spread evenly; the seconds that each renewal took."""
    taken: list[float] = []
    rivals = frozenset(member.id for _, member in fleet)
    end = time.monotonic() + window

    async def beat(number: int) -> None:
        await asyncio.sleep(POLICY.renew_every * number / len(fleet))
        while (begun := time.monotonic()) < end:
            fleet[number] = await _renew(fleet[number], rivals)
            done = time.monotonic()
            taken.append(done - begun)
            await asyncio.sleep(max(begun + POLICY.renew_every - done, 0))

    await asyncio.gather(*(beat(number) for number in range(len(fleet))))
    return taken


async def _hammer(fleet: Sequence[Pair], window: float) -> float:
    count, begun = 0, time.monotonic()

    async def renew(pair: Pair) -> None:
        nonlocal count
        while time.monotonic() < begun + window:
            pair = await _renew(pair, frozenset())
            count += 1

    await asyncio.gather(*(renew(pair) for pair in fleet))
    return count / (time.monotonic() - begun)


async def _move(fleet: list[Pair]) -> float:
    """The seconds from reading what moves to the commit that gives it to all other machines."""
    lost, survivor = fleet[-1], fleet[-2]
    for number in range(SESSIONS):
        id = f"s{number}"
        assert await lost[0].create(lost[1], NewSession(id, "sandbox"), lost[1].id)
        assert await lost[0].store_copy(lost[1], id, 0, COPY)
    rows = {row.id: row for row in await survivor[0].machines()}
    row = rows[lost[1].id]
    named = replace(lost[1], renewals=row.renewals)
    _, named = await _renew((lost[0], named), frozenset({survivor[1].id}))
    targets = [member.id for _, member in fleet[:-1]]
    begun = time.monotonic()
    ids = [session.id for session in await survivor[0].movable(named.id)]
    to = {id: targets[number % len(targets)] for number, id in enumerate(ids)}
    assert len(to) == SESSIONS
    assert await survivor[0].take_over(survivor[1], named.id, named.epoch, named.renewals, to)
    return time.monotonic() - begun
