"""Files that lay beside a pairing which ended, and are none of it: they leave the trash again.
Their names go into the trash with them, so that a kill in between costs nothing."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from agent.core.model import InstanceId, parse_instance_id
from agent.engines.catalog import file_rules
from agent.vault.folder import SESSION, open_root
from agent.vault.folders import open_own
from agent.vault.trash import TRASH, list_trash

MARK = "give_back.json"


def note_own_files(root: Path, id: InstanceId, engine: str, account: str) -> None:
    """Before its folder is retired."""
    with open_root(root) as top, top.inner(parse_instance_id(id)) as folder:
        with folder.inner(SESSION) as session:
            names = file_rules(engine).not_of(session, account)
        if names:
            folder.write(MARK, json.dumps(sorted(names)).encode(), top.modes)


def give_back(root: Path, id: InstanceId) -> list[str]:
    """Into the session's new folder, from each retired one that still has some: their names."""
    back: list[str] = []
    for retired in list_trash(root):
        if retired.id == id and (retired.path / MARK).exists():
            back += _from(root, retired.name, id)
    return back


def _from(root: Path, retired: str, id: InstanceId) -> Iterator[str]:
    with (
        open_own(root, TRASH, shared=True) as (top, trash),
        trash.inner(retired) as old,
        old.inner(SESSION) as source,
        top.inner(id, SESSION) as target,
    ):
        noted: set[str] = set()
        with suppress(ValueError, TypeError, RecursionError):
            noted = set(json.loads(old.content(MARK)))
        for name in sorted(noted & set(source.names()) - set(target.names())):
            # A folder of another user's that this one may not write to stays in the trash.
            with suppress(OSError):
                source.move(name, name, target)
                yield name
        target.sync()
        source.sync()
        os.unlink(MARK, dir_fd=old.fd)
