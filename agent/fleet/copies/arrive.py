"""A sealed copy becomes a session's folder: opened, unpacked apart, checked, put in place."""

import io
import os
from dataclasses import dataclass, replace
from pathlib import Path

from agent.core.model import Instance, InstanceId, SessionFiles, parse_instance_id
from agent.engines.catalog import file_rules
from agent.errors import TooLarge, TryLater, VaultError
from agent.fleet.coordinator import Owned, Stored
from agent.fleet.copies.beside import put_beside
from agent.fleet.copies.change import with_changes
from agent.fleet.copies.take import LARGEST_SEALED, LIMITS
from agent.fleet.key import FleetKey, change_context, copy_context
from agent.instance_file import NAME, parse_object
from agent.vault.archives.unpack import unpack
from agent.vault.atomic import read_plain_file
from agent.vault.copies.manifest import Manifest
from agent.vault.copies.staging import Kind, discard, put_in_place, staged
from agent.vault.identity import Identity, new_lineage
from agent.vault.locate import open_instance
from agent.vault.trash import Retired

EPOCH = "fleet_epoch"
"""Key of the identity file: the epoch in which this machine got the folder; missing = 0."""
KIND: Kind = "arrival"
"""Bytes that a seal adds at most."""


@dataclass(frozen=True, slots=True)
class Placed:
    identity: Identity
    retired: Retired | None
    """What was there from an earlier ownership."""


def epoch_here(root: Path, id: InstanceId) -> int | None:
    """In which epoch the folder came here; None: there is none, -1: it does not say.

    One that never moved, and one of before this machine joined the fleet, is of epoch 0.
    """
    if not os.path.lexists(root / id):
        return None
    try:
        with open_instance(root, id) as fd:
            identity = parse_object(read_plain_file(root / id, fd, NAME))
    except (ValueError, VaultError):
        return -1
    epoch = identity.get(EPOCH, 0) if identity.get("leased") else 0
    return epoch if isinstance(epoch, int) else -1


def open_copy(owned: Owned, stored: Stored, key: FleetKey) -> bytes:
    """What was sealed; VaultError for all that is not the copy of this session and its epoch."""
    if stored.epoch > owned.epoch:
        raise TryLater(
            f"cannot fetch {owned.id}: its copy is of epoch {stored.epoch}, and this machine has"
            f" it in epoch {owned.epoch}; another machine owns it by now",
            code="copy_newer",
        )
    if stored.number < owned.copy:
        raise TryLater(
            f"cannot fetch {owned.id}: its copy has number {stored.number}, and number {owned.copy}"
            " was stored: the database lost records",
            code="copy_older",
        )
    if len(stored.packed) > LARGEST_SEALED:
        raise TooLarge(
            f"cannot fetch {owned.id}: its copy has {len(stored.packed)} bytes, and"
            f" {LARGEST_SEALED} are allowed",
            code="copy_too_large",
        )
    archive = key.open(copy_context(owned.id, stored.epoch), stored.packed)
    changes, before = [], None
    for number, after, packed in stored.changes:
        if before not in (None, after):
            raise VaultError(
                f"cannot fetch {owned.id}: a change after number {before} is missing",
                code="damaged",
            )
        changes.append(key.open(change_context(owned.id, stored.epoch, number, after), packed))
        before = number
    return with_changes(archive, changes, LIMITS) if changes else archive


def place_archive(root: Path, owned: Owned, archive: bytes, beside: Path | None = None) -> Placed:
    """Unpack it apart, check it, and put it in place; nothing is left behind where that fails."""
    id = parse_instance_id(owned.id)
    arrived = unpack(root, io.BytesIO(archive), id, LIMITS, kind=KIND)
    manifest = arrived.manifest
    try:
        check_manifest(owned, manifest, arrived.state)
        return put_arrival(root, owned, manifest, beside)
    finally:
        discard(root, id, KIND)


def place_empty(root: Path, owned: Owned, beside: Path | None = None) -> Placed:
    """The folder of a session that never paired."""
    with staged(root, parse_instance_id(owned.id), KIND):
        pass
    return put_arrival(root, owned, None, beside)


def check_manifest(owned: Owned, manifest: Manifest, state: SessionFiles) -> None:
    if (manifest.id, manifest.engine) != (owned.id, owned.engine):
        raise VaultError(
            f"cannot use the copy of {owned.id}, engine {owned.engine}: it holds"
            f" {manifest.id}, engine {manifest.engine}",
            code="damaged",
        )
    if not manifest.paired:
        return
    problem = file_rules(owned.engine).lacks([file.path for file in manifest.listing.files])
    if state is not SessionFiles.WHOLE:
        problem = f"its session is {state}"
    if problem:
        raise VaultError(f"cannot use the copy of {owned.id}: {problem}", code="not_whole")


def put_arrival(
    root: Path, owned: Owned, manifest: Manifest | None, beside: Path | None = None
) -> Placed:
    """Give what was staged its identity and its place; what is there goes to the trash. `beside`:
    the room with what goes beside its files."""
    instance = Instance(
        parse_instance_id(owned.id),
        owned.engine,
        owned.wanted != "disabled",
        owned.settings,
        leased=True,
    )
    identity = Identity(instance)
    if manifest is not None:
        identity = Identity(
            replace(instance, created_wall=manifest.created_wall),
            manifest.paired,
            manifest.account,
            manifest.lineage,
            manifest.ended,
            needs_passkey=manifest.needs_passkey,
        )
    if beside is not None:
        put_beside(root, instance.id, beside, f"{instance.id}.{KIND}")
    retired = put_in_place(
        root,
        KIND,
        identity,
        lineage=identity.lineage or new_lineage(),
        why=f"a newer copy arrived in epoch {owned.epoch} of the fleet",
        replace=True,
        others={EPOCH: owned.epoch},
    )
    return Placed(identity, retired)
