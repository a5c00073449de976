"""Keeps what the next worker must know of sessions, for servers whose list does not tell it.

One small file for a backend, written when something changed; never a code, only its mark.
"""

import asyncio
import json
import logging
from dataclasses import asdict
from pathlib import Path

from agent.engines.evolution.known import Remembered
from agent.files import write_whole

log = logging.getLogger(__name__)


class Memory:
    """Made inside a running loop. Without a readable file it begins empty and logs that."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read(path)
        self._writing: asyncio.Task[None] | None = None
        self._changed = False

    def of(self, name: str) -> Remembered | None:
        return self._known.get(name)

    def put(self, name: str, remembered: Remembered) -> None:
        if self._known.get(name, Remembered()) == remembered:
            return
        self._known[name] = remembered
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
                known = {name: asdict(each) for name, each in self._known.items()}
                await asyncio.to_thread(_write, self._path, json.dumps(known))
        except OSError as error:
            log.warning("cannot write the kept states of sessions: %s", error.strerror)
        finally:
            self._writing = None


def _read(path: Path) -> dict[str, Remembered]:
    try:
        found = json.loads(path.read_text())
        return {name: _remembered(each) for name, each in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("cannot read the kept states of sessions in %s: %s", path, type(error).__name__)
        return {}


def _remembered(told: dict[str, object]) -> Remembered:
    return Remembered(told["paired"] is True, str(told["account"]), str(told["scanned"]))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())
