"""Up to when the messages of each session were compared with its server's store: one small file
per backend. Where it is lost, or older than it should be, more is compared."""

import asyncio
import json
import logging
from pathlib import Path

from agent.files import write_whole

log = logging.getLogger(__name__)


class MarksFile:
    """Made inside a running loop. Unix seconds by the session's name on the server."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._marks = _read(path)
        self._writing: asyncio.Task[None] | None = None
        self._changed = False

    def get(self, name: str) -> float | None:
        return self._marks.get(name)

    def put(self, name: str, wall: float) -> None:
        self._marks[name] = wall
        self._write_soon()

    def forget(self, name: str) -> None:
        if self._marks.pop(name, None) is not None:
            self._write_soon()

    async def close(self) -> None:
        if self._writing is not None:
            await self._writing

    def _write_soon(self) -> None:
        self._changed = True
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="remember comparisons")

    async def _write(self) -> None:
        try:
            while self._changed:
                self._changed = False
                await asyncio.to_thread(_write, self._path, json.dumps(self._marks))
        except OSError as error:
            log.warning("cannot write %s: %s", self._path, error.strerror)
        finally:
            self._writing = None


def _read(path: Path) -> dict[str, float]:
    try:
        raw = json.loads(path.read_text())
        return {name: float(wall) for name, wall in raw.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("cannot read %s, starting without it: %s", path, type(error).__name__)
        return {}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())
