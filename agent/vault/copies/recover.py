"""The identity of a session whose database record and instance.json are both lost: from its newest
snapshot, else from its files. It comes back disabled: its settings may be old or missing."""

import os
from pathlib import Path

from agent.core.model import Instance, SessionFiles
from agent.engines.catalog import CATALOG, file_rules
from agent.instance_file import NAME
from agent.vault.check import look_at_session, read_linked
from agent.vault.copies.snapshots import list_snapshots
from agent.vault.folder import SESSION
from agent.vault.identity import OTHERS, Found, Identity

UNKNOWN = "unknown"
"""The engine of a session of which nothing tells it."""
_IN_MANIFEST = ("paired", "account", "lineage", "ended", "needs_passkey")


def recover_identity(root: Path, folder: Found) -> tuple[Identity, str] | None:
    """The identity, and a sentence on what it was taken from; None: the file is there and cannot be
    read at the moment, or the folder holds no session."""
    if folder.code not in (OTHERS, "absent", "damaged"):
        return None
    for snapshot in list_snapshots(root, folder.id):
        if (manifest := snapshot.manifest) is not None:
            instance = Instance(
                folder.id, manifest.engine, False, dict(manifest.settings), manifest.created_wall
            )
            same = {its: getattr(manifest, its) for its in _IN_MANIFEST}
            source = f"its engine and settings are those of snapshot {snapshot.name}"
            return Identity(instance, **same), source
    if len(engines := _engines_of(root / folder.id)) == 1:
        engine = engines[0]
        account = read_linked(root, folder.id, engine).account
        identity = Identity(Instance(folder.id, engine, False), paired=True, account=account)
        return identity, f"its files are of engine {engine}; its settings are lost"
    if not (root / folder.id / NAME).exists():
        return None
    identity = Identity(Instance(folder.id, UNKNOWN, False))
    return identity, "neither a snapshot nor its files tell its engine"


def _engines_of(folder: Path) -> list[str]:
    """The engines that find a session of theirs there, damaged or not, or its keys alone."""
    marks = {entry.name: file_rules(entry.name).mark for entry in CATALOG.values()}
    session = folder / SESSION
    if marked := [its for its, mark in marks.items() if mark and os.path.lexists(session / mark)]:
        return marked
    local = (entry.name for entry in CATALOG.values() if not entry.remote)
    theirs = (SessionFiles.WHOLE, SessionFiles.DAMAGED, SessionFiles.ABSENT)
    unmarked = (name for name in local if not marks[name])
    return [name for name in unmarked if look_at_session(folder, name).files in theirs]
