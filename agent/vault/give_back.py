"""Files that lay beside a pairing which ended, and are none of it: they leave the trash again.
Their names go into the trash with them, so that a kill in between costs nothing."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from agent.core.model import InstanceId, parse_instance_id
from agent.vault.atomic import read_plain_file, write_atomically
from agent.vault.folders import open_own
from agent.vault.formats import names_not_of
from agent.vault.locate import SESSION, modes_of, names_in, open_folder, open_root
from agent.vault.trash import TRASH, list_trash

MARK = "give_back.json"


def note_own_files(root: Path, id: InstanceId, engine: str, account: str) -> None:
    """Before its folder is retired."""
    path = root / parse_instance_id(id)
    with open_root(root) as root_fd, open_folder(path, id, root_fd) as fd:
        modes = modes_of(root_fd)
        with open_folder(path / SESSION, SESSION, fd) as session:
            names = names_not_of(path / SESSION, session, engine, account)
        if names:
            raw = json.dumps(sorted(names)).encode()
            write_atomically(path, fd, MARK, raw, mode=modes.file, group=modes.group)


def give_back(root: Path, id: InstanceId) -> list[str]:
    """Into the session's new folder, from each retired one that still has some: their names."""
    back: list[str] = []
    for retired in list_trash(root):
        if retired.id == id and (retired.path / MARK).exists():
            back += _from(root, retired.name, id)
    return back


def _from(root: Path, retired: str, id: InstanceId) -> Iterator[str]:
    old, new = root / TRASH / retired, root / parse_instance_id(id)
    with (
        open_own(root, TRASH, shared=True) as (root_fd, trash_fd),
        open_folder(old, retired, trash_fd) as old_fd,
        open_folder(old / SESSION, SESSION, old_fd) as source,
        open_folder(new, id, root_fd) as new_fd,
        open_folder(new / SESSION, SESSION, new_fd) as target,
    ):
        there = set(names_in(target))
        for name in _noted(old, old_fd):
            # A folder of another user's that this one may not write to stays in the trash.
            if name not in there:
                with suppress(OSError):
                    os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
                    yield name
        os.fsync(target)
        os.fsync(source)
        os.unlink(MARK, dir_fd=old_fd)


def _noted(path: Path, fd: int) -> list[str]:
    try:
        names = json.loads(read_plain_file(path, fd, MARK))
    except (ValueError, RecursionError):
        return []
    known = names if isinstance(names, list) else []
    return [name for name in known if isinstance(name, str) and Path(name).name == name != ".."]
