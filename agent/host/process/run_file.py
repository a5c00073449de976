"""The note in a worker's run folder by which the next agent finds and adopts it."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

from agent.files import write_whole

_NAME = "run.json"


@dataclass(frozen=True, slots=True)
class RunNote:
    pid: int
    start_ticks: int
    run: str
    boot: str
    ready: bool
    restarts: int = 0
    sessions: str = ""
    """The folder of all sessions, as the worker was told it."""


def write_note(folder: Path, note: RunNote) -> None:
    """Whole or not at all. Not synced: after a power cut there is no process to find."""
    raw = json.dumps({name: getattr(note, name) for name in RunNote.__slots__}).encode()
    write_whole(folder / _NAME, raw, durable=False)


def read_note(folder: Path) -> RunNote | None:
    """None when there is none that makes sense."""
    try:
        raw = json.loads((folder / _NAME).read_text(encoding="utf-8"))
        note = RunNote(
            pid=raw["pid"],
            start_ticks=raw["start_ticks"],
            run=raw["run"],
            boot=raw["boot"],
            ready=raw["ready"],
            restarts=raw["restarts"],
            sessions=str(raw["sessions"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = all(type(number) is int for number in (note.pid, note.start_ticks, note.restarts))
    return note if whole and note.pid > 1 and isinstance(note.run, str) else None


def remove_note(folder: Path) -> None:
    # On a disk that takes no change it stays, and names a process that is gone.
    with contextlib.suppress(OSError):
        (folder / _NAME).unlink()
