"""Export of a session into an archive, and import from one."""

import asyncio
import hashlib
import tempfile
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO

from agent.config import SessionsSection
from agent.core.findings.first_messages import FirstMessages, stored
from agent.core.model import (
    Instance,
    InstanceId,
    JournalEntry,
    SessionRecord,
)
from agent.core.view import InstanceView
from agent.errors import Refused, TooLarge, TryLater, WaError
from agent.host.base import Host
from agent.store.database import Store
from agent.supervise.copies.snapshots import Snapshots
from agent.supervise.facts import Facts
from agent.supervise.registry import Registry
from agent.supervise.requests.creation import check_among_others, check_settings_of
from agent.supervise.story import entry
from agent.vault.archives.pack import Packed, export_snapshot
from agent.vault.archives.unpack import Arrived, read_archive_manifest, unpack
from agent.vault.archives.untar import Limits
from agent.vault.copies.manifest import Manifest
from agent.vault.copies.snapshots import Snapshot, find_snapshot
from agent.vault.copies.staging import discard, put_in_place
from agent.vault.folders import STAGING, open_own
from agent.vault.identity import Identity, new_lineage
from agent.vault.trash import Retired
from agent.wings.archives.fitness import (
    refuse_other_account,
    refuse_unfit,
    refuse_unfit_export,
    refuse_unknown_engine,
)


@dataclass(frozen=True, slots=True)
class Export:
    """An archive that a client fetches; closing it removes the file."""

    file: IO[bytes]
    snapshot: Snapshot
    packed: Packed


@dataclass(frozen=True, slots=True)
class Import:
    view: InstanceView
    sha256: str
    """Of the archive that came in."""
    retired: str
    """The name in the trash of what it replaced; "" = nothing."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the caller wants an import to do."""

    id: InstanceId
    replace: bool
    enable: bool


@dataclass(slots=True, eq=False, repr=False)
class Archives:
    keeping: Snapshots
    registry: Registry
    store: Store
    host: Host
    root: Path
    settings: Callable[[], SessionsSection]
    forget: Callable[[InstanceId], None]
    wake: Callable[[InstanceId], None]
    _arriving: set[InstanceId] = field(init=False, default_factory=set)

    @asynccontextmanager
    async def export(self, id: InstanceId, name: str = "") -> AsyncIterator[Export]:
        """The export of a new snapshot, or of the one named."""
        facts = self.registry.get(id)
        if name:
            snapshot = await asyncio.to_thread(find_snapshot, self.root, id, name)
        else:
            snapshot = await self.keeping.snapshot(id, "for an export")
        refuse_unfit_export(id, snapshot)
        assert snapshot.manifest is not None
        with await asyncio.to_thread(_open_nameless, self.root) as file:
            work = partial(export_snapshot, self.root, snapshot, file)
            total = snapshot.manifest.listing.size
            packed = await self.keeping.work.run(id, "export", work, total)
            file.seek(0)
            sentence = f"exported from snapshot {snapshot.name}, SHA-256 {packed.sha256}"
            await self.keeping.say(facts, "exported", sentence, name=snapshot.name)
            yield Export(file, snapshot, packed)

    async def import_archive(
        self,
        pieces: AsyncIterable[bytes],
        *,
        id: InstanceId | None = None,
        replace: bool = False,
        enable: bool = False,
    ) -> Import:
        """Refused where the id exists, unless `replace` retires the old session."""
        async with self._received(pieces) as (archive, sha256):
            manifest = await asyncio.to_thread(read_archive_manifest, archive, self._limits())
            archive.seek(0)
            wanted = Wanted(id or manifest.id, replace, enable)
            async with self._arriving_as(wanted.id):
                refuse_unknown_engine(manifest)
                self._check_free(wanted, manifest)
                retired = await self._bring_in(archive, wanted, manifest, sha256)
                return Import(self.registry.view(wanted.id), sha256, retired)

    @asynccontextmanager
    async def _received(self, pieces: AsyncIterable[bytes]) -> AsyncIterator[tuple[IO[bytes], str]]:
        """The archive that comes in, in a nameless file, and its SHA-256."""
        most, digest, size = self.settings().import_packed, hashlib.sha256(), 0
        with await asyncio.to_thread(_open_nameless, self.root) as file:
            async for piece in pieces:
                size += len(piece)
                if size > most:
                    raise TooLarge(
                        f"cannot take the archive: it has more than {most} bytes", field="archive"
                    )
                digest.update(piece)
                await asyncio.to_thread(file.write, piece)
            file.seek(0)
            yield file, digest.hexdigest()

    @asynccontextmanager
    async def _arriving_as(self, id: InstanceId) -> AsyncIterator[None]:
        if id in self._arriving:
            raise TryLater(f"cannot import {id}: another import of it is under way")
        self._arriving.add(id)
        try:
            yield
        finally:
            self._arriving.discard(id)
            await asyncio.to_thread(discard, self.root, id, "import")

    async def _bring_in(
        self, file: IO[bytes], wanted: Wanted, manifest: Manifest, sha256: str
    ) -> str:
        id = wanted.id
        arrived = await self._unpack(file, id, manifest.listing.size)
        self._check_free(wanted, manifest)
        old, packed = self.registry.facts.get(id), arrived.manifest
        enabled = wanted.enable or (old is not None and old.instance.enabled)
        # One that replaces another of its account is the same instance: what waits in its outbox,
        # its Idempotency-Keys and the places of its readers go by when it was made.
        born_wall = old.instance.created_wall if old is not None else time.time()
        # An archive of a desk or of another program brings no settings: those of the instance stay.
        same = old is not None and old.instance.engine == packed.engine
        kept = old.instance.settings if old is not None and same else {}
        made = Instance(id, packed.engine, enabled, packed.settings or kept, born_wall)
        check_settings_of(made)
        check_among_others(self.registry, made)
        record = SessionRecord(
            status_since_wall=time.time(),
            paired=packed.paired,
            account=packed.account,
            needs_passkey=packed.needs_passkey,
            first_messages=stored(FirstMessages()) if packed.paired else "",
        )
        if old is not None and not wanted.enable:
            # A session that an operator stopped stays stopped, and what waits in its outbox waits.
            order = old.record
            record = replace(record, override=order.override, override_boot=order.override_boot)
        async with self.registry.devices.alone(id, packed.engine, f"import {id}", arrived.linked):
            if old is None:
                async with self.keeping.locks[id]:
                    retired = await self._put(made, record, replaces=False)
            else:
                retired = await self._replace(old, made, record, wanted, packed)
            name = retired.name if retired else ""
            said = JournalEntry(
                "imported",
                f"imported session {packed.id} of engine {packed.engine} from an archive, SHA-256"
                f" {sha256}" + (f"; the trash has the old session as {name}" if name else ""),
                instance=id,
                wall=time.time(),
                detail={"sha256": sha256, "trash": name},
            )
            await self._admit(made, record, said)
        return name

    async def _unpack(self, file: IO[bytes], id: InstanceId, size: int) -> Arrived:
        work = partial(unpack, self.root, file, id, self._limits())
        arrived = await self.keeping.work.run(id, "import", work, size)
        refuse_unfit(id, arrived)
        return arrived

    async def _replace(
        self,
        old: Facts,
        made: Instance,
        record: SessionRecord,
        wanted: Wanted,
        manifest: Manifest,
    ) -> Retired | None:
        """Removes the row first: a kill at any point leaves one folder for the next start."""
        old.action.interrupt_start()
        async with old.busy, self.keeping.locks[old.id]:
            self.registry.get(old.id)
            self._check_free(wanted, manifest)  # a phone may have paired the instance meanwhile
            said = entry(old, "replacing", "an import begins to replace it")
            old.record = replace(old.record, stopped_run=old.record.seen_run)
            await self.registry.save(old, [said])
            await self.host.stop(old.id)
            await self.store.remove(old.id, entry(old, "replaced", "replaced by an import"))
            self.registry.drop(old)
            self.forget(old.id)
            try:
                return await self._put(made, record, replaces=True)
            except WaError as error:
                # The old folder is back in its place: so must be its facts.
                said = entry(old, "kept", f"the import that should replace it failed: {error}")
                await self._admit(old.instance, old.record, said)
                raise

    async def _put(
        self, made: Instance, record: SessionRecord, *, replaces: bool
    ) -> Retired | None:
        return await asyncio.to_thread(
            put_in_place,
            self.root,
            "import",
            Identity(
                made,
                record.paired,
                record.account,
                override=record.override,
                override_boot=record.override_boot,
                needs_passkey=record.needs_passkey,
            ),
            lineage=new_lineage(),
            why="replaced by an import",
            replace=replaces,
        )

    async def _admit(self, made: Instance, record: SessionRecord, said: JournalEntry) -> None:
        await self.store.add(made, record, said)
        facts = self.registry.add(made, record)
        facts.enabled_by_operator = self.host.enabled_by_operator(made.id)
        self.wake(made.id)

    def _check_free(self, wanted: Wanted, manifest: Manifest) -> None:
        old = self.registry.facts.get(wanted.id)
        if old is None:
            return
        if not wanted.replace:
            raise Refused(
                f"cannot import {wanted.id}: it exists; --replace would retire it first",
                field="id",
                code="exists",
            )
        refuse_other_account(old, manifest)

    def _limits(self) -> Limits:
        chosen = self.settings()
        return Limits(chosen.import_packed, chosen.import_unpacked, chosen.import_files)


def _open_nameless(root: Path) -> IO[bytes]:
    """A file beside the sessions that only this process can open and no crash leaves behind."""
    with open_own(root, STAGING):
        return tempfile.TemporaryFile(dir=root / STAGING)
