"""What is done to a fleet in one round: begun, held for a while, ended.

What ends a fault is noted before the fault begins, so that none is left when something fails.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiohttp

from scripts.nemeses.disks import copy_machine, fill_disk, restore_image
from scripts.nemeses.one_round import Round
from tests.fleet.agent import TTL, FleetAgent
from tests.fleet.agents import DATABASE
from tests.fleet.wires import OUTSIDE

RIGHTS = "EXECUTE ON ALL FUNCTIONS IN SCHEMA wa_agent TO wa_agent_machine"
END_CONNECTIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'agent'"
ASKED_WITHIN = 2.0
"""Seconds for an answer of a machine that may be gone, frozen or cut off."""
ACCEPTED_WITHIN = 30.0


async def kill_machine(round: Round) -> float:
    machine = round.machine()
    round.ended.push_async_callback(_boot, machine)
    await machine.lose_power()
    return round.beyond()


async def kill_agent(round: Round) -> float:
    machine = round.machine()
    round.ended.push_async_callback(_boot, machine)
    await machine.kill()
    return round.beyond()


async def freeze_machine(round: Round) -> float:
    machine = round.machine()
    round.ended.callback(machine.thaw)
    machine.freeze()
    return round.beyond()


async def freeze_agent(round: Round) -> float:
    machine = round.machine()
    assert machine.process is not None
    round.ended.callback(machine.thaw)
    machine.freeze([machine.process.pid])
    return round.beyond()


async def freeze_worker(round: Round) -> float:
    """One of its processes below the agent, as Node or a worker; the agent goes on."""
    machine = round.machine()
    if pid := _below(round, machine):
        round.ended.callback(machine.thaw)
        machine.freeze([pid])
    return round.beyond()


async def kill_worker(round: Round) -> float:
    if pid := _below(round, round.machine()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return 1.0


async def freeze_database(round: Round) -> float:
    round.ended.callback(round.fleet.database.signal, signal.SIGCONT)
    round.fleet.database.signal(signal.SIGSTOP)
    return round.beyond()


async def kill_database(round: Round) -> float:
    round.ended.push_async_callback(asyncio.to_thread, round.fleet.database.begin)
    await asyncio.to_thread(round.fleet.database.kill)
    return round.beyond()


async def close_database(round: Round) -> float:
    """It answers, and takes no writes: a standby, or a service whose disk is full."""
    database = round.fleet.database
    round.ended.push_async_callback(asyncio.to_thread, database.take_writes, True)
    await asyncio.to_thread(database.take_writes, False)
    return round.beyond()


async def restart_database(round: Round) -> float:
    """In order, as an upgrade of it does."""
    round.ended.push_async_callback(asyncio.to_thread, round.fleet.database.begin)
    await asyncio.to_thread(round.fleet.database.end)
    return 0.5


async def refuse_machines(round: Round) -> float:
    """It answers, and refuses all that the agents ask: somebody took their rights away."""
    database = round.fleet.database
    round.ended.push_async_callback(asyncio.to_thread, database.sql, f"GRANT {RIGHTS}")
    revoked = f"REVOKE {RIGHTS.replace(' TO ', ' FROM ')}; {END_CONNECTIONS}"
    await asyncio.to_thread(database.sql, revoked)
    return round.beyond()


async def lose_a_second(round: Round) -> float:
    """The database goes on as a copy of some time ago; meanwhile a session was moved."""
    database = round.fleet.database
    copy = await asyncio.to_thread(database.back_up)
    await _move_one(round)
    await asyncio.sleep(1.0)
    round.ended.push_async_callback(_accept, round.machine())
    await asyncio.to_thread(database.replace_by, copy)
    return TTL / 2


async def step_database_clock(round: Round) -> float:
    return _step(round, DATABASE)


async def step_machine_clock(round: Round) -> float:
    return _step(round, round.machine().name)


async def cut_from_database(round: Round) -> float:
    return _cut(round, round.machine().name, [DATABASE])


async def cut_from_machines(round: Round) -> float:
    name = round.machine().name
    return _cut(round, name, _others(round, name))


async def cut_from_both(round: Round) -> float:
    name = round.machine().name
    return _cut(round, name, [DATABASE, *_others(round, name)])


async def cut_from_whatsapp(round: Round) -> float:
    return _cut(round, round.machine().name, [OUTSIDE])


async def cut_from_all(round: Round) -> float:
    name = round.machine().name
    return _cut(round, name, [DATABASE, OUTSIDE, *_others(round, name)])


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
    "database killed": kill_database,
    "database restarted": restart_database,
    "database read-only": close_database,
    "database refuses the machines": refuse_machines,
    "database lost a second": lose_a_second,
    "database's clock stepped": step_database_clock,
    "machine's clock stepped": step_machine_clock,
    "machine cut from the database": cut_from_database,
    "machine cut from the machines": cut_from_machines,
    "machine cut from both": cut_from_both,
    "machine cut from WhatsApp": cut_from_whatsapp,
    "machine cut from all": cut_from_all,
    "disk full": fill_disk,
    "machine restored from an image": restore_image,
    "machine copied with its disk": copy_machine,
    "killed in a planned move": move_while_away,
}
ALONE = frozenset({"database lost a second"})
"""Not together with another fault: README says what a fleet does not survive."""
OF_THE_SERVER = frozenset(
    {
        "database frozen",
        "database killed",
        "database restarted",
        "database read-only",
        "database refuses the machines",
    }
)
"""One of them at a time: each needs a server that runs."""


async def _boot(machine: FleetAgent) -> None:
    """Another fault of the round may have killed it as well, and booted it."""
    if not machine.runs:
        await machine.boot()


async def _accept(machine: FleetAgent) -> None:
    """Its database has just begun: it is asked until it answers."""
    async with asyncio.timeout(ACCEPTED_WITHIN):
        while True:
            status, said = await machine.ask("POST", "/api/fleet/accept", {"confirm": True})
            if status != 503:
                assert status < 300, (status, said)
                return
            await asyncio.sleep(0.2)


async def _move_one(round: Round) -> None:
    """What is refused at this moment is not moved; a machine that is gone does not answer."""
    id = round.chance.choice(sorted(round.owners))
    owner = round.owners[id]
    to = round.chance.choice(_others(round, owner))
    round.done.append(f"{id} moves from {owner} to {to}")
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(ASKED_WITHIN):
            asked = round.fleet[owner].ask("POST", f"/api/instance/{id}/move", {"to": to})
            status, said = await asked
            assert status != 500, said


def _others(round: Round, name: str) -> list[str]:
    return [other for other in round.fleet.agents if other != name]


def _below(round: Round, machine: FleetAgent) -> int:
    assert machine.process is not None
    below = [it.pid for it in machine.processes() if it.pid != machine.process.pid]
    if not below:
        return 0
    pid = round.chance.choice(below)
    round.done.append(f"process {pid}")
    return pid


def _cut(round: Round, name: str, others: list[str]) -> float:
    """What it sends, what it gets, or both are lost."""
    net = round.fleet.wires
    assert net is not None
    way = round.chance.choice(["out", "in", "both"])
    round.done.append(f"{way} of {name}")
    round.ended.callback(net.mend)
    if way != "in":
        net.cut(name, *others)
    if way != "out":
        for other in others:
            net.cut(other, name)
    return round.beyond()


def _step(round: Round, name: str) -> float:
    """Its wall clock jumps, and jumps back at the end of the round."""
    seconds = round.chance.choice([-3600, -30, -3, 3, 30, 3600])
    round.done.append(f"{name} by {seconds} s")
    round.ended.callback(round.clocks[name].step, 0)
    round.clocks[name].step(seconds)
    return round.beyond()
