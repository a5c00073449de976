"""The files audit.log, performance.log and repairs.log.

They hold the same lines as stderr does, without secrets, and whatever its level. A file that is
full is put aside under a number; a file that was moved away is created again.
"""

import logging
import os
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from agent.core.model import Category
from agent.log import as_json, as_text, describe

AUDIT = "agent.audit"
PERFORMANCE = "agent.performance"
"""Names of the loggers whose lines go into these files."""
_REPAIRS = frozenset({Category.RECOVERY, Category.RECONNECT, Category.CRYPTO, Category.MEMORY})


class FileWriter(RotatingFileHandler):
    """One file and its predecessors. It never raises."""

    def __init__(
        self,
        path: Path,
        form: str,
        *,
        max_bytes: int = 10 << 20,
        keep: int = 5,
        categories: frozenset[Category] = frozenset(),
    ) -> None:
        self._show, self._categories = as_json if form == "json" else as_text, categories
        super().__init__(path, maxBytes=max_bytes, backupCount=keep)
        self.setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        if self._categories and getattr(record, "wa_category", "") not in self._categories:
            return
        with suppress(OSError):
            if self.stream is not None and not self._is_in_place(self.stream):
                stream, self.stream = self.stream, self._open()
                stream.close()
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        return self._show(record, *describe(record))

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the error: a full disk must not end what was only to be noted."""

    def _open(self) -> TextIOWrapper:
        # Through a link in its place the agent would write into another file.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self.baseFilename, flags, 0o640)
        return TextIOWrapper(os.fdopen(fd, "ab"), "utf-8", "backslashreplace")

    def _is_in_place(self, stream: TextIOWrapper) -> bool:
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(stream.fileno()), os.lstat(self.baseFilename))
        return False


def open_files(folder: Path, form: str, repairs_name: str) -> None:
    """Open audit.log, performance.log and the log of repairs."""
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    for logger, name in ((AUDIT, "audit.log"), (PERFORMANCE, "performance.log")):
        logging.getLogger(logger).addHandler(FileWriter(folder / name, form))
    root = logging.getLogger()
    root.addHandler(FileWriter(folder / repairs_name, form, categories=_REPAIRS))
    # The handler of stderr keeps its own level; the files take INFO and above.
    root.setLevel(min(root.level, logging.INFO))
