"""What is done to a fleet in one round: begun, held for a while, ended."""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from tests.fleet.agents import DATABASE, TTL, FleetAgent, FleetOfAgents

FILLED = "filling"


@dataclass(frozen=True, slots=True)
class Round:
    fleet: FleetOfAgents
    chance: random.Random
    ended: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    """What ends the faults of this round."""
    done: list[str] = field(default_factory=list)
    """To what the faults were done, and how."""

    def machine(self) -> FleetAgent:
        chosen = self.chance.choice(list(self.fleet.agents.values()))
        self.done.append(chosen.name)
        return chosen

    def beyond(self) -> float:
        """Seconds that end somewhere around a takeover, or well after it."""
        return self.chance.uniform(0.5, 1.8) * TTL


async def kill_machine(round: Round) -> float:
    machine = round.machine()
    await machine.lose_power()
    round.ended.append(machine.boot)
    return round.beyond()


async def kill_agent(round: Round) -> float:
    machine = round.machine()
    await machine.kill()
    round.ended.append(machine.boot)
    return round.beyond()


async def freeze_machine(round: Round) -> float:
    machine = round.machine()
    round.fleet.freeze(machine.name)
    round.ended.append(_thaw(machine))
    return round.beyond()


async def freeze_agent(round: Round) -> float:
    machine = round.machine()
    assert machine.process is not None
    round.fleet.freeze(machine.name, [machine.process.pid])
    round.ended.append(_thaw(machine))
    return round.beyond()


async def freeze_worker(round: Round) -> float:
    """One of its processes below the agent, as Node or a worker; the agent goes on."""
    machine = round.machine()
    if pid := _below(round, machine):
        round.done.append(f"process {pid}")
        round.fleet.freeze(machine.name, [pid])
        round.ended.append(_thaw(machine))
    return round.beyond()


async def kill_worker(round: Round) -> float:
    if pid := _below(round, round.machine()):
        round.done.append(f"process {pid}")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return 1.0


async def freeze_database(round: Round) -> float:
    round.fleet.database.signal(signal.SIGSTOP)

    async def thaw() -> None:
        round.fleet.database.signal(signal.SIGCONT)

    round.ended.append(thaw)
    return round.beyond()


async def stop_database(round: Round) -> float:
    await asyncio.to_thread(round.fleet.database.kill)

    async def begin() -> None:
        await asyncio.to_thread(round.fleet.database.begin)

    round.ended.append(begin)
    return round.beyond()


async def lose_a_second(round: Round) -> float:
    """The database goes on as a copy of some time ago; meanwhile a session was moved."""
    database = round.fleet.database
    copy = await asyncio.to_thread(database.back_up)
    await _move_one(round)
    await asyncio.sleep(1.0)
    await asyncio.to_thread(database.replace_by, copy)

    async def accept() -> None:
        await round.machine().do("POST", "/api/fleet/accept", {"confirm": True})

    round.ended.append(accept)
    return TTL / 2


async def cut_from_database(round: Round) -> float:
    return _cut(round, round.machine().name, [DATABASE])


async def cut_from_machines(round: Round) -> float:
    name = round.machine().name
    return _cut(round, name, [other for other in round.fleet.agents if other != name])


async def isolate(round: Round) -> float:
    name = round.machine().name
    return _cut(round, name, [DATABASE, *(other for other in round.fleet.agents if other != name)])


async def fill_disk(round: Round) -> float:
    machine = round.machine()
    filling = machine.state / FILLED
    with suppress(OSError), filling.open("wb") as file:
        while True:
            file.write(bytes(1 << 18))

    async def free() -> None:
        filling.unlink(missing_ok=True)

    round.ended.append(free)
    return round.beyond()


async def move_while_away(round: Round) -> float:
    """A planned move, and a moment later its old or new owner is gone."""
    await _move_one(round)
    await asyncio.sleep(round.chance.uniform(0.0, 1.5))
    return await kill_machine(round)


FAULTS: dict[str, Callable[[Round], Awaitable[float]]] = {
    "machine killed": kill_machine,
    "agent killed": kill_agent,
    "machine frozen": freeze_machine,
    "agent frozen": freeze_agent,
    "worker or Node frozen": freeze_worker,
    "worker or Node killed": kill_worker,
    "database frozen": freeze_database,
    "database killed": stop_database,
    "database lost a second": lose_a_second,
    "machine cut from the database": cut_from_database,
    "machine cut from the machines": cut_from_machines,
    "machine cut from both": isolate,
    "disk full": fill_disk,
    "killed in a planned move": move_while_away,
}
ALONE = frozenset({"database lost a second"})
"""Not together with another fault: README says what a fleet does not survive."""


async def _move_one(round: Round) -> None:
    """What is refused at this moment is not moved."""
    owners = await round.fleet.owners()
    id = round.chance.choice(sorted(owners))
    to = round.chance.choice([name for name in round.fleet.agents if name != owners[id]])
    round.done.append(f"{id} moves from {owners[id]} to {to}")
    await round.fleet[owners[id]].ask("POST", f"/api/instance/{id}/move", {"to": to})


def _below(round: Round, machine: FleetAgent) -> int:
    assert machine.process is not None
    pids = [it.pid for it in machine.processes() if it.pid != machine.process.pid]
    below = [pid for pid in pids if psutil.pid_exists(pid)]
    return round.chance.choice(below) if below else 0


def _cut(round: Round, name: str, others: list[str]) -> float:
    """What it sends, what it gets, or both are lost."""
    net = round.fleet.wires
    assert net is not None
    way = round.chance.choice(["out", "in", "both"])
    round.done.append(f"{way} of {name}")
    if way != "in":
        net.cut(name, *others)
    if way != "out":
        for other in others:
            net.cut(other, name)

    async def mend() -> None:
        net.mend()

    round.ended.append(mend)
    return round.beyond()


def _thaw(machine: FleetAgent) -> Callable[[], Awaitable[None]]:
    async def thaw() -> None:
        machine.thaw()

    return thaw
