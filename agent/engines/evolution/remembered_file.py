"""What the next worker must know of the sessions of one backend, in small files that are written on
a change. Where one is lost, or older than it should be, more is asked of the server."""

import asyncio
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.files import write_whole

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SessionNote:
    """Never that a session was unpaired: a phone may have scanned a code since. Never a code, only
    its mark."""

    paired: bool = False
    account: str = ""
    scanned: str = ""
    """The mark of the last code before it opened, which the server may go on showing."""


class SessionNotes:
    """Notes by the session's name on the server, for servers whose list does not tell what a note
    says. Made inside a running loop. Without a readable file it begins empty and logs that."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._notes = _read(path)
        self._writing: asyncio.Task[None] | None = None
        self._changed = False

    def get(self, name: str) -> SessionNote | None:
        return self._notes.get(name)

    def put(self, name: str, note: SessionNote) -> None:
        if self._notes.get(name, SessionNote()) == note:
            return
        self._notes[name] = note
        self._changed = True
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name=f"write {self._path.name}")

    async def close(self) -> None:
        if self._writing is not None:
            await self._writing

    async def _write(self) -> None:
        try:
            while self._changed:
                self._changed = False
                shown = {name: asdict(note) for name, note in self._notes.items()}
                await asyncio.to_thread(_write, self._path, json.dumps(shown))
        except OSError as error:
            log.warning("cannot write %s: %s", self._path, error.strerror)
        finally:
            self._writing = None


def _read(path: Path) -> dict[str, SessionNote]:
    try:
        return {
            name: SessionNote(raw["paired"] is True, str(raw["account"]), str(raw["scanned"]))
            for name, raw in json.loads(path.read_text()).items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("cannot read %s, starting without it: %s", path, type(error).__name__)
        return {}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())
