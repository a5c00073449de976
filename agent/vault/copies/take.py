"""Snapshots: verified copies of a session, visible only when they are whole.

R/.snapshots/<id>/<UTC stamp>/ has manifest.json and files/. One is made under another name, put on
the disk, read back, and then renamed; what a crash leaves is swept.
"""

import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.core.model import Instance, InstanceId, parse_instance_id
from agent.engines.catalog import file_rules
from agent.errors import Refused, VaultError
from agent.files import failpoint
from agent.vault.check import inspect_session
from agent.vault.copies.snapshots import (
    FILE,
    FILES,
    Manifest,
    Snapshot,
    open_shelf,
    render_manifest,
    sweep_unfinished,
)
from agent.vault.errors import doing
from agent.vault.folder import OURS, SESSION, Folder, open_instance
from agent.vault.folders import MAKING, next_name
from agent.vault.free_space import look_for_room
from agent.vault.identity import by_name, lineage_of
from agent.vault.tree import Listing, Signature, Tick, copy_tree, no_tick, read_back, signatures

OUTSIDE = "keys_elsewhere"
LARGEST = 4 << 30
"""Bytes: a session of more would fill the disk, copy by copy, and no import takes it by default."""

_OF_INSTANCE = ("id", "engine", "settings", "created_wall")


@dataclass(frozen=True, slots=True)
class Subject:
    """The session to copy, as the record knows it, and why."""

    instance: Instance
    paired: bool
    account: str
    why: str
    backup: bool = False
    needs_passkey: bool = False


def take_snapshot(
    root: Path,
    subject: Subject,
    *,
    now_wall: float | None = None,
    tick: Tick = no_tick,
) -> Snapshot:
    """Copy the session as it is. VaultError `changing`: it changed meanwhile; ask again."""
    id = parse_instance_id(subject.instance.id)
    at_wall = time.time() if now_wall is None else now_wall
    with open_shelf(root, id, create=True) as shelf:
        sweep_unfinished(shelf)
        try:
            with doing("make a snapshot in", shelf.path):
                shelf.make(MAKING, OURS)
                failpoint("snapshot_begun")
                with shelf.inner(MAKING) as making:
                    manifest = _fill(root, subject, making, at_wall, tick)
                failpoint("snapshot_verified")
                tick(0)
                name = next_name(shelf.names(), at_wall)
                shelf.move(MAKING, name)
                failpoint("snapshot_visible")
                shelf.sync()
        finally:
            with suppress(OSError):
                shutil.rmtree(MAKING, dir_fd=shelf.fd)
    return Snapshot(name, shelf.path / name, id, manifest)


def _fill(root: Path, subject: Subject, making: Folder, at_wall: float, tick: Tick) -> Manifest:
    said = by_name(subject)
    instance = said.pop("instance")
    making.make(FILES, OURS)
    with making.inner(FILES) as files:
        listing = _copy_unchanged(root, instance, files, tick)
        failpoint("snapshot_copied")
        # The copy is checked, not the original: a restored session uses the copy.
        report = inspect_session(files, instance.engine, subject.paired, OURS)
        said |= {its: getattr(instance, its) for its in _OF_INSTANCE}
        lineage = lineage_of(root / instance.id)
        manifest = Manifest(
            **said, taken_wall=at_wall, state=report.files, listing=listing, lineage=lineage
        )
        read_back(files, listing, tick)
    making.write(FILE, render_manifest(manifest))
    failpoint("snapshot_manifest")
    return manifest


def _copy_unchanged(root: Path, instance: Instance, target: Folder, tick: Tick) -> Listing:
    """Copy while nothing changes, or not at all."""
    id, engine = instance.id, instance.engine
    path = root / id / SESSION
    with open_instance(root, id) as folder:
        if folder.is_empty(SESSION):
            raise Refused(f"cannot copy the session of {id}: it has none yet", code="no_session")
        with folder.inner(SESSION) as source:
            if place := file_rules(engine).outside(source):
                raise Refused(
                    f"cannot copy the session of {id}: its program keeps it in {place}, which is in"
                    " no copy; keep a copy of that place yourself",
                    code=OUTSIDE,
                )
            try:
                before = signatures(source, engine)
                _check_room(root, before)
                listing = copy_tree(source, target, engine, OURS, tick)
                after = signatures(source, engine)
                moved = os.fstat(source.fd).st_ino != path.lstat().st_ino
            except (VaultError, FileNotFoundError) as error:
                if isinstance(error, VaultError) and error.code != "absent":
                    raise
                raise _changing(id, f"something in {path} went away meanwhile") from error
    changed = [its for its in before.keys() | after if before.get(its) != after.get(its)]
    if moved or changed:
        raise _changing(id, f"{path if moved else path / min(changed)} changed meanwhile")
    if not listing.files:
        raise Refused(f"cannot copy the session of {id}: it has no files yet", code="no_session")
    return listing


def _changing(id: InstanceId, cause: str) -> VaultError:
    return VaultError(f"cannot copy the session of {id}: {cause}", code="changing")


def _check_room(root: Path, signed: dict[str, Signature]) -> None:
    sizes = {path: signature[1] for path, signature in signed.items() if len(signature) > 1}
    need = sum(sizes.values())
    problem, code = look_for_room(root).problem(need, len(signed)), "disk_full"
    if need > LARGEST:
        path, code = max(sizes, key=sizes.__getitem__), "too_large"
        problem = f"its files have {need >> 20} MiB together, no session has {LARGEST >> 20}"
        problem += f"; the largest is {path}"
    if problem:
        raise VaultError(f"cannot copy a session in {root}: {problem}", code=code)
