"""Builds the fleet's part of supervision, once."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.config import Config
from agent.engines.catalog import find_engine
from agent.errors import Refused
from agent.fleet.copies.restic import Restic, read_env_file
from agent.fleet.fleet import Fleet
from agent.supervise.assemble import Supervision
from agent.supervise.fleet.arrivals import Arrivals
from agent.supervise.fleet.epochs import Epochs
from agent.supervise.fleet.face import FleetFace
from agent.supervise.fleet.leases import Leases
from agent.supervise.fleet.moves import Moves
from agent.supervise.fleet.ownership import Ownership
from agent.supervise.fleet.replicas import Replicas
from agent.supervise.shared import Ground
from agent.supervise.start_up import create_declared


@dataclass(frozen=True, slots=True)
class FleetParts:
    face: FleetFace
    fleet: Fleet
    ownership: Ownership
    replicas: Replicas
    supervision: Supervision
    config: Config

    def tasks(self) -> dict[str, Coroutine[Any, Any, object]]:
        """By name."""
        return {
            "fleet lease": self.fleet.keeper.run(),
            "fleet ownership": self.ownership.run(),
            "fleet copies": self.replicas.run(),
            "fleet moves": self.face.moves.run(),
            "fleet declarations": self._create_declared(),
        }

    async def _create_declared(self) -> None:
        """Those that no machine of the fleet has."""
        for declared in self.config.instance:
            find_engine(declared.engine)
        await self.ownership.known.wait()
        for declared in self.config.instance:
            try:
                await create_declared(self.supervision.registry, [declared])
            except Refused:
                continue  # another machine has it
            self.ownership.wake(declared.id)

    async def close(self) -> None:
        await self.fleet.close()


async def assemble_fleet(
    config: Config, fleet: Fleet, supervision: Supervision, ground: Ground
) -> FleetParts:
    """After the registry is filled, before the first pass: no session starts without a lease."""
    registry, wake = supervision.registry, ground.wakes.wake

    restic = await asyncio.to_thread(_profiles, config, fleet)
    epochs = Epochs(ground.store)
    await epochs.load()
    ownership = Ownership(
        fleet=fleet,
        registry=registry,
        store=ground.store,
        host=supervision.seats,
        root=config.session_root,
        epochs=epochs,
        arrivals=Arrivals(fleet.requests, fleet.key, config.session_root, restic),
        leases=Leases(registry.facts, wake),
        wake=wake,
        forget=supervision.supervisor.forget,
    )
    replicas = Replicas(
        fleet.requests,
        fleet.key,
        supervision.keeping,
        registry,
        config.session_root,
        config.fleet.copy_lag,
        member=lambda: fleet.keeper.member,
        owned=lambda: ownership.owned,
        restic=restic,
    )
    moves = Moves(
        fleet=fleet,
        ownership=ownership,
        replicas=replicas,
        registry=registry,
        store=ground.store,
        host=supervision.seats,
        wake=wake,
    )
    registry.tenure.owner = ownership
    fleet.news.listeners.append(ownership.changed)
    await registry.set_leased(True)
    make = supervision.supervisor.create
    face = FleetFace(fleet, ownership, moves, config.fleet.reached_at, make)
    supervision.figures.fleet = face.figures
    return FleetParts(face, fleet, ownership, replicas, supervision, config)


def _profiles(config: Config, fleet: Fleet) -> Restic | None:
    section = config.fleet
    if not section.profiles:
        return None
    env = read_env_file(Path(section.profiles_env_file)) if section.profiles_env_file else {}
    cache = config.agent.state_path / "restic-cache"
    password = fleet.key.profiles_password
    return Restic(section.profiles, password=password, cache=cache, env=env)
