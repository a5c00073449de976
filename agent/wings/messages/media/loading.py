"""Loads the files of messages from WhatsApp, some at a time, each into a file that is whole and
checked or not there. Whoever asked may go away: a load goes on."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, ParamSpec, Protocol, TypeVar

from agent.engines.base import Engine, LoadsMedia
from agent.engines.files import new_sha256
from agent.errors import EngineError
from agent.wings.messages.media.shelf import Shelf

P = ParamSpec("P")
T = TypeVar("T")

AT_ONCE = 2
WAITING = 32
"""Loads under way and waiting; more are refused."""
STILL = 100.0
"""Seconds without a piece after which a load ends."""
LONGEST = 900.0
"""Seconds of a whole load at most."""
GRACE = 120.0
"""Seconds of a whole load beside those of its bytes: a phone may have to give the file again."""
LEAST = 8 * 1024
"""Bytes a second. A load that is given up leaves its turn; asked for again, it stands last."""
FORGET_AFTER = 60.0
"""Seconds in which a failure that another try would not change is not tried again: each asks
WhatsApp, and perhaps the phone."""
MOST_FAILURES = 100
FINAL = frozenset({"media_gone", "media_damaged", "media_refused"})


class Do(Protocol):
    """Runs work on the disk in a thread, one at a time."""

    async def __call__(self, work: Callable[P, T], *args: P.args, **more: P.kwargs) -> T: ...


class Loading:
    """Those of one session."""

    def __init__(self, shelf: Shelf, do: Do, largest: int) -> None:
        self.engine: Engine | LoadsMedia | None = None
        self.largest = largest
        """Bytes of one file."""
        self._shelf = shelf
        self._do = do
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._failures: dict[str, tuple[float, EngineError]] = {}

    def begin(self, name: str, record: Mapping[str, Any]) -> asyncio.Task[None]:
        """The load of this file that is under way, or a new one. Its error is the caller's."""
        if (task := self._tasks.get(name)) is not None:
            return task
        if failed := self._failures.get(name):
            if time.monotonic() - failed[0] < FORGET_AFTER:
                raise failed[1]
            del self._failures[name]
        if len(self._tasks) >= WAITING:
            raise EngineError("cannot load the file: too many are loaded already", code="busy")
        task = asyncio.get_running_loop().create_task(self._load(name, record), name="load media")
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._ended(name, done))
        return task

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, name: str, done: asyncio.Task[None]) -> None:
        del self._tasks[name]
        error = None if done.cancelled() else done.exception()  # nobody may be waiting any more
        if isinstance(error, EngineError) and error.code in FINAL:
            self._failures[name] = time.monotonic(), error
            if len(self._failures) > MOST_FAILURES:
                del self._failures[next(iter(self._failures))]

    async def _load(self, name: str, record: Mapping[str, Any]) -> None:
        said = record["media"]
        size = int(max(said.get("size", 0), 0))
        if size > self.largest:
            raise self._too_large(size)
        load = getattr(self.engine, "load_media", None)
        if load is None:
            raise EngineError(
                "cannot load the file: the engine of this session loads none", code="not_supported"
            )
        async with self._turns:
            try:
                file = await self._do(self._shelf.begin, name)
                try:
                    limit = asyncio.timeout(_seconds_for(size))
                    async with limit, aclosing(load(record)) as pieces:
                        await self._fill(file, pieces, size, said["sha256"])
                except BaseException:
                    await asyncio.shield(self._do(self._shelf.drop, name, file))
                    raise
                await self._do(self._shelf.finish, name, file, record["kept"])
            except TimeoutError as error:
                raise EngineError(
                    "cannot load the file: WhatsApp gives it too slowly", code="media_unreachable"
                ) from error
            except OSError as error:
                raise EngineError(
                    f"cannot keep the file: {error.strerror}", code="media_not_kept"
                ) from error

    async def _fill(
        self, file: int, pieces: AsyncGenerator[bytes, None], size: int, sha256: str
    ) -> None:
        digest, length, most = new_sha256(), 0, size or self.largest
        while True:
            async with asyncio.timeout(STILL):
                piece = await anext(pieces, None)
            if piece is None:
                break
            length += len(piece)
            if length > most:
                if size:
                    raise EngineError(
                        f"cannot use the file: it is larger than the {size} bytes that its message"
                        " says",
                        code="media_damaged",
                    )
                raise self._too_large(length)
            digest.update(piece)
            await self._do(_write_all, file, piece)
        if digest.hexdigest() != sha256:
            raise EngineError(
                "cannot use the file: it is not the one that its message names: another sha256",
                code="media_damaged",
            )

    def _too_large(self, size: int) -> EngineError:
        return EngineError(
            f"cannot load the file: it has {size} bytes or more, at most {self.largest}"
            " ([messages] media_most_megabytes and media_megabytes)",
            code="media_too_large",
        )


def _write_all(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]


def _seconds_for(size: int) -> float:
    return min(LONGEST, GRACE + size / LEAST) if size else LONGEST
