"""An identity file with what a test names."""

from pathlib import Path

from agent.core.model import Instance
from agent.vault.identity import Identity, replace_identity


def write_identity(root: Path, instance: Instance, paired: bool, account: str) -> None:
    replace_identity(root, Identity(instance, paired, account))
