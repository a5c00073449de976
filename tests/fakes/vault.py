"""Snapshots and archives over memory: the face of keeping and moving, no files behind it."""

import hashlib
import io
import time
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from agent.core.model import ConnectionStatus, InstanceId, SessionFiles
from agent.core.session import Session
from agent.errors import InvalidRequest, NotFound, Refused
from agent.vault.archives import Packed
from agent.vault.restore import Restored
from agent.vault.snapshots import Manifest, Snapshot
from agent.vault.tree import FileEntry, Listing

if TYPE_CHECKING:
    from tests.fakes.supervisor import FakeSupervisor

ARCHIVE = b"\x1f\x8b an archive of "


class FakeKeeping:
    def __init__(self, supervisor: "FakeSupervisor") -> None:
        self.kept: dict[InstanceId, list[Snapshot]] = {}
        self.forced: list[bool] = []
        self.breaks_with: Exception | None = None
        self._supervisor = supervisor

    async def snapshots(self, id: InstanceId) -> list[Snapshot]:
        self._supervisor.view(id)
        return self.kept.get(id, [])

    async def snapshot(self, id: InstanceId, why: str) -> Snapshot:
        self._supervisor.view(id)
        if self.breaks_with is not None:
            raise self.breaks_with
        kept = self.kept.setdefault(id, [])
        name = f"20260115T1030{len(kept):02}Z"
        listing = Listing((FileEntry("sandbox.json", 3, "0" * 64),), ())
        manifest = Manifest(
            id=id,
            engine="sandbox",
            account="49151",
            paired=True,
            taken_wall=time.time(),
            why=why,
            state=SessionFiles.WHOLE,
            listing=listing,
        )
        kept.insert(0, Snapshot(name, Path("/nowhere") / name, id, manifest))
        return kept[0]

    async def restore(self, id: InstanceId, name: str, *, force: bool) -> Restored:
        if self.breaks_with is not None and not force:
            raise self.breaks_with
        for one in await self.snapshots(id):
            if one.name == name and one.manifest is not None:
                self.forced.append(force)
                return Restored(one, one.manifest, None)
        raise NotFound(f"cannot find the snapshot {name} of {id}: there is none of that name")


class FakeMoving:
    def __init__(self, supervisor: "FakeSupervisor") -> None:
        self._supervisor = supervisor

    @asynccontextmanager
    async def export(
        self, id: InstanceId, name: str = ""
    ) -> AsyncIterator[tuple[IO[bytes], Snapshot, Packed]]:
        keeping = self._supervisor.keeping
        found = [one for one in await keeping.snapshots(id) if one.name == name]
        if name and not found:
            raise NotFound(f"cannot find the snapshot {name} of {id}: there is none of that name")
        snapshot = found[0] if name else await keeping.snapshot(id, "for an export")
        content = ARCHIVE + id.encode() * 100_000
        packed = Packed(len(content), hashlib.sha256(content).hexdigest())
        yield io.BytesIO(content), snapshot, packed

    async def import_archive(
        self,
        pieces: AsyncIterable[bytes],
        *,
        id: InstanceId | None = None,
        replace: bool = False,
        enable: bool = False,
    ) -> tuple[Session, str, str]:
        from tests.fakes.supervisor import make_view

        content = b"".join([piece async for piece in pieces])
        if not content.startswith(ARCHIVE):
            raise InvalidRequest(
                "cannot use the archive: it is no gzip", field="archive", code="bad_archive"
            )
        wanted = id or InstanceId("sales")
        known = self._supervisor.known
        if wanted in known and not replace:
            raise Refused(f"cannot import {wanted}: it exists", field="id", code="exists")
        retired = f"{wanted}.20260115T103045Z" if wanted in known else ""
        status = ConnectionStatus.INITIALIZING if enable else ConnectionStatus.DISCONNECTED
        known[wanted] = make_view(wanted, status=status)
        return known[wanted], hashlib.sha256(content).hexdigest(), retired
