"""The folder of one backend: for what its kind of server keeps here."""

from pathlib import Path

from agent.core.model import InstanceId, parse_instance_id
from agent.vault.folder import open_root


def make_backend_folder(root: Path, name: InstanceId) -> None:
    with open_root(root, create=True) as top:
        if top.make(parse_instance_id(name), top.modes):
            top.sync()
