"""Saves browser profiles in the fleet's restic repository, by the vault's snapshots of them."""

import asyncio
import logging
from dataclasses import dataclass, field
from pathlib import Path

from agent.clock import boot_now
from agent.core.model import InstanceId
from agent.errors import Refused, TryLater, VaultError, WaError
from agent.fleet.copies.profile import NOTHING, parse_pointer, render_pointer, save_profile
from agent.fleet.copies.restic import Restic
from agent.fleet.key import FleetKey, copy_context
from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.supervise.copies.snapshots import Snapshots
from agent.supervise.facts import Facts
from agent.vault.copies.snapshots import Snapshot, newest_good

log = logging.getLogger(__name__)

PRUNE_EVERY = 86400.0
TIDY_AFTER = 8
"""Saved profiles after which older ones are forgotten: for that a machine needs the repository for
itself, and others wait."""


@dataclass(slots=True, eq=False, repr=False)
class Profiles:
    restic: Restic
    coordinator: PostgresCoordinator
    key: FleetKey
    keeping: Snapshots
    root: Path
    _pruned_at: float = field(init=False, default_factory=boot_now)
    _saved: int = field(init=False, default=0)
    _newest: dict[InstanceId, str] = field(init=False, default_factory=dict)
    """Of each session that was saved since: the snapshot that its stored copy names."""

    async def save(self, facts: Facts, epoch: int) -> bytes | None:
        """Its newest good snapshot; None: an agent before this one saved it."""
        # No lock: saving takes long, and a snapshot that is pruned meanwhile is a failed try.
        snapshot = await asyncio.to_thread(newest_good, self.root, facts.id)
        if snapshot is None:
            raise _not_whole(facts, "it has no good snapshot")
        if await self._is_stored(facts.id, epoch, snapshot):
            return None
        await self.make_repository()
        return render_pointer(await save_profile(self.restic, snapshot, epoch, exact=False))

    async def flush(self, facts: Facts, epoch: int) -> bytes:
        """As it is now, and read back."""
        snapshot = await self._snapshot(facts)
        if snapshot is None:
            return render_pointer(NOTHING)
        await self.make_repository()
        return render_pointer(await save_profile(self.restic, snapshot, epoch, exact=True))

    async def tidy(self, id: InstanceId, pointer: bytes) -> None:
        """Forget older snapshots of what was saved since the last time."""
        self._newest[id] = parse_pointer(pointer).snapshot
        self._saved += 1
        prunes = boot_now() - self._pruned_at >= PRUNE_EVERY
        if self._saved < TIDY_AFTER and not prunes:
            return
        try:
            await self.restic.forget(self._newest)
            self._saved, self._newest = 0, {}
            if prunes:
                self._pruned_at = boot_now()
                await self.restic.prune()
        except WaError as error:  # nothing but room in the repository is lost by it
            (log.debug if error.code == "profiles_locked" else log.warning)("%s", error)

    async def make_repository(self) -> None:
        """Where there is none yet."""
        if await self.restic.exists():
            return
        if not await self.coordinator.lock("profiles"):
            raise TryLater(
                "cannot save browser profiles: another machine makes the repository now",
                code="profiles_absent",
            )
        try:
            if not await self.restic.exists():
                await self.restic.make()
        finally:
            await self.coordinator.unlock("profiles")

    async def _snapshot(self, facts: Facts) -> Snapshot | None:
        """Made now; None: it never paired, and there is nothing to bring."""
        try:
            taken = await self.keeping.take(facts, "for its move to another machine")
        except Refused as error:
            if error.code != "no_session" or facts.record.paired:
                raise
            return None
        if not taken.good and facts.record.paired:
            raise _not_whole(facts, "it is paired, and its files are not whole")
        return taken if taken.good else None

    async def _is_stored(self, id: InstanceId, epoch: int, snapshot: Snapshot) -> bool:
        stored = await self.coordinator.stored(id)
        if stored is None or stored.epoch != epoch:
            return False
        try:
            content = self.key.open(copy_context(id, epoch), stored.packed)
            return parse_pointer(content).name == snapshot.name
        except VaultError:
            return False


def _not_whole(facts: Facts, cause: str) -> VaultError:
    return VaultError(f"cannot copy {facts.id}: {cause}", code="not_whole")
