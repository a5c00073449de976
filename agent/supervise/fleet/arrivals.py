"""Brings the files of a session that this machine got from the fleet's database into place."""

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.core.findings.first_messages import FirstMessages, stored
from agent.core.model import SessionRecord, parse_instance_id
from agent.engines.catalog import entry_of
from agent.errors import Refused, VaultError
from agent.fleet.coordinator import Coordinator, Owned
from agent.fleet.copies.arrive import Placed, epoch_here, open_copy, place_archive, place_empty
from agent.fleet.key import FleetKey
from agent.log import about
from agent.vault.identity import Identity, read_identity

if TYPE_CHECKING:
    from agent.fleet.copies.restic import Restic

log = logging.getLogger(__name__)

NO_PROFILES = (
    "{id} is a browser profile, and [fleet] profiles names no restic repository:"
    " its files stay on their machine"
)


@dataclass(frozen=True, slots=True)
class Arrived:
    """A session whose folder is in place, with the identity that stands in it."""

    identity: Identity
    copied: bool
    """From a copy; else its folder was here in this epoch, or it never paired and is empty."""
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
    coordinator: Coordinator
    key: FleetKey
    root: Path
    restic: "Restic | None" = None

    async def fetch(self, owned: Owned) -> Arrived:
        """Its folder is in place when this returns; what fails leaves nothing behind."""
        id = parse_instance_id(owned.id)
        here = await asyncio.to_thread(epoch_here, self.root, id)
        # In epoch 0 a session never moved: what is here is all there is of it.
        if here is not None and owned.epoch in (0, here):
            identity = await asyncio.to_thread(read_identity, self.root / id)
            return Arrived(identity, copied=False)
        placed = await self._place(owned)
        if placed is None:
            await self._refuse_missing(owned)
            placed = await asyncio.to_thread(place_empty, self.root, owned)
            return _arrived(placed, copied=False)
        return _arrived(placed, copied=True)

    async def _place(self, owned: Owned) -> Placed | None:
        found = await self.coordinator.stored(owned.id)
        if found is None:
            return None
        content = await asyncio.to_thread(open_copy, owned, found, self.key)
        if not entry_of(owned.engine).profile:
            return await asyncio.to_thread(place_archive, self.root, owned, content)
        from agent.fleet.copies.profile import NOTHING, parse_pointer, place_profile

        pointer = parse_pointer(content)
        if pointer == NOTHING:
            return await asyncio.to_thread(place_empty, self.root, owned)
        if self.restic is None:
            raise Refused("cannot fetch: " + NO_PROFILES.format(id=owned.id), code="no_profiles")
        return await place_profile(self.root, owned, self.restic, pointer)

    async def _refuse_missing(self, owned: Owned) -> None:
        """An empty folder would ask for a code, and so end a pairing that another machine has."""
        view = next(iter(await self.coordinator.views(ids=[owned.id])), None)
        if bool(view.view.get("paired")) if view is not None else owned.epoch > 0:
            machines = await self.coordinator.machines() if view is not None else ()
            names = [row.name for row in machines if view and row.id == view.machine]
            raise VaultError(
                f"cannot fetch the files of {owned.id}: no copy of it is stored;"
                f" {names[0] if names else 'another machine'} had it last: bring that machine back",
                code="copy_missing",
            )


def _arrived(placed: Placed, *, copied: bool) -> Arrived:
    id, trash = placed.identity.instance.id, placed.retired.name if placed.retired else ""
    if trash:
        sentence = "the folder that this machine had of it before is in the trash as %s"
        log.warning(sentence, trash, extra=about(id))
    return Arrived(placed.identity, copied, trash)
