"""The files audit.log, performance.log and repairs.log.

They hold the same lines as stderr does, without secrets, and whatever its level. A file that is
full is put aside under a number; a file that was moved away is created again.
"""

import logging
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from agent.core.model import Category
from agent.errors import ConfigError
from agent.log import as_json, as_text, describe

AUDIT = "agent.audit"
PERFORMANCE = "agent.performance"
"""The loggers whose lines go into these files, by name."""
_REPAIRS = frozenset({Category.RECOVERY, Category.RECONNECT, Category.CRYPTO, Category.MEMORY})


class FileWriter(logging.Handler):
    """One file and its predecessors. It never raises."""

    def __init__(
        self,
        path: Path,
        form: str,
        *,
        max_bytes: int,
        keep: int,
        categories: Collection[Category] = (),
    ) -> None:
        super().__init__(logging.INFO)
        self._path = path
        self._form = form
        self._max_bytes = max_bytes
        self._keep = keep
        self._categories = categories
        self._torn = False
        self._fd = -1
        self._open()

    def emit(self, record: logging.LogRecord) -> None:
        if self._categories and getattr(record, "wa_category", "") not in self._categories:
            return
        try:
            show = as_json if self._form == "json" else as_text
            line = show(record, *describe(record)) + "\n"
            self._write(line.encode("utf-8", "backslashreplace"))
        except Exception:  # a full disk must not end what was only to be noted
            pass

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()

    def _open(self) -> None:
        # Through a link in its place the agent would write into another file.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._path, flags, 0o640)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._torn = fd, False

    def _write(self, raw: bytes) -> None:
        status = os.fstat(self._fd)
        if not self._is_in_place(status):
            self._open()
        elif status.st_size and status.st_size + len(raw) > self._max_bytes:
            self._put_aside()
            self._open()
        if self._torn:
            raw = b"\n" + raw
        written = os.write(self._fd, raw)
        self._torn = written < len(raw)
        if self._torn:
            raise OSError("the disk took half a line")

    def _is_in_place(self, status: os.stat_result) -> bool:
        try:
            return os.path.samestat(status, self._path.lstat())
        except FileNotFoundError:
            return False

    def _put_aside(self) -> None:
        """file → file.1 → … → file.keep; the oldest is overwritten."""
        if self._keep == 0:
            self._path.unlink()
            return
        for number in range(self._keep - 1, 0, -1):
            with suppress(FileNotFoundError):
                self._numbered(number).rename(self._numbered(number + 1))
        self._path.rename(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def open_files(
    folder: Path, form: str, repairs_name: str, *, max_bytes: int = 10 << 20, keep: int = 5
) -> None:
    """audit.log, performance.log and the one of repairs, from now on."""
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        audit, performance, repairs = (
            FileWriter(folder / name, form, max_bytes=max_bytes, keep=keep, categories=categories)
            for name, categories in (
                ("audit.log", ()),
                ("performance.log", ()),
                (repairs_name, _REPAIRS),
            )
        )
    except OSError as error:
        raise ConfigError(
            f"cannot write log files in {folder}: {error}", field="log.folder"
        ) from error
    logging.getLogger(AUDIT).addHandler(audit)
    logging.getLogger(PERFORMANCE).addHandler(performance)
    root = logging.getLogger()
    root.addHandler(repairs)
    # The handler of stderr keeps its own level; the files take INFO and above.
    root.setLevel(min(root.level, logging.INFO))
