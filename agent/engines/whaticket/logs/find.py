"""The log files of one source that are there now: a file, a folder's, or those of pm2."""

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from agent.engines.whaticket.keys.files import cause_of

MOST_FILES = 200
_ROTATED_BY_PM2 = re.compile(r"__\d{4}-\d\d-\d\d")


@dataclass(slots=True)
class LogFiles:
    files: list[tuple[str, os.stat_result]] = field(default_factory=list)
    trouble: str = ""
    """Why some of them cannot be read."""


def find_logs(kind: str, what: str) -> LogFiles:
    logs = LogFiles()
    for path in _paths(kind, what, logs):
        try:
            status = Path(path).stat()
        except OSError as error:
            if kind == "file":
                logs.trouble = unreadable(path, error)
            continue
        if stat.S_ISREG(status.st_mode):
            logs.files.append((path, status))
        elif kind == "file":
            logs.trouble = f"cannot read {path}: it is no file"
    if len(logs.files) > MOST_FILES:
        logs.trouble = f"cannot follow all of {what}: more than {MOST_FILES} files"
        logs.files = sorted(logs.files, key=lambda file: file[1].st_mtime)[-MOST_FILES:]
    return logs


def unreadable(path: str, error: OSError) -> str:
    return f"cannot read {path}: {cause_of(error)}"


def _paths(kind: str, what: str, logs: LogFiles) -> list[str]:
    if kind == "file":
        return [what]
    folder, app = (what, "") if kind == "folder" else _pm2_place(what)
    try:
        names = sorted(entry.name for entry in Path(folder).iterdir())
    except OSError as error:
        logs.trouble = unreadable(folder, error)
        return []
    return [str(Path(folder, name)) for name in names if _wants(kind, name, app)]


def _wants(kind: str, name: str, app: str) -> bool:
    if not name.endswith(".log") or name.startswith("."):
        return False
    if kind == "folder":
        return True
    if _ROTATED_BY_PM2.search(name):
        return False  # a copy of what was read already
    pattern = rf"{re.escape(app)}-(?:out|error)(?:-\d+)?\.log"
    return not app or re.fullmatch(pattern, name) is not None


def _pm2_place(what: str) -> tuple[str, str]:
    """`/home/x/.pm2/logs`, or the same with an app's name behind it."""
    if Path(what).is_dir():
        return what, ""
    return str(Path(what).parent), Path(what).name
