"""A session's folder was deleted or replaced under its live worker: notice and say it. Only that
worker has the pairing as it is now, so no plan may end it; a person may restore a snapshot, and
when the worker ends by itself, the newest snapshot takes the folder's place."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.core.words import SUSPECT
from agent.errors import Refused
from agent.supervise.facts import Facts
from agent.vault.folder import SESSION

CODE = "folder_lost"

Inodes = Mapping[str, int]
"""Of an instance's folder and of the session in it, as far as they exist."""


def inodes_of(folder: Path) -> Inodes:
    """Of the entries at an instance's path now; missing ones are left out."""
    inodes = {}
    for name, path in (("folder", folder), ("session", folder / SESSION)):
        with suppress(OSError):
            inodes[name] = path.lstat().st_ino
    return inodes


def compare_folder(facts: Facts, raw: object, here: Inodes) -> None:
    """Compare the folder that a probe says its worker has with the one at its path."""
    folders = raw if isinstance(raw, Mapping) else {}
    inodes, deleted = _numbers(folders.get("inodes")), folders.get("deleted")
    gone = [name for name in inodes if isinstance(deleted, list) and name in deleted]
    other = [name for name, inode in inodes.items() if here.get(name) != inode]
    facts.run.folder_deleted = bool(gone)
    if gone:
        facts.run.folder_lost = f"its {gone[0]} was deleted under its worker"
    elif other:
        facts.run.folder_lost = f"its {other[0]} was moved away or replaced under its worker"
    else:
        facts.run.folder_lost = ""


def refuse_to_end(facts: Facts, doing: str) -> None:
    """Refuse an order that would end the worker with the only copy of the pairing."""
    if holds_the_only_copy(facts):
        raise Refused(
            f"cannot {doing} {facts.id}: {facts.run.folder_lost}, and only that worker still has"
            " the pairing; restore a snapshot in its place. To end the pairing all the same, log"
            " the session out or delete it",
            code=CODE,
        )


def holds_the_only_copy(facts: Facts) -> bool:
    claim = facts.run.claim
    lost = claim is not None and claim.claim.reason == SUSPECT  # its worker has it no more either
    return facts.run.folder_deleted and facts.unit.runs and facts.record.paired and not lost


def _numbers(raw: Any) -> dict[str, int]:
    if not isinstance(raw, Mapping):
        return {}
    return {name: ino for name, ino in raw.items() if type(ino) is int and isinstance(name, str)}
