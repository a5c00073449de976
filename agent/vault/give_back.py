"""Files that lay beside a pairing which ended, and are none of it: they leave the trash again."""

import os
from contextlib import suppress
from pathlib import Path

from agent.core.model import InstanceId, parse_instance_id
from agent.vault.folders import open_own
from agent.vault.formats import names_not_of
from agent.vault.locate import SESSION, names_in, open_folder
from agent.vault.trash import TRASH


def give_back(root: Path, retired: str, id: InstanceId, engine: str, account: str) -> list[str]:
    """Files of a program's own, which are none of the pairing that ended, are in the session's new
    folder again: their names."""
    old, new = root / TRASH / retired / SESSION, root / parse_instance_id(id) / SESSION
    back = []
    with (
        open_own(root, TRASH, shared=True) as (root_fd, trash_fd),
        open_folder(old.parent, retired, trash_fd) as old_fd,
        open_folder(old, SESSION, old_fd) as source,
        open_folder(new.parent, id, root_fd) as new_fd,
        open_folder(new, SESSION, new_fd) as target,
    ):
        there = set(names_in(target))
        for name in names_not_of(old, source, engine, account):
            # A folder of another user's that this one may not write to stays in the trash.
            if name not in there:
                with suppress(OSError):
                    os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
                    back.append(name)
        if back:
            os.fsync(target)
            os.fsync(source)
    return back
