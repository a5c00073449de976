"""A message's file on its way from the session's worker to a reader: asked for until it is there,
then handed over in parts, one in memory at a time."""

import base64
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from agent.clock import boot_now
from agent.core.model import InstanceId
from agent.errors import EngineError, NotFound, NotYet, Refused, StoreError, TryLater, WaError

OPEN_SECONDS = 10.0
"""Of one question; the worker goes on loading between two."""
PART_SECONDS = 15.0
READERS, ALL_READERS = 4, 16
_ERRORS: Mapping[str, type[WaError]] = {
    "message_not_found": NotFound,
    "no_media": NotFound,
    "media_gone": NotFound,
    "media_too_large": Refused,
    "media_refused": Refused,
    "not_supported": Refused,
    "not_connected": Refused,
    "stopping": TryLater,
    "media_unreachable": TryLater,
    "busy": TryLater,
    **dict.fromkeys(("timeout", "interrupted", "not_ready"), TryLater),
    "media_not_kept": StoreError,
}
"""What is not here, such as `media_damaged`, is an error of the engine: 502."""


@dataclass(frozen=True, slots=True)
class MediaFile:
    instance: InstanceId
    name: str
    """In the worker; no reader gets it."""
    size: int
    mimetype: object
    filename: object
    sha256: str


class MediaSource(Protocol):
    @property
    def ending(self) -> bool: ...

    async def call(
        self, id: InstanceId, do: str, args: Mapping[str, Any], seconds: float
    ) -> Mapping[str, Any]: ...


class MediaReaders:
    def __init__(self, source: MediaSource) -> None:
        self._source = source
        self._reading: dict[InstanceId, int] = {}

    @asynccontextmanager
    async def turn(self, id: InstanceId) -> AsyncGenerator[None, None]:
        """TryLater where too many are read already."""
        its = self._reading.get(id, 0)
        if its >= READERS or sum(self._reading.values()) >= ALL_READERS:
            raise TryLater(
                f"cannot read a file of {id}: too many are read already; try again", code="busy"
            )
        self._reading[id] = its + 1
        try:
            yield
        finally:
            self._reading[id] -= 1
            if not self._reading[id]:
                del self._reading[id]

    async def open(self, id: InstanceId, message: str, chat: str, wait: float) -> MediaFile:
        """When the worker has the file whole; NotYet after `wait` seconds."""
        until = boot_now() + wait
        while True:
            left = max(0.0, min(until - boot_now(), OPEN_SECONDS))
            asked = {"id": message, "chat": chat, "wait": left}
            raw = await self._call(id, "messages_media", asked, left + PART_SECONDS)
            if raw.get("state") == "ready":
                return _file_of(id, raw)
            if boot_now() >= until or self._source.ending:
                raise NotYet(
                    f"cannot give this file of {id} yet: it is being loaded; ask again",
                    code="media_loading",
                )

    async def parts(self, file: MediaFile) -> AsyncGenerator[bytes, None]:
        offset = 0
        while offset < file.size:
            asked = {"name": file.name, "offset": offset}
            raw = await self._call(file.instance, "messages_media_part", asked, PART_SECONDS)
            data = raw.get("data")
            part = base64.b64decode(data) if isinstance(data, str) else b""
            if not 0 < len(part) <= file.size - offset:
                raise TryLater(f"cannot read a file of {file.instance}: it changed", code="busy")
            offset += len(part)
            yield part

    async def _call(
        self, id: InstanceId, do: str, args: Mapping[str, Any], seconds: float
    ) -> Mapping[str, Any]:
        try:
            return await self._source.call(id, do, args, seconds)
        except EngineError as error:
            kind = _ERRORS.get(error.code)
            if kind is None:
                raise
            raise kind(f"{error} ({id})", code=error.code) from error


def _file_of(id: InstanceId, raw: Mapping[str, Any]) -> MediaFile:
    name, size, sha256 = raw.get("name"), raw.get("size"), raw.get("sha256")
    if not (isinstance(name, str) and isinstance(size, int) and isinstance(sha256, str)):
        raise TryLater(f"cannot read a file of {id}: its worker says it in another form")
    return MediaFile(id, name, size, raw.get("mimetype"), raw.get("filename"), sha256)
