"""Files of messages that are too long for a row: beside the database, for this user only, read in
parts."""

import base64
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from agent.errors import StoreError
from agent.files import open_plain, write_whole

FOLDER = "outbox"
LONGEST_INSIDE = 256 * 1024
"""Characters of base64 that a row may hold."""


class OutboxFiles:
    """Each method works on the disk: call them in a thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, content: str) -> int:
        """Keep a file that came as base64; its bytes."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            raw = base64.b64decode(content)
            write_whole(self.folder / name, raw)
        except OSError as error:
            full = error.errno in (28, 122)
            raise StoreError(
                f"cannot keep the file of a message in {self.folder}: {error.strerror}",
                code="disk_full" if full else "store",
            ) from error
        return len(raw)

    def read(self, name: str) -> bytes:
        try:
            with open_plain(self.folder / name) as file:
                return file.read()
        except OSError as error:
            why = f"cannot read the file of a message: {error.strerror}"
            raise StoreError(why, code="unreadable") from error

    def remove(self, *names: str) -> None:
        for name in filter(None, names):
            with suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)

    def remove_others(self, used: Collection[str]) -> None:
        """What a kill left: files of no message."""
        for path in self._all():
            if path.name not in used:
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def _all(self) -> Iterator[Path]:
        try:
            with os.scandir(self.folder) as found:
                yield from [Path(entry.path) for entry in found if entry.is_file()]
        except OSError:
            return
