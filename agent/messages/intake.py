"""Keeps in a session's worker what arrives in it, and answers the agent's questions about it.

A caller of `keep` waits until the disk has its records; all that wait share one commit.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from agent import errors, log
from agent.core.words import KEPT, Happening, InstanceId
from agent.engines.base import Engine
from agent.messages.incoming import CALLS, FOLDER, NAME, Answer, Incoming, T
from agent.messages.media import MediaLoader
from agent.messages.record import clean

Tell = Callable[[Happening], None]

LOOK_EVERY = 3600.0
"""Seconds between two looks for what is too old."""


class Intake:
    """messages.db of this worker's session, in one thread at a time beside the loop."""

    def __init__(
        self, folder: Path, id: InstanceId, settings: Mapping[str, Any], tell: Tell
    ) -> None:
        self.keeps = True
        bounds = {it: settings[it] for it in ("hours", "megabytes", "most") if it in settings}
        self._file = Incoming(folder / FOLDER / NAME, id, **bounds)
        self._media = MediaLoader(folder / FOLDER, settings)
        self._tell = tell
        self._turn = asyncio.Lock()
        self._waiting: list[dict[str, Any]] = []
        self._writing: asyncio.Task[None] | None = None
        """The task that writes all records that wait; None: the next record begins one."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        # Records of an earlier run have a cursor, too; 0: nothing was ever kept. The folder alone
        # is looked at: a file in it that cannot be read costs messages, not the session.
        self._newest = self._told = int((folder / FOLDER).exists())
        self._refused_since = 0.0
        self._begin("look at old messages", self._look)

    @property
    def works(self) -> Mapping[str, Callable[[Mapping[str, Any]], Any]]:
        """The calls of the link."""
        return {
            **{do: partial(self._ask, self._file.read, do) for do in CALLS},
            "messages_state": self._state,
            "messages_media": self._open_media,
        }

    def serve(self, engine: Engine) -> None:
        self._media.engine = engine

    async def keep(self, records: Sequence[Mapping[str, Any]]) -> None:
        try:
            cleaned = [clean(record) for record in records]
        except (ValueError, TypeError) as error:
            raise errors.EngineError(f"cannot keep a record: {error}", code="bad_record") from error
        if not cleaned:
            return
        self._waiting += cleaned
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="keep messages")
            self._writing.add_done_callback(lambda it: it.cancelled() or it.exception())
        await asyncio.shield(self._writing)

    async def close(self) -> None:
        """Return when what waits is on the disk."""
        for task in self._tasks.values():
            task.cancel()
        await self._media.close()
        await asyncio.sleep(0)  # a commit that was just begun has its turn before this
        with suppress(TimeoutError):  # the disk hangs, and so would this
            async with asyncio.timeout(5.0), self._turn:
                self._file.close()

    def _begin(self, name: str, work: Callable[[], Any]) -> None:
        if (task := self._tasks.get(name)) is None or task.done():
            self._tasks[name] = asyncio.create_task(work(), name=name)

    async def _write(self) -> None:
        async with self._turn:
            records, self._waiting, self._writing = self._waiting, [], None
            try:
                newest = await self._in_thread(self._file.append, records)
            except Exception as error:
                raise self._refuse(error) from error
        self._newest = newest or self._newest
        if self._refused_since:
            took, self._refused_since = time.monotonic() - self._refused_since, 0.0
            self._note(log.info, "kept_again", f"messages are kept again, after {took:.0f} s")
        self._begin("tell of new messages", self._say)

    def _refuse(self, error: Exception) -> errors.EngineError:
        cause = (isinstance(error, OSError) and error.strerror) or str(error)
        if not isinstance(error, OSError | sqlite3.Error | errors.WaError):
            log.error("cannot keep messages: internal error", exc_info=error)
            cause = type(error).__name__
        if not self._refused_since:
            self._refused_since = time.monotonic()
            text = f"messages cannot be kept: {cause}; WhatsApp keeps what it can until they are"
            self._note(log.error, "not_kept", text)
        return errors.EngineError(f"cannot keep messages: {cause}", code="not_kept")

    def _note(self, write: Callable[..., None], kind: str, text: str) -> None:
        write("%s", text)
        self._tell(Happening(kind, {"text": text}))

    async def _say(self) -> None:
        """Tell the agent of the newest at once, of those after it a little later as one."""
        while self._newest > self._told:
            self._told = self._newest
            self._tell(Happening(KEPT, {"cursor": self._told}))
            await asyncio.sleep(0.25)

    async def _look(self) -> None:
        await asyncio.sleep(60.0)  # by then the agent has told what its consumers have
        while True:
            try:
                if self._file.path.exists():
                    await self._do(self._file.append, ())
                await self._media.trim()
            except (OSError, sqlite3.Error, errors.WaError) as error:
                log.warning("cannot look at old messages: %s", error)
            await asyncio.sleep(LOOK_EVERY)

    # The agent's calls

    async def _state(self, args: Mapping[str, Any]) -> Answer:
        told: dict[str, Any] = {"refused": int(self._refused_since > 0)}
        if "settled" not in args and not self._newest:
            # Each worker that begins is asked: a first thread would cost it 3 ms.
            return told | dict.fromkeys(("waiting", "bytes", "newest", "lost"), 0)
        with suppress(errors.EngineError):  # what refuses to be written may refuse to be read
            told |= await self._ask(self._file.read, "messages_state", args)
        return told

    async def _open_media(self, args: Mapping[str, Any]) -> Answer:
        """Answer `ready` with the file's name, or `loading` where that takes longer than `wait`."""
        record = await self._ask(self._file.find, args["id"], args["chat"])
        return await self._media.open(record, args.get("wait", 0.0))

    async def _ask(self, work: Callable[..., T], *args: Any) -> T:
        try:
            return await self._do(work, *args)
        except (OSError, sqlite3.Error, errors.StoreError) as error:
            why = f"cannot read the messages that are kept: {error}"
            raise errors.EngineError(why, code="unreadable") from error

    async def _do(self, work: Callable[..., T], *args: Any) -> T:
        """Cancelling the caller does not stop the thread; the lock is held until it ends."""
        return await asyncio.shield(asyncio.create_task(self._alone(work, *args)))

    async def _alone(self, work: Callable[..., T], *args: Any) -> T:
        async with self._turn:
            return await self._in_thread(work, *args)

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        try:
            return await asyncio.to_thread(work, *args)
        finally:
            said, self._file.said = self._file.said, []
            for sentence in said:
                text = f"{sentence}; what it held is not read, and readers get a gap"
                self._note(log.error, "kept_aside", text)
