"""A snapshot becomes the session again: copied apart, checked, and put in place in one rename."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.core.model import Instance, SessionFiles
from agent.engines.catalog import file_rules
from agent.errors import Refused, VaultError
from agent.failpoint import failpoint
from agent.vault.check import inspect
from agent.vault.copies.manifest import Manifest
from agent.vault.copies.snapshots import Snapshot, is_of_present, open_files
from agent.vault.copies.staging import put_in_place, staged
from agent.vault.folder import SESSION, open_instance, open_root
from agent.vault.free_space import look_for_room
from agent.vault.identity import Identity, lineage_of, new_lineage
from agent.vault.trash import Retired
from agent.vault.tree import Tick, add_all, no_tick, read_back, read_checked
from agent.vault.walk import walk

BLOCK, SPARE = 4096, 64 << 10
"""Bytes that each entry takes at least, and for what is written beside them."""


@dataclass(frozen=True, slots=True)
class Restored:
    snapshot: Snapshot
    manifest: Manifest
    retired: Retired | None
    """The session that was there before."""


def refuse_roll_back(root: Path, instance: Instance, snapshot: Snapshot) -> None:
    """Refused when this snapshot would do harm and `force` was not given."""
    manifest = snapshot.manifest
    if manifest is None:
        raise VaultError(snapshot.problem, code="damaged")
    code, cause = _harm(root, instance, snapshot, manifest)
    if code:
        raise Refused(f"cannot restore {snapshot.name} of {instance.id}: {cause}", code=code)


def _harm(
    root: Path, instance: Instance, snapshot: Snapshot, manifest: Manifest
) -> tuple[str, str]:
    if manifest.engine != instance.engine:
        return "other_engine", f"it is of engine {manifest.engine}, not {instance.engine}"
    if manifest.state is not SessionFiles.WHOLE:
        return "not_good", f"its files are {manifest.state}; it was made as evidence"
    if not is_of_present(root, snapshot):
        return "other_session", "it is of an earlier session of that name, which ended since"
    if not file_rules(instance.engine).key_based:
        return "", ""
    report = inspect(root / instance.id, instance.engine)
    gone = report.files in (SessionFiles.ABSENT, SessionFiles.UNPAIRED)
    if gone or not _is_newer(root, instance, manifest):
        return "", ""
    is_damaged = report.files is SessionFiles.DAMAGED
    present = f"has damaged files ({report.problem})" if is_damaged else "is newer"
    return "newer_session", (
        f"the present session {present}, and keys that go back in time cost each contact a retry."
        " --force puts the snapshot back all the same; the trash keeps the present files"
    )


def _is_newer(root: Path, instance: Instance, manifest: Manifest) -> bool:
    """True if the present session changed since the snapshot."""
    listed = {file.path: file for file in manifest.listing.files}
    with open_instance(root, instance.id, SESSION) as session:
        entries = walk(session, instance.engine, "read")
        if {entry.path for entry in entries if not entry.is_folder} != set(listed):
            return True
        try:
            for file in listed.values():
                for _ in read_checked(session, file):
                    pass
        except VaultError as error:
            if error.code != "damaged":
                raise
            return True
    return False


def must_have_room(root: Path, snapshot: Snapshot) -> None:
    """VaultError where a copy would not fit. Asked before a worker is stopped for it."""
    if snapshot.manifest is None:
        return
    need = (listing := snapshot.manifest.listing).size + len(listing) * BLOCK + SPARE
    # The reserve of other operations may be used for it: a session waits.
    if problem := look_for_room(root).problem(need, len(listing), least=0):
        what = f"cannot restore snapshot {snapshot.name} of {snapshot.id}"
        raise VaultError(f"{what}: {problem}", code="disk_full")


def restore_snapshot(
    root: Path,
    instance: Instance,
    snapshot: Snapshot,
    why: str,
    *,
    needs_passkey: bool = False,
    tick: Tick = no_tick,
) -> Restored:
    """The worker must not run. The present folder goes to the trash; the identity stays."""
    manifest = _stage(root, snapshot, tick)
    identity = Identity(instance, manifest.paired, manifest.account, needs_passkey=needs_passkey)
    tick(0)
    lineage = manifest.lineage or lineage_of(root / instance.id) or new_lineage()
    retired = put_in_place(root, "restore", identity, lineage=lineage, why=why, replace=True)
    return Restored(snapshot, manifest, retired)


def _stage(root: Path, snapshot: Snapshot, tick: Tick) -> Manifest:
    """Its session's files apart, each with the checksum of the manifest, and on the disk."""
    with (
        open_root(root) as top,
        staged(root, snapshot.id, "restore") as target,
        open_files(root, snapshot) as (source, manifest),
    ):
        add_all(target, manifest.listing, partial(read_checked, source), top.modes, tick)
        failpoint("restore_copied")
        read_back(target, manifest.listing, tick)
    return manifest
