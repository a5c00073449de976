"""Brings into place what wings had of a session besides its files, where the session arrives."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.core.fleet.baggage import Bag, Journey
from agent.core.model import parse_instance_id
from agent.errors import VaultError
from agent.failpoint import failpoint
from agent.fleet.coordinator import LOST, Owned, StoredPiece
from agent.fleet.copies.beside import make_room, remove_room
from agent.fleet.key import FleetKey, piece_context
from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.vault.locate import Modes

TRIP = "trip"
"""The piece that says how the others are; a wing's are named WING/NAME."""


@dataclass(frozen=True, slots=True)
class ArrivingBaggage:
    coordinator: PostgresCoordinator
    key: FleetKey
    root: Path
    bags: Mapping[str, Bag]

    async def fetch(self, owned: Owned) -> Path | None:
        """In a folder of its own; None: nothing of it is stored."""
        pieces = await self.coordinator.baggage(owned.id) if self.bags else None
        if not pieces:
            return None
        id = parse_instance_id(owned.id)
        room, modes = await asyncio.to_thread(make_room, self.root, id)
        try:
            await self._fetch(owned, pieces, room, modes)
        except BaseException:
            await asyncio.to_thread(remove_room, room)
            raise
        failpoint("baggage_unpacked")
        return room

    async def _fetch(
        self, owned: Owned, pieces: Sequence[StoredPiece], room: Path, modes: Modes
    ) -> None:
        id, by_name = parse_instance_id(owned.id), {piece.name: piece for piece in pieces}

        async def read(name: str) -> bytes:
            sealed = await self.coordinator.piece(id, name)
            if sealed is None:
                raise VaultError(f"cannot fetch {id}: its piece {name} is gone", code="damaged")
            context = piece_context(id, by_name[name].epoch, name)
            return await asyncio.to_thread(self.key.open, context, sealed)

        trip = by_name.get(TRIP)
        told = json.loads(await read(TRIP)) if trip is not None else {}
        exact = trip is not None and await self._is_exact(owned, trip, told)
        at_wall = float(told.get("at", 0.0))
        journey = Journey(exact, at_wall, room, modes.file, modes.group)
        for wing, bag in self.bags.items():
            own = f"{wing}/"
            names = [name.removeprefix(own) for name in by_name if name.startswith(own)]
            if names:
                await bag.unpack(id, names, partial(_read_of, read, wing), journey)

    async def _is_exact(self, owned: Owned, trip: StoredPiece, told: Mapping[str, object]) -> bool:
        """Stored by the last owner when it had stopped the session, which it then handed over."""
        if told.get("exact") is not True or trip.epoch != owned.epoch - 1:
            return False
        row = await self.coordinator.session(owned.id)
        return row is not None and row.why != LOST


async def _read_of(read: Callable[[str], Awaitable[bytes]], wing: str, name: str) -> bytes:
    return await read(f"{wing}/{name}")
