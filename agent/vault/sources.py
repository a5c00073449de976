"""What `import` can read: each source's name, and how a path becomes one of our archives.

What takes in another program's layout packs the folder with `archive.pack` and a manifest of
its own; from there on every check of an import holds for it too.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from agent.errors import InvalidRequest

Open = Callable[[Path], IO[bytes]]
"""Gives the archive, to be read from its beginning."""

OURS = "wa-agent"


def open_archive(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise InvalidRequest(
            f"cannot read {path}: {error.strerror or error}", field="archive"
        ) from error


SOURCES: Mapping[str, Open] = {OURS: open_archive}
