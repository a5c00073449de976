"""What the next worker must know of the sessions of one backend, in small files that are written on
a change. Where one is lost, or older than it should be, more is asked of the server."""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from agent.files import write_whole

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SessionNote:
    """Never that a session was unpaired: a phone may have scanned a code since. Never a code, only
    its mark."""

    paired: bool = False
    account: str = ""
    scanned: str = ""
    """The mark of the last code before it opened, which the server may go on showing."""


class RememberedFile(Generic[T]):
    """A value by the session's name on the server. Made inside a running loop. Without a readable
    file it begins empty and logs that."""

    def __init__(
        self,
        path: Path,
        read: Callable[[Any], T],
        show: Callable[[T], Any],
        plain: T | None = None,
    ) -> None:
        """`plain`: what a session without a value has, and needs none for."""
        self._path = path
        self._show = show
        self._plain = plain
        self._values = _read(path, read)
        self._writing: asyncio.Task[None] | None = None
        self._changed = False

    def get(self, name: str) -> T | None:
        return self._values.get(name)

    def put(self, name: str, value: T) -> None:
        if self._values.get(name, self._plain) == value:
            return
        self._values[name] = value
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
                shown = {name: self._show(value) for name, value in self._values.items()}
                await asyncio.to_thread(_write, self._path, json.dumps(shown))
        except OSError as error:
            log.warning("cannot write %s: %s", self._path, error.strerror)
        finally:
            self._writing = None


def open_notes(path: Path) -> RememberedFile[SessionNote]:
    """Of sessions, for servers whose list does not have what a note says."""
    return RememberedFile(path, _read_note, asdict, SessionNote())


def open_marks(path: Path) -> RememberedFile[float]:
    """Up to when, in Unix seconds, a session's messages were compared with its server's store."""
    return RememberedFile(path, float, float)


def _read_note(raw: Any) -> SessionNote:
    return SessionNote(raw["paired"] is True, str(raw["account"]), str(raw["scanned"]))


def _read(path: Path, read: Callable[[Any], T]) -> dict[str, T]:
    try:
        return {name: read(raw) for name, raw in json.loads(path.read_text()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("cannot read %s, starting without it: %s", path, type(error).__name__)
        return {}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())
