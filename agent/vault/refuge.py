"""Put a session that its worker saved elsewhere back in its place: its own folder was deleted."""

import os
from pathlib import Path

from agent.core.model import Instance, SessionFiles
from agent.errors import VaultError
from agent.vault.check import inspect_session
from agent.vault.formats import is_left_out
from agent.vault.identity import create
from agent.vault.locate import (
    SESSION,
    make_folder,
    modes_of,
    names_in,
    open_folder,
    open_instance,
    open_root,
)
from agent.vault.trash import retire
from agent.vault.tree import copy_tree, read_back
from agent.vault.walk import Open


def inodes_of(folder: Path) -> dict[str, int]:
    """Of the entries at an instance's path now; missing ones are left out."""
    inodes = {}
    for name, path in (("folder", f"{folder}"), ("session", f"{folder}/{SESSION}")):
        try:
            inodes[name] = os.stat(path, follow_symlinks=False).st_ino  # noqa: PTH116 - with each probe
        except OSError:
            continue
    return inodes


def bring_back(root: Path, instance: Instance, refuge: Path, *, paired: bool) -> str:
    """Copy a whole session from `refuge`; the folder in its place goes to the trash, by name."""
    path, retired = root / instance.id / SESSION, ""
    with open_root(refuge) as refuge_fd, open_root(root) as root_fd:
        modes = modes_of(root_fd)
        source = Open(refuge, refuge_fd)
        report = inspect_session(refuge, refuge_fd, instance.engine, paired, modes)
        if paired and report.files is not SessionFiles.WHOLE:
            raise VaultError(
                f"cannot use what the worker of {instance.id} saved: {report.files}"
                f" {report.problem}".rstrip(),
                code="damaged",
            )
        if _is_occupied(root, instance):
            retired = retire(root, instance.id, "stood in place of a live session").name
        if not (root / instance.id).exists():
            create(root, instance)
        with open_instance(root, instance.id) as fd:
            make_folder(path, SESSION, fd, modes)
            with open_folder(path, SESSION, fd) as session_fd:
                target = Open(path, session_fd)
                left_out = is_left_out(instance.engine)
                listing = copy_tree(source, target, excluded=left_out, modes=modes)
                read_back(target, listing)
                os.fsync(session_fd)
            os.fsync(fd)
    return retired


def _is_occupied(root: Path, instance: Instance) -> bool:
    try:
        with (
            open_instance(root, instance.id) as fd,
            open_folder(root / instance.id / SESSION, SESSION, fd) as session_fd,
        ):
            return bool(names_in(session_fd))
    except VaultError as error:
        if error.code == "absent":
            return False
        raise
