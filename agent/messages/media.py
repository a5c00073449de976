"""Files of messages. Those that arrived are loaded from WhatsApp when a program asks for one, and
live a day in a folder that the agent reads. Those that are to be sent lie in the agent's folder
until their message has left or ended."""

import asyncio
import base64
import os
import re
import time
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing, suppress
from pathlib import Path
from typing import IO, Any

from agent.engines.base import Engine, LoadsMedia, new_sha256
from agent.errors import EngineError, NotFound, Refused, StoreError, TryLater, WaError
from agent.files import open_plain, write_whole
from agent.messages.record import MESSAGE

FOLDER = "media"
LIVES = 86_400.0
"""Seconds after its load at which a file goes."""
STILL = 100.0
"""Seconds without a piece after which a load ends."""
LONGEST = 900.0
PIECE = 256 * 1024
_ERRORS: Mapping[type[WaError], tuple[str, ...]] = {
    NotFound: ("message_not_found", "no_media", "media_gone"),
    Refused: ("media_too_large", "media_refused", "not_supported", "not_connected"),
    TryLater: ("media_unreachable", "busy", "timeout", "interrupted", "not_ready"),
    StoreError: ("media_not_kept",),
}
"""A code that is not here, such as `media_damaged`, is an error of the engine: 502."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[0-9a-f]{40}")
_PART_ENDS = ".part"


class MediaLoader:
    """Of one session, in its worker. A load goes on when its caller goes away."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.engine: Engine | LoadsMedia | None = None
        self._folder = folder / FOLDER
        self._most = settings.get("media_megabytes", 256) << 20
        self._largest = min(self._most, settings.get("media_most_megabytes", 64) << 20)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(2)

    async def open(self, record: Mapping[str, Any] | None, wait: float) -> Mapping[str, Any]:
        """`ready` with the name of a whole file, or `loading` after so many seconds."""
        media = _check(record)
        assert record is not None
        name = new_sha256(record["id"].encode()).hexdigest()[:40]
        path = self._folder / name
        if not path.exists():  # it gets its name when it is whole and on the disk
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
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, name: str, record: Mapping[str, Any]) -> "asyncio.Task[None]":
        """The load of this file that is under way, or a new one."""
        if (task := self._tasks.get(name)) is not None:
            return task
        if len(self._tasks) >= 32:  # under way and waiting
            raise _no("too many are loaded already", "busy")
        task = self._tasks[name] = asyncio.create_task(self._load(name, record), name="media")
        # Asked for its error: no request may be waiting.
        task.add_done_callback(lambda it: self._tasks.pop(name).cancelled() or it.exception())
        return task

    async def _load(self, name: str, record: Mapping[str, Any]) -> None:
        said = record["media"]
        size = int(max(said.get("size", 0), 0))
        if size > self._largest:
            raise self._too_large(size)
        load = getattr(self.engine, "load_media", None)
        if load is None:
            raise _no("the engine of this session loads none", "not_supported")
        async with self._turns:
            part = self._folder / (name + _PART_ENDS)
            try:
                with await asyncio.to_thread(_begin_file, self._folder, part) as file:
                    async with asyncio.timeout(LONGEST), aclosing(load(record)) as pieces:
                        await self._fill(file, pieces, size, said["sha256"])
                await asyncio.to_thread(_make_room, self._folder, self._most, part)
                part.rename(self._folder / name)
            except TimeoutError as error:
                raise _no("WhatsApp gives it too slowly", "media_unreachable") from error
            except OSError as error:
                why = f"the disk does not take it: {error.strerror}"
                raise _no(why, "media_not_kept") from error
            finally:
                part.unlink(missing_ok=True)

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

    def _too_large(self, size: int) -> EngineError:
        limits = f"{self._largest} ([messages] media_most_megabytes and media_megabytes)"
        return _no(f"it has {size} bytes or more, at most {limits}", "media_too_large")


class OutFiles:
    """Of messages that are to be sent, in the agent's own folder. Call its methods in a thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, content: str) -> None:
        """Keep a file that came as base64; on the disk when this returns."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self.folder / name, base64.b64decode(content))
        except OSError as error:
            why = f"cannot keep the file of a message in {self.folder}: {error.strerror}"
            full = error.errno in (28, 122)
            raise StoreError(why, code="disk_full" if full else "store") from error

    def remove(self, *names: str) -> None:
        for name in filter(None, names):
            with suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)

    def remove_others(self, used: Collection[str]) -> None:
        """A kill left them: files of no message that waits."""
        with suppress(FileNotFoundError):
            self.remove(*{path.name for path in self.folder.iterdir()}.difference(used))


def open_media(folder: Path, name: str, size: int) -> IO[bytes]:
    """A file that a worker has ready, as the agent reads it: to its end, though its name goes.

    OSError: it is gone, or is not what the worker said: another user made it."""
    if not _NAME.fullmatch(name) or (folder / FOLDER).is_symlink() or folder.is_symlink():
        raise OSError(22, "its worker names no file of its own", name)
    file = open_plain(folder / FOLDER / name)
    if os.fstat(file.fileno()).st_size != size:
        file.close()
        raise OSError(22, "it has another size", name)
    return file


def explain_loss(id: str, error: EngineError) -> WaError:
    """The worker's refusal of a file, by whose fault it is."""
    kinds = (kind for kind, codes in _ERRORS.items() if error.code in codes)
    return next(kinds, EngineError)(f"{error} ({id})", code=error.code)


def _check(record: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The `media` of a record whose file can be loaded and checked."""
    if record is None:
        raise _no("its message is not kept here, or not any more", "message_not_found")
    media = record.get("media")
    if record["kind"] != MESSAGE or not isinstance(media, Mapping):
        raise _no("the message brought none", "no_media")
    if not _SHA256.fullmatch(str(media.get("sha256"))) or "_media" not in record:
        raise _no("the message does not say enough to load and to check it", "no_media")
    return media


def _begin_file(folder: Path, part: Path) -> IO[bytes]:
    """Readable for the group that the session's folder has."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        folder.chmod(folder.parent.stat().st_mode & 0o770)
    part.unlink(missing_ok=True)
    file = part.open("xb")
    os.fchmod(file.fileno(), 0o600 | folder.stat().st_mode & 0o060)
    return file


def _make_room(folder: Path, most: int, coming: Path | None = None) -> None:
    """Files that lived their day go, then the oldest until all fit; a kill's halves go as well."""
    with os.scandir(folder) as found:
        entries = [(entry.stat(follow_symlinks=False), Path(entry.path)) for entry in found]
    files = sorted((status.st_mtime, status.st_size, path) for status, path in entries)
    whole, now = sum(size for _, size, _ in files), time.time()
    for loaded, size, path in files:
        half = path.suffix == _PART_ENDS and now - loaded > LONGEST
        if path != coming and (now - loaded > LIVES or half or whole > most):
            path.unlink(missing_ok=True)
            whole -= size


def _no(why: str, code: str) -> EngineError:
    return EngineError(f"cannot load the file: {why}", code=code)
