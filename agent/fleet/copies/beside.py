"""What goes beside the files of a session that arrives: made in a room of its own, then put into
the folder that is being made, before that gets its place."""

import os
from pathlib import Path

from agent.core.model import InstanceId
from agent.vault.errors import explain
from agent.vault.folders import STAGING, doom, open_own
from agent.vault.locate import Modes, make_folder, modes_of, names_in, open_folder
from agent.wing import kept_folders

_ROOM = "beside"
OLDER = "older"
"""What the folder of before is named, which goes to the trash with the files that it was beside."""


def make_room(root: Path, id: InstanceId) -> tuple[Path, Modes]:
    """An empty one; what is put there gets these modes."""
    name = f"{id}.{_ROOM}"
    with open_own(root, STAGING) as (root_fd, staging_fd):
        modes = modes_of(root_fd)
        if name in names_in(staging_fd):
            doom(root / STAGING, name, staging_fd)
        make_folder(root / STAGING / name, name, staging_fd, modes)
    return root / STAGING / name, modes


def put_beside(root: Path, id: InstanceId, room: Path, staged: str) -> None:
    """Move all that is in the room into the folder `staged` of the same place. Folders of these
    names that the session has already make way."""
    try:
        with (
            open_own(root, STAGING) as (_, staging_fd),
            open_folder(room, room.name, staging_fd) as from_fd,
            open_folder(root / STAGING / staged, staged, staging_fd) as to_fd,
        ):
            for name in names_in(from_fd):
                if name in kept_folders() and os.path.lexists(root / id / name):
                    (root / id / name).rename(root / id / f"{name}.{OLDER}")
                os.rename(name, name, src_dir_fd=from_fd, dst_dir_fd=to_fd)
            os.fsync(to_fd)
    except OSError as error:
        raise explain("put in place", root / id, error) from error


def remove_room(room: Path) -> None:
    root = room.parent.parent
    with open_own(root, STAGING) as (_, staging_fd):
        if room.name in names_in(staging_fd):
            doom(room.parent, room.name, staging_fd)
