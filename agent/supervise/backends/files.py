"""The folder of one backend: for what its kind of server keeps here."""

import os
from pathlib import Path

from agent.core.model import InstanceId, parse_instance_id
from agent.vault.locate import make_folder, modes_of, open_root


def make_backend_folder(root: Path, name: InstanceId) -> None:
    with open_root(root, create=True) as root_fd:
        if make_folder(root / parse_instance_id(name), name, root_fd, modes_of(root_fd)):
            os.fsync(root_fd)
