"""What the worker of a backend keeps of one session, in the backend's folder: the folders of wings.
It goes where the session itself goes."""

import os
from pathlib import Path

from agent.core.model import InstanceId, parse_instance_id
from agent.errors import VaultError
from agent.supervise.backends.files import SESSIONS
from agent.vault.errors import explain
from agent.vault.locate import names_in, open_folder, open_instance, open_root
from agent.wing import kept_folders


def bring_kept(root: Path, backend: InstanceId, session_root: Path, id: InstanceId) -> None:
    """Into the session's own folder, which is on its way to the trash. The worker has let go of the
    session. What lies there already stays there."""
    mine = root / backend / SESSIONS / parse_instance_id(id)
    try:
        with (
            open_root(root) as root_fd,
            open_folder(root / backend, backend, root_fd) as backend_fd,
            open_folder(mine.parent, SESSIONS, backend_fd) as all_fd,
            open_folder(mine, id, all_fd) as from_fd,
            open_instance(session_root, id) as to_fd,
        ):
            there = set(names_in(from_fd)) & set(kept_folders()) - set(names_in(to_fd))
            for name in there:
                os.rename(name, name, src_dir_fd=from_fd, dst_dir_fd=to_fd)
            if not names_in(from_fd):
                os.rmdir(id, dir_fd=all_fd)
    except VaultError as error:
        if error.code != "absent":
            raise
    except OSError as error:
        raise explain("bring", mine, error) from error
