"""A machine that may be taken over soon is asked whether its lease holds, as the agents do it."""

from functools import partial
from typing import TYPE_CHECKING

from agent.core.fleet.promises import Takeover
from agent.core.fleet.sightings import forgotten, stands_still, vouched
from agent.core.fleet.takeover import Peer, Standing, Word, elsewhere, refuse_takeover

if TYPE_CHECKING:
    from scripts.simulation.fleet.machine import Machine


def ask_and_take_over(machine: "Machine") -> None:
    """A machine that may be taken over soon is asked whether its lease holds."""
    if machine.last is None:
        return
    run, still = machine.run, stands_still(machine.sightings, machine.clock, machine.world.policy)
    if not still:
        _take_over(machine)
        return
    for id in still - {machine.id}:
        _ask_word(machine, machine.peers[id], run)
    wait = machine.world.policy.renew_every / 2
    machine.world.after(wait, lambda: machine.do(run, lambda: _take_over(machine)))


def _ask_word(machine: "Machine", other: "Machine", run: int) -> None:
    def answer() -> None:
        holds = other.lease.holds(other.clock)
        server = other.last.server if other.last and holds and other.by_renewal else ""
        word = Word(holds, server)
        machine.world.send(other.name, machine.name, lambda: machine.do(run, lambda: hear(word)))

    def hear(word: Word) -> None:
        machine.words[other.id] = word
        if word.holds:
            machine.sightings = vouched(machine.sightings, {other.id}, machine.clock)

    def there() -> None:
        if other.up:
            other.do(other.run, answer)

    machine.world.send(machine.name, other.name, there)


def _take_over(machine: "Machine") -> None:
    last, disk = machine.last, machine.disk
    if last is None or not machine.settled or disk.full:
        return
    silent = forgotten(machine.sightings, machine.clock, machine.world.policy)
    machine.words = {id: it for id, it in machine.words.items() if id not in silent}
    away = elsewhere(machine.words, last.server)
    for id in machine.sightings.machines.keys() - {machine.id}:
        standing = Standing(machine.id, machine.lease, machine.sightings, elsewhere=away)
        sessions = sum(owner == id for owner in last.owner.values())
        peer = Peer(id, last.epochs[id], last.rivals[id], sessions)
        if refuse_takeover(standing, peer, machine.clock, machine.world.policy) is None:
            takeover = Takeover(peer.epoch, last.renewals[id])
            disk.takeovers = {**disk.takeovers, id: takeover}
            sent = partial(
                machine.database.take_over, machine.id, disk.epoch, id, takeover.renewals
            )
            machine.world.send(machine.name, "db", sent)
