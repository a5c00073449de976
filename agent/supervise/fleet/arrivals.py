"""Brings the files of a session that this machine got from the fleet's database into place."""

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.core.findings.first_messages import FirstMessages, stored
from agent.core.model import (
    UNIT_ABSENT,
    ConnectionStatus,
    Health,
    SessionRecord,
    parse_instance_id,
)
from agent.core.waiting import wait_fields
from agent.core.words import COPY_MISSING
from agent.engines.catalog import entry_of
from agent.errors import Refused, VaultError
from agent.fleet.coordinator import Owned
from agent.fleet.copies.arrive import Placed, epoch_here, open_copy, place_archive, place_empty
from agent.fleet.copies.beside import remove_room
from agent.fleet.key import FleetKey
from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.fleet.waiting import ViewRow
from agent.log import about
from agent.supervise.fleet.stored.baggage import Baggage
from agent.vault.identity import Identity, read_identity

if TYPE_CHECKING:
    from agent.fleet.copies.restic import Restic

log = logging.getLogger(__name__)

HAD = "had_by"
"""In the view of a session whose files are missing: the number of the machine that had them."""
NO_PROFILES_CODE = "no_profiles"
NO_PROFILES = (
    "{id} is a browser profile, and [fleet] profiles names no restic repository:"
    " its files stay on their machine"
)


@dataclass(frozen=True, slots=True)
class Arrived:
    """A session whose folder is in place, with the identity that stands in it."""

    identity: Identity
    copied: bool
    """From a copy; else its folder was here in this epoch, or it never ran and is empty."""
    trash: str = ""
    """The name in the trash of a folder from an earlier ownership."""

    @property
    def record(self) -> SessionRecord:
        """For a session that is new in the registry."""
        moved = stored(FirstMessages()) if self.copied and self.identity.paired else ""
        now = time.time()
        return replace(self.identity.record, status_since_wall=now, first_messages=moved)


@dataclass(slots=True, eq=False, repr=False)
class Arrivals:
    coordinator: PostgresCoordinator
    key: FleetKey
    root: Path
    restic: "Restic | None" = None
    baggage: Baggage | None = None

    async def fetch(self, owned: Owned) -> Arrived:
        """Its folder is in place when this returns; what fails leaves nothing behind."""
        id = parse_instance_id(owned.id)
        here = await asyncio.to_thread(epoch_here, self.root, id)
        # In epoch 0 a session never moved: what is here is all there is of it.
        if here is not None and owned.epoch in (0, here):
            identity = await asyncio.to_thread(read_identity, self.root / id)
            return Arrived(identity, copied=False)
        beside = await self.baggage.fetch(owned) if self.baggage is not None else None
        try:
            return await self._fetch(owned, beside)
        finally:
            if beside is not None:
                await asyncio.to_thread(remove_room, beside)

    async def _fetch(self, owned: Owned, beside: Path | None) -> Arrived:
        placed = await self._place(owned, beside)
        if placed is None:
            await self._refuse_missing(owned)
            placed = await asyncio.to_thread(place_empty, self.root, owned, beside)
            return _arrived(placed, copied=False)
        return _arrived(placed, copied=True)

    async def _place(self, owned: Owned, beside: Path | None) -> Placed | None:
        stored = await self.coordinator.stored(owned.id)
        if stored is None:
            return None
        content = await asyncio.to_thread(open_copy, owned, stored, self.key)
        if not entry_of(owned.engine).profile:
            return await asyncio.to_thread(place_archive, self.root, owned, content, beside)
        from agent.fleet.copies.profile import NOTHING, parse_pointer, place_profile

        pointer = parse_pointer(content)
        if pointer == NOTHING:
            return await asyncio.to_thread(place_empty, self.root, owned, beside)
        if self.restic is None:
            raise Refused("cannot fetch: " + NO_PROFILES.format(id=owned.id), code=NO_PROFILES_CODE)
        return await place_profile(self.root, owned, self.restic, pointer, beside)

    async def _refuse_missing(self, owned: Owned) -> None:
        """An empty folder would ask for a code, and so end a pairing that it may have had: its
        last view is older than that."""
        view = next(iter(await self.coordinator.views(ids=[owned.id])), None)
        if view is None and owned.epoch == 0:
            return  # its creation was cut short
        had = had_by(view) if view is not None else None
        names = [row.name for row in await self.coordinator.machines() if row.id == had]
        raise VaultError(
            f"cannot fetch the files of {owned.id}: no copy of it is stored;"
            f" {names[0] if names else 'another machine'} had its folder last: bring that back",
            code=COPY_MISSING,
        )


def had_by(row: ViewRow) -> int:
    """The number of the machine that had its files last."""
    return int(row.view.get(HAD, row.machine))


def waiting_view(row: ViewRow, why: str) -> dict[str, Any]:
    """What the lists show of a session whose files this machine cannot fetch."""
    state, sentence = ConnectionStatus.DISCONNECTED.value, f"waiting: {why}"
    said = {"reason": COPY_MISSING, "sentence": sentence}
    verdict = {**said, "healthy": False, "verdict": Health.DISCONNECTED.value, "state": state}
    return {
        **row.view,
        **said,
        "connection_status": state,
        **wait_fields(COPY_MISSING, why),
        "health": {**row.view.get("health", {}), **verdict},
        "worker": UNIT_ABSENT.state.value,
        "uptime_seconds": None,
        "memory_bytes": None,
        HAD: had_by(row),
    }


def _arrived(placed: Placed, *, copied: bool) -> Arrived:
    id, trash = placed.identity.instance.id, placed.retired.name if placed.retired else ""
    if trash:
        sentence = "the folder that this machine had of it before is in the trash as %s"
        log.warning(sentence, trash, extra=about(id))
    return Arrived(placed.identity, copied, trash)
