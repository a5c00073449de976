"""How long the agent has seen what it is going to delete, in seconds of its own count: by a wall
clock that is years ahead, all of it would be old at once."""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from agent.errors import VaultError
from agent.log import bound
from agent.vault.atomic import read_plain_file, write_atomically

FILE = "ages.json"

_log = bound(name=__name__)


def grow(folder: Path, folder_fd: int, names: Iterable[str], passed: float) -> dict[str, float]:
    """The age of each name, `passed` seconds after the last call; a new name begins with 0."""
    before = _read(folder, folder_fd)
    ages = {name: before[name] + passed if name in before else 0.0 for name in names}
    try:
        if not ages:
            with suppress(FileNotFoundError):
                os.unlink(FILE, dir_fd=folder_fd)
        elif ages != before:
            write_atomically(
                folder, folder_fd, FILE, json.dumps(ages).encode(), mode=0o600, with_points=False
            )
    except (VaultError, OSError) as error:
        _log.warning("what lies in %s does not grow older: %s", folder, error)
    return ages


def _read(folder: Path, folder_fd: int) -> dict[str, float]:
    """What cannot be read begins again: the agent deletes later then."""
    try:
        content = json.loads(read_plain_file(folder, folder_fd, FILE))
        return {str(name): float(age) for name, age in content.items()}
    except (VaultError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
