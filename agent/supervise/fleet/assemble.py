"""Builds the fleet's part of supervision, once."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.config import Config
from agent.core.model import Instance
from agent.core.view import InstanceView
from agent.engines.catalog import find_engine
from agent.errors import Refused, TryLater, WaError
from agent.fleet.certificate import CertificateEnd
from agent.fleet.coordinator import Member
from agent.fleet.fleet import Fleet
from agent.fleet.waiting import Notice
from agent.log import about
from agent.supervise.assemble import Supervision
from agent.supervise.fleet.arrivals import Arrivals
from agent.supervise.fleet.commands import Commands
from agent.supervise.fleet.comparing import Comparing
from agent.supervise.fleet.disk_room import DiskRoom
from agent.supervise.fleet.epochs import Epochs
from agent.supervise.fleet.face import FleetFace
from agent.supervise.fleet.giving_up import GivingUp
from agent.supervise.fleet.handing_on import HandingOn
from agent.supervise.fleet.leases import Leases
from agent.supervise.fleet.moves import Moves
from agent.supervise.fleet.orders import Orders
from agent.supervise.fleet.owner import FleetOwner
from agent.supervise.fleet.ownership import Ownership
from agent.supervise.fleet.publishing import Publishing
from agent.supervise.fleet.stored.baggage import Baggage
from agent.supervise.fleet.stored.lacking import Lacking
from agent.supervise.fleet.stored.replicas import Replicas
from agent.supervise.fleet.stored.writing import CopyWriting
from agent.supervise.fleet.taking_in import TakingIn
from agent.supervise.fleet.telling import Telling
from agent.supervise.fleet.waiting import WaitingList
from agent.supervise.requests.orders import Orders as SessionOrders
from agent.supervise.start_up import create_declared

if TYPE_CHECKING:
    from agent.supervise.fleet.stored.profiles import Profiles

log = logging.getLogger(__name__)

MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class FleetParts:
    face: FleetFace
    fleet: Fleet
    ownership: Ownership
    replicas: Replicas
    lacking: Lacking
    baggage: Baggage
    publishing: Publishing
    commands: Commands
    comparing: Comparing
    telling: Telling
    disk_room: DiskRoom
    supervision: Supervision
    config: Config

    async def run(self) -> None:
        """Until this machine leaves its fleet."""
        works: dict[str, Coroutine[Any, Any, object]] = {
            "lease": self.fleet.keeper.run(),
            "rehearsal": self.fleet.rehearsal.run(),
            "ownership": self.comparing.run(),
            "copies": self.replicas.run(),
            "lacking": self.lacking.run(),
            "baggage": self.baggage.run(),
            "moves": self.face.moves.run(),
            "directory": self.fleet.directory.run(),
            "publishing": self.publishing.run(),
            "commands": self.commands.run(),
            "telling": self.telling.run(),
            "disk": self.disk_room.run(),
            "notices": self.fleet.requests.listen(self._hear),
            "declarations": self._create_declared(),
        }
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work, name=f"fleet {name}") for name, work in works.items()]
            await self.ownership.left.wait()
            for task in tasks:
                task.cancel()

    async def store_rest(self) -> None:
        """After the last session was closed: the next owner of each goes on with what it saved."""
        if not self.fleet.keeper.joined.is_set():
            return
        behind = {*await self.replicas.store_rest(), *await self.baggage.store_rest()}
        if behind:
            log.warning(
                "the fleet's database lacks the last changes of %d sessions: %s",
                len(behind),
                ", ".join(sorted(behind)[:MOST_NAMED]),
            )

    def _hear(self, notice: Notice) -> None:
        """The database says that something changed; None: any notice may have been missed."""
        keeper, mine = self.fleet.keeper, notice.machine
        concerns = mine is None or (keeper.joined.is_set() and mine == keeper.member.id)
        if notice.kind == "changes" or mine is None:
            self.fleet.directory.wake()
            if concerns:
                keeper.wake()
        if concerns and (notice.kind == "command" or mine is None):
            self.commands.wake()

    async def _create_declared(self) -> None:
        """Those that no machine of the fleet has."""
        for declared in self.config.instance:
            find_engine(declared.engine)
        await self.ownership.known.wait()
        waiting = deque(self.config.instance)
        while waiting:
            try:
                await create_declared(self.supervision.registry, [waiting[0]])
                self.ownership.wake(waiting[0].id)
            except TryLater as error:
                log.warning("%s; the agent tries again when the database answers", error)
                await self.fleet.keeper.next_renewal()
                continue
            except Refused:
                pass  # another machine has it
            except WaError as error:
                log.error("%s", error, extra=about(waiting[0].id))
            waiting.popleft()


async def assemble_fleet(
    config: Config,
    fleet: Fleet,
    supervision: Supervision,
    session_orders: SessionOrders,
    *,
    show: Callable[[InstanceView], dict[str, Any]],
    settings_of: Callable[[Instance, Mapping[str, Any]], dict[str, Any]],
) -> FleetParts:
    """After the registry is filled, before the first pass: no session starts without a lease."""
    ground, registry = supervision.ground, supervision.registry
    wake = ground.wakes.wake

    root = config.session_root
    profiles = None
    if config.fleet.profiles:
        profiles = await asyncio.to_thread(_profiles, config, fleet, supervision)
    epochs = Epochs(ground.store)
    await epochs.load()
    store, host, forget = ground.store, supervision.seats, supervision.forget
    leases = Leases(registry.facts, wake)
    ownership = Ownership(fleet.keeper, registry.facts, epochs, leases, wake)
    orders = Orders(fleet, ownership, host.boot_id())
    telling = Telling(fleet, ownership, registry, store, host.boot_id())
    owner = FleetOwner(fleet, ownership, orders, registry, store, host, telling)
    giving_up = GivingUp(fleet, ownership, registry, store, host, root, telling, forget)
    baggage = Baggage(
        fleet.copies,
        fleet.key,
        root,
        config.fleet.copy_lag,
        member=lambda: fleet.keeper.member,
        owned=ownership.newest_here,
        trouble=lambda: (fleet.keeper.halted, bool(fleet.keeper.database_error)),
    )
    restic = profiles.restic if profiles else None
    arrivals = Arrivals(fleet.copies, fleet.key, root, restic, baggage)
    taking_in = TakingIn(fleet, ownership, registry, store, host, arrivals)
    disk_room = DiskRoom(fleet, root, config.fleet.capacity)
    handing_on = HandingOn(fleet, ownership, root, disk_room.say)
    comparing = Comparing(
        fleet, ownership, orders, registry, taking_in, giving_up, handing_on, owner.in_hand
    )
    replicas = Replicas(
        CopyWriting(
            fleet.copies, fleet.key, lambda: fleet.keeper.member, ownership.newest_here, epochs
        ),
        registry,
        root,
        config.fleet.copy_lag,
        owned=ownership.newest_here,
        trouble=lambda: (fleet.keeper.halted, bool(fleet.keeper.database_error)),
        profiles=profiles,
    )
    moves = Moves(
        fleet=fleet,
        ownership=ownership,
        giving_up=giving_up,
        replicas=replicas,
        baggage=baggage,
        registry=registry,
        store=store,
        host=host,
        wake=wake,
    )
    registry.tenure.owner = owner
    fleet.news.listeners.append(ownership.changed)
    fleet.keeper.resuming.go_on = leases.go_on
    await registry.set_leased(True)
    address, make = config.fleet.reached_at, supervision.creation.create
    certificate = CertificateEnd(config.fleet.certificate, config.fleet.certificate_key)
    waiting = WaitingList(fleet, comparing, moves)
    face = FleetFace(fleet, owner, waiting, moves, replicas, baggage, address, certificate, make)
    supervision.figures.fleet = face.figures

    def member() -> Member:
        return fleet.keeper.member

    publishing = Publishing(registry.views, show, fleet.requests, member)
    commands = Commands(session_orders, registry.views, fleet.requests, member, settings_of)
    fleet.keeper.on_renewal += [commands.hear, telling.hear]
    return FleetParts(
        face,
        fleet,
        ownership,
        replicas,
        Lacking(replicas, epochs, config.fleet.oldest_copy, lambda: fleet.keeper.member),
        baggage,
        publishing,
        commands,
        comparing,
        telling,
        disk_room,
        supervision,
        config,
    )


def _profiles(config: Config, fleet: Fleet, supervision: Supervision) -> "Profiles":
    from agent.fleet.copies.env_file import read_env_file
    from agent.fleet.copies.restic import Restic
    from agent.supervise.fleet.stored.profiles import Profiles

    section = config.fleet
    env = read_env_file(Path(section.profiles_env_file)) if section.profiles_env_file else {}
    cache = config.agent.state_path / "restic-cache"
    password = fleet.key.profiles_password
    restic = Restic(section.profiles, password=password, cache=cache, env=env)
    return Profiles(restic, fleet.copies, fleet.key, supervision.keeping, config.session_root)
