"""What the next worker must know of sessions, for servers whose list does not have it: one small
file per backend, written on a change; never a code, only its mark."""

import asyncio
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.files import write_whole

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SessionNote:
    """Never that a session was unpaired: a phone may have scanned a code since."""

    paired: bool = False
    account: str = ""
    scanned: str = ""
    """The mark of the last code before it opened, which the server may go on showing."""


class NotesFile:
    """Made inside a running loop. Without a readable file it begins empty and logs that."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sessions = _read(path)
        self._writing: asyncio.Task[None] | None = None
        self._changed = False

    def of(self, name: str) -> SessionNote | None:
        return self._sessions.get(name)

    def put(self, name: str, remembered: SessionNote) -> None:
        if self._sessions.get(name, SessionNote()) == remembered:
            return
        self._sessions[name] = remembered
        self._changed = True
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="remember sessions")

    async def close(self) -> None:
        if self._writing is not None:
            await self._writing

    async def _write(self) -> None:
        try:
            while self._changed:
                self._changed = False
                raw = {name: asdict(session) for name, session in self._sessions.items()}
                await asyncio.to_thread(_write, self._path, json.dumps(raw))
        except OSError as error:
            log.warning("cannot write %s: %s", self._path, error.strerror)
        finally:
            self._writing = None


def _read(path: Path) -> dict[str, SessionNote]:
    try:
        sessions = json.loads(path.read_text())
        return {name: _remembered(raw) for name, raw in sessions.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("cannot read %s, starting without it: %s", path, type(error).__name__)
        return {}


def _remembered(raw: dict[str, object]) -> SessionNote:
    return SessionNote(raw["paired"] is True, str(raw["account"]), str(raw["scanned"]))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())
