"""A browser profile goes through restic: the copy in the database names its snapshot there."""

import asyncio
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from agent.core.model import InstanceId, parse_instance_id
from agent.errors import VaultError
from agent.fleet.coordinator import Owned
from agent.fleet.copies.arrive import KIND, Placed, check_manifest, put_arrival
from agent.fleet.copies.restic import Restic
from agent.vault.copies.restore import stage_snapshot
from agent.vault.copies.snapshots import (
    FILES,
    Snapshot,
    find_snapshot,
    open_shelf,
    sweep_unfinished,
)
from agent.vault.copies.staging import discard
from agent.vault.errors import explain
from agent.vault.folders import MAKING, OURS, next_name
from agent.vault.locate import make_folder, names_in


@dataclass(frozen=True, slots=True)
class Pointer:
    """Where a profile lies: restic's snapshot, which holds one of the vault's."""

    snapshot: str
    """"" = it never paired, and there is nothing to bring."""
    name: str
    """Of the vault's snapshot on the machine that saved it."""


NOTHING = Pointer("", "")


def render_pointer(pointer: Pointer) -> bytes:
    return json.dumps({"snapshot": pointer.snapshot, "name": pointer.name}).encode()


def parse_pointer(raw: bytes) -> Pointer:
    """It was sealed with the fleet's key, and is checked all the same."""
    try:
        fields = json.loads(raw)
        pointer = Pointer(str(fields["snapshot"]), str(fields["name"]))
    except (ValueError, KeyError, TypeError) as error:
        raise VaultError(
            "cannot use the stored copy: it names no snapshot", code="damaged"
        ) from error
    if pointer.snapshot and not pointer.snapshot.isalnum():
        raise VaultError("cannot use the stored copy: it names no snapshot", code="damaged")
    return pointer


async def save_profile(restic: Restic, snapshot: Snapshot, epoch: int, *, exact: bool) -> Pointer:
    """`exact`: all of it was read back from the repository."""
    assert snapshot.manifest is not None
    saved = await restic.save(snapshot.path, snapshot.id, epoch)
    if exact:
        await restic.verify(saved, f"{FILES}/", snapshot.manifest.listing)
    return Pointer(saved, snapshot.name)


async def place_profile(
    root: Path, owned: Owned, restic: Restic, pointer: Pointer, beside: Path | None = None
) -> Placed:
    """Fetch the snapshot, check each file against its manifest, and put it in place."""
    id = parse_instance_id(owned.id)
    target = await asyncio.to_thread(_make_room, root, id)
    try:
        await restic.restore(pointer.snapshot, target)
        return await asyncio.to_thread(_place, root, owned, beside)
    finally:
        await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)


def _make_room(root: Path, id: InstanceId) -> Path:
    with open_shelf(root, id, create=True) as shelf:
        sweep_unfinished(shelf)
        make_folder(shelf.path / MAKING, MAKING, shelf.fd, OURS)
        return shelf.path / MAKING


def _place(root: Path, owned: Owned, beside: Path | None) -> Placed:
    """It becomes one of this machine's snapshots, and the session is restored from that."""
    id = parse_instance_id(owned.id)
    with open_shelf(root, id) as shelf:
        name = next_name(names_in(shelf.fd), time.time())
        try:
            os.rename(MAKING, name, src_dir_fd=shelf.fd, dst_dir_fd=shelf.fd)
        except OSError as error:
            raise explain("put a snapshot into", shelf.path, error) from error
    manifest = stage_snapshot(root, find_snapshot(root, id, name), KIND)
    try:
        check_manifest(owned, manifest, manifest.state)
        return put_arrival(root, owned, manifest, beside)
    finally:
        discard(root, id, KIND)
