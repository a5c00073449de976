"""Files of messages.

One that arrived is loaded from WhatsApp when a program asks for it, and lives a day in a folder of
its session that the agent reads. One that is to be sent lies in the agent's folder until its
message has left or ended.
"""

import asyncio
import base64
import os
import re
import time
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing, suppress
from pathlib import Path
from typing import IO, Any

from agent import errors, files, log
from agent.engines.base import Engine, LoadsMedia, new_sha256, sha256
from agent.messages import database

MEDIA_FOLDER, _PART_ENDS = "media", ".part"
LIVES = 86_400.0
"""Seconds after its load at which a file goes."""
STILL = 100.0
"""Seconds without a piece after which a load ends."""
LONGEST = 900.0
PIECE = 256 * 1024
ERRORS: Mapping[type[errors.WaError], tuple[str, ...]] = {
    errors.NotFound: ("message_not_found", "no_media", "media_gone"),
    errors.Refused: ("media_too_large", "media_refused", "not_supported", "not_connected"),
    errors.TryLater: ("media_unreachable", "busy", "timeout", "interrupted", "not_ready"),
    errors.StoreError: ("media_not_kept",),
}
"""By whose fault a file is refused. A code that is not here, such as `media_damaged`, is an error
of the engine: 502."""


class MediaLoader:
    """Loads the files of one session, in its worker. A load goes on when its caller goes away."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.engine: Engine | LoadsMedia | None = None
        self._folder = folder / MEDIA_FOLDER
        self._most = settings.get("media_megabytes", 256) << 20
        self._largest = min(self._most, settings.get("media_most_megabytes", 64) << 20)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(2)

    async def open(self, record: Mapping[str, Any] | None, wait: float) -> Mapping[str, Any]:
        """Answer `ready` with the name of a whole file, or `loading` after `wait` seconds."""
        if record is None:
            raise _no("its message is not kept here, or not any more", "message_not_found")
        media = record.get("media")
        if not isinstance(media, Mapping):
            raise _no("the message brought none", "no_media")
        if not re.fullmatch("[0-9a-f]{64}", str(media.get("sha256"))) or "_media" not in record:
            raise _no("the message does not say enough to load and to check it", "no_media")
        name = new_sha256(record["id"].encode()).hexdigest()[:40]
        path = self._folder / name
        if not await asyncio.to_thread(is_whole, path, media["sha256"], self._most, OSError):
            task = self._begin(name, record)
            if not (await asyncio.wait({task}, timeout=wait))[0]:
                return {"state": "loading"}
            if task.cancelled():
                raise _no("the session stops", "stopping")
            task.result()
        try:
            size = path.stat().st_size
        except OSError:
            raise _no("newer ones took its room", "busy") from None
        shown = {key: media[key] for key in ("mimetype", "filename", "sha256") if key in media}
        return {**shown, "state": "ready", "name": name, "size": size}

    async def trim(self) -> None:
        if self._folder.exists():
            await asyncio.to_thread(_make_room, self._folder, self._most)

    async def close(self) -> None:
        for task in (tasks := list(self._tasks.values())):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, name: str, record: Mapping[str, Any]) -> "asyncio.Task[None]":
        """Return the load of this file that is under way, or a new one."""
        if (task := self._tasks.get(name)) is not None:
            return task
        if len(self._tasks) >= 32:  # under way and waiting
            raise _no("too many are loaded already", "busy")
        task = self._tasks[name] = asyncio.create_task(self._load(name, record), name="media")
        # Asked for its error: no request may be waiting.
        task.add_done_callback(lambda it: self._tasks.pop(name).cancelled() or it.exception())
        return task

    async def _load(self, name: str, record: Mapping[str, Any]) -> None:
        size = int(max(record["media"].get("size", 0), 0))
        if size > self._largest:
            raise self._too_large(size)
        if (load := getattr(self.engine, "load_media", None)) is None:
            raise _no("the engine of this session loads none", "not_supported")
        async with self._turns:
            path, part = self._folder / name, self._folder / (name + _PART_ENDS)
            try:
                with await asyncio.to_thread(_begin_file, self._folder, part) as file:
                    async with asyncio.timeout(LONGEST), aclosing(load(record)) as pieces:
                        await self._fill(file, pieces, size, record["media"]["sha256"])
                await asyncio.to_thread(_make_room, self._folder, self._most, part)
                if path.is_dir():
                    log.warning("%s", database.set_aside(path, "a folder"))
                part.rename(path)
            except TimeoutError as error:
                raise _no("WhatsApp gives it too slowly", "media_unreachable") from error
            except OSError as error:
                why = f"the disk does not take it: {error.strerror}"
                raise _no(why, "media_not_kept") from error
            finally:
                with suppress(OSError):
                    part.unlink()

    async def _fill(
        self, file: IO[bytes], pieces: AsyncGenerator[bytes, None], size: int, sha256: str
    ) -> None:
        digest, length = new_sha256(), 0
        while True:
            async with asyncio.timeout(STILL):
                piece = await anext(pieces, None)
            if piece is None:
                break
            length += len(piece)
            if size and length > size:
                raise _no(f"it is larger than the {size} bytes of its message", "media_damaged")
            if length > self._largest:
                raise self._too_large(length)
            digest.update(piece)
            await asyncio.to_thread(file.write, piece)
        await asyncio.to_thread(file.flush)
        await asyncio.to_thread(os.fsync, file.fileno())
        if digest.hexdigest() != sha256:
            raise _no("it has another sha256 than its message names", "media_damaged")

    def _too_large(self, size: int) -> errors.EngineError:
        limits = f"{self._largest} ([messages] media_most_megabytes and media_megabytes)"
        return _no(f"it has {size} bytes or more, at most {limits}", "media_too_large")


class OutFiles:
    """The files of messages that are to be sent, in the agent's own folder. Call its methods in a
    thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, content: str) -> str:
        """Keep a file that came as base64; on the disk when this returns its sha256."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.write_whole(self.folder / name, raw := base64.b64decode(content))
            return sha256(raw)
        except OSError as error:
            why = f"cannot keep the file of a message in {self.folder}: {error.strerror}"
            full = error.errno in (28, 122)
            raise errors.StoreError(why, code="disk_full" if full else "store") from error

    def remove(self, *names: str) -> None:
        for name in filter(None, names):
            with suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)

    def remove_others(self, used: Collection[str]) -> None:
        """Remove files that a kill left: those of no message that waits."""
        with suppress(OSError):  # a message with a file says that its folder is closed
            self.remove(*{path.name for path in self.folder.iterdir()}.difference(used))


def open_media(folder: Path, name: str, size: int) -> IO[bytes]:
    """A file that a worker has ready, as the agent reads it: to its end, though its name goes.

    OSError: it is gone, or is not what the worker said: another user made it. StoreError: its
    folder is a link."""
    if not re.fullmatch("[0-9a-f]{40}", name):
        raise OSError(22, "its worker names no file of its own", name)
    for above in (folder, folder / MEDIA_FOLDER):
        database.refuse_link(above)
    file = files.open_plain(folder / MEDIA_FOLDER / name)
    if os.fstat(file.fileno()).st_size != size:
        file.close()
        raise OSError(22, "it has another size", name)
    return file


def _begin_file(folder: Path, part: Path) -> IO[bytes]:
    """Open a file that the group of the session's folder can read."""
    rights = database.rights_in(folder)
    part.unlink(missing_ok=True)
    file = part.open("xb")
    os.fchmod(file.fileno(), rights)
    return file


def is_whole(path: Path, hash: str, most: int, lost: type[OSError] = FileNotFoundError) -> bool:
    """True for a plain file with this hash: it had its name once it was whole and on the disk,
    which may have changed it. Of more than `most` bytes the rest is not read. `lost`: the errors
    that say that there is none."""
    digest = new_sha256()
    with suppress(lost), files.open_plain(path) as file:
        for _ in range(most // PIECE + 1):
            digest.update(file.read(PIECE))
    return bool(digest.hexdigest() == hash)


def _make_room(folder: Path, most: int, coming: Path | None = None) -> None:
    """Remove files that lived their day, then the oldest until all fit; and a kill's halves."""
    entries = [(path.lstat(), path) for path in folder.iterdir()]
    kept = sorted((status.st_mtime, status.st_size, path) for status, path in entries)
    whole, now = sum(size for _, size, _ in kept), time.time()
    for loaded, size, path in kept:
        half = path.suffix == _PART_ENDS and now - loaded > LONGEST
        if path != coming and not path.is_dir() and (now - loaded > LIVES or half or whole > most):
            path.unlink(missing_ok=True)
            whole -= size


def _no(why: str, code: str) -> errors.EngineError:
    return errors.EngineError(f"cannot load the file: {why}", code=code)
