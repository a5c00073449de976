"""Export of a session into an archive, and import from one: the agent's part."""

import asyncio
import hashlib
import tempfile
import time
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from agent.core.model import Instance, InstanceId, JournalEntry, SessionFiles, SessionRecord
from agent.core.session import Session
from agent.engines.catalog import file_rules, find_engine
from agent.errors import ConfigError, InvalidRequest, Refused, TooLarge, TryLater, WaError
from agent.supervise import assemble, orders, registry
from agent.supervise.facts import Facts, entry
from agent.vault import archives, folders, restore
from agent.vault.snapshots import Manifest, Snapshot, find_snapshot


class Wanted(NamedTuple):
    id: InstanceId
    replace: bool
    enable: bool


class Archives:
    def __init__(self, base: assemble.Supervisor) -> None:
        self._registry, self._keeping, self._root = base.registry, base.keeping, base.root
        self._store, self._host = base.store, base.seats
        self._wake = base.wake
        self._arriving: set[InstanceId] = set()

    @asynccontextmanager
    async def export(
        self, id: InstanceId, name: str = ""
    ) -> AsyncIterator[tuple[IO[bytes], Snapshot, archives.Packed]]:
        """Yield the archive of a new snapshot, or of the one named, in a file without a name."""
        facts = self._registry.get(id)
        if name:
            snapshot = await asyncio.to_thread(find_snapshot, self._root, id, name)
        else:
            snapshot = await self._keeping.snapshot(id, "for an export")
        manifest = snapshot.manifest
        if manifest is None or (manifest.paired and manifest.state is not SessionFiles.WHOLE):
            # No import would take it: a person would find out on the other machine.
            state = snapshot.problem if manifest is None else manifest.state.value
            words = f"the session in snapshot {snapshot.name} is {state}, and no import takes it"
            cure = f"`wa-agent snapshots {id}` lists whole ones, which --snapshot NAME exports"
            raise Refused(f"cannot export {id}: {words}; {cure}", code="not_good")
        with await asyncio.to_thread(_open_nameless, self._root) as file:
            work = partial(archives.export_snapshot, self._root, snapshot, file)
            packed = await self._keeping.in_thread(id, "export", work)
            file.seek(0)
            sentence = f"exported from snapshot {snapshot.name}, SHA-256 {packed.sha256}"
            await self._keeping.say(facts, "exported", sentence, name=snapshot.name)
            yield file, snapshot, packed

    async def import_archive(
        self,
        pieces: AsyncIterable[bytes],
        *,
        id: InstanceId | None = None,
        replace: bool = False,
        enable: bool = False,
    ) -> tuple[Session, str, str]:
        """Return the session, the archive's SHA-256, and the name in the trash of the session that
        it replaced. Refused where the id exists, unless `replace` retires the old session."""
        async with self._received(pieces) as (file, sha256):
            read = archives.read_archive_manifest
            manifest = await asyncio.to_thread(read, file, archives.Limits())
            file.seek(0)
            wanted = Wanted(id or manifest.id, replace, enable)
            if wanted.id in self._arriving:
                raise TryLater(f"cannot import {wanted.id}: another import of it is under way")
            self._arriving.add(wanted.id)
            try:
                retired = await self._bring_in(file, wanted, manifest, sha256)
            finally:
                self._arriving.discard(wanted.id)
                await asyncio.to_thread(restore.discard, self._root, wanted.id, "import")
            return self._registry.view(wanted.id), sha256, retired

    @asynccontextmanager
    async def _received(self, pieces: AsyncIterable[bytes]) -> AsyncIterator[tuple[IO[bytes], str]]:
        """Yield the archive that comes in, in a nameless file, and its SHA-256."""
        most, digest, size = archives.Limits().packed, hashlib.sha256(), 0
        with await asyncio.to_thread(_open_nameless, self._root) as file:
            async for piece in pieces:
                size += len(piece)
                if size > most:
                    words = f"cannot take the archive: it has more than {most} bytes"
                    raise TooLarge(words, field="archive")
                digest.update(piece)
                await asyncio.to_thread(file.write, piece)
            file.seek(0)
            yield file, digest.hexdigest()

    async def _bring_in(
        self, file: IO[bytes], wanted: Wanted, manifest: Manifest, sha256: str
    ) -> str:
        """Bring the archive in; return the name in the trash of what it replaced."""
        id = wanted.id
        try:
            find_engine(manifest.engine)
        except ConfigError as error:
            raise InvalidRequest(str(error), field="engine", code=error.code) from None
        self._check_free(wanted, manifest)
        work = partial(archives.unpack, self._root, file, id, archives.Limits())
        arrived = await self._keeping.in_thread(id, "import", work)
        problem, code = unfit(arrived)
        if problem:
            raise InvalidRequest(f"cannot import {id}: {problem}", field="archive", code=code)
        self._check_free(wanted, manifest)
        old = self._registry.facts.get(id)
        made, record = _made(wanted, manifest, old)
        orders.check_settings_of(made)
        self._registry.check(made)
        doing = f"import {id}"
        async with (
            self._registry.making(id, doing, replaces=old is not None),
            self._registry.alone(id, manifest.engine, doing, arrived.linked, arrives=True),
        ):
            if old is None:
                async with self._keeping.locks[id]:
                    retired = await self._put(made, record, replaces=False)
            else:
                retired = await self._replace(old, made, record, wanted, manifest)
            name = retired.name if retired else ""
            sentence = f"imported session {manifest.id} of engine {manifest.engine} from an archive"
            sentence += f", SHA-256 {sha256}"
            sentence += f"; the trash has the old session as {name}" if name else ""
            told = {"sha256": sha256, "trash": name}
            said = JournalEntry("imported", sentence, instance=id, wall=time.time(), detail=told)
            await self._admit(made, record, said)
        return name

    async def _replace(
        self, old: Facts, made: Instance, record: SessionRecord, wanted: Wanted, manifest: Manifest
    ) -> folders.Retired | None:
        """Replace a session. The row goes first: a kill at any point leaves one folder."""
        old.action.interrupt_start()
        async with old.busy, self._keeping.ending(old):
            self._registry.get(old.id)
            self._check_free(wanted, manifest)  # a phone may have paired the instance meanwhile
            old.note("replacing", "an import begins to replace it")
            old.record = replace(old.record, stopped_run=old.record.seen_run)
            await self._registry.save(old)
            await self._host.stop(old)
            await self._store.remove(old.id, entry(old, "replaced", "replaced by an import"))
            self._registry.drop(old)
            try:
                return await self._put(made, record, replaces=True)
            except WaError as error:
                # The old folder is back in its place: so must be its facts.
                said = entry(old, "kept", f"the import that should replace it failed: {error}")
                await self._admit(old.instance, old.record, said)
                raise

    async def _put(
        self, made: Instance, record: SessionRecord, *, replaces: bool
    ) -> folders.Retired | None:
        identity = registry.identity_of(Facts(made, record))
        work = partial(restore.put_in_place, self._root, "import", identity)
        return await asyncio.to_thread(work, why="replaced by an import", replace=replaces)

    async def _admit(self, made: Instance, record: SessionRecord, said: JournalEntry) -> None:
        await self._store.add(made, record, said)
        facts = self._registry.add(made, record)
        facts.enabled_by_operator = self._host.enabled_by_operator(facts)
        self._wake(made.id)

    def _check_free(self, wanted: Wanted, manifest: Manifest) -> None:
        old = self._registry.facts.get(wanted.id)
        if old is None:
            return
        if not wanted.replace:
            words = f"cannot import {wanted.id}: it exists; --replace would retire it first"
            raise Refused(words, field="id", code="exists")
        # Programs address an instance by its id: it stays the account that it is.
        was, comes = old.record.account, manifest.account
        if old.record.paired and was and comes and was != comes:
            words = f"cannot import {old.id}: it is account {was}, the session is of {comes}"
            cure = f"import it under another id, or delete {old.id} first"
            raise Refused(f"{words}; {cure}", field="id", code="other_account")


def _made(wanted: Wanted, manifest: Manifest, old: Facts | None) -> tuple[Instance, SessionRecord]:
    made = Instance(wanted.id, manifest.engine, wanted.enable, manifest.settings, time.time())
    record = SessionRecord(status_since_wall=time.time(), paired=manifest.paired)
    record = replace(record, account=manifest.account, needs_passkey=manifest.needs_passkey)
    if old is None:
        return made, record
    # The outbox, Idempotency-Keys and readers' places go by when the instance was made: one that
    # replaces another of its account is the same instance.
    made = replace(made, created_wall=old.instance.created_wall)
    made = replace(made, enabled=wanted.enable or old.instance.enabled)
    if not manifest.settings and old.instance.engine == manifest.engine:
        # An archive of a desk or of another program brings no settings: those of the instance stay.
        made = replace(made, settings=old.instance.settings)
    if not wanted.enable:
        # A session that an operator stopped stays stopped, and what waits in its outbox waits.
        order = old.record
        record = replace(record, override=order.override, override_boot=order.override_boot)
    return made, record


def unfit(arrived: archives.Arrived) -> tuple[str, str]:
    """Why no import takes this session, and the code; a paired one must be whole, of the account
    that its manifest names, and able to read."""
    manifest, account = arrived.manifest, arrived.linked.account
    if not manifest.paired:
        return "", ""
    if arrived.state is not SessionFiles.WHOLE:
        problem = f"the archive is whole, but its session is {arrived.state} {arrived.problem}"
        return problem.rstrip(), "not_good"
    if account and manifest.account and account != manifest.account:
        problem = f"its files are of account {account}, its manifest names {manifest.account}"
        return problem, "other_account"
    lacking = file_rules(manifest.engine).lacks([file.path for file in manifest.listing.files])
    return lacking, "no_pre_keys" if lacking else ""


def _open_nameless(root: Path) -> IO[bytes]:
    """Open a file beside the sessions that only this process has and no crash leaves behind."""
    with folders.open_own(root, folders.STAGING):
        return tempfile.TemporaryFile(dir=root / folders.STAGING)
