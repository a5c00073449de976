"""The media of one session in its worker: found by its message, loaded when somebody asks or at
once, given in parts."""

import asyncio
import binascii
import logging
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

from agent.engines.base import Engine
from agent.engines.files import new_sha256
from agent.engines.phones import digits_of
from agent.errors import EngineError, InvalidRequest
from agent.wings.messages.media.loading import Loading
from agent.wings.messages.media.shelf import FOLDER, Shelf
from agent.wings.messages.record import MESSAGE
from agent.worker.calls import Answer, Work

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

PART = 192 * 1024
"""Bytes of one answer."""
LONGEST_WAIT = 20.0
AT_ONCE = "at once"
MOST_WANTED = 1000
"""Files that wait to be loaded by themselves; those beyond are loaded when somebody asks."""
TRY_AFTER = (0.0, 5.0, 30.0, 120.0)
"""Seconds before each try of those."""
SHA256 = re.compile(r"[0-9a-f]{64}")
_PASSES = frozenset(
    {
        *("not_connected", "media_unreachable", "busy", "stopping"),
        *("timeout", "interrupted", "not_ready"),
    }
)
"""Codes of what another try may change."""


class Records(Protocol):
    """What the session keeps."""

    async def find(self, id: str) -> Mapping[str, Any] | None: ...

    async def search(self, chat: str, message_id: str) -> Mapping[str, Any] | None: ...


class SessionMedia:
    def __init__(self, folder: Path, settings: Mapping[str, Any], records: Records) -> None:
        quota = _bytes_of(settings, "media_megabytes", 256)
        largest = min(quota, _bytes_of(settings, "media_most_megabytes", 64))
        self._at_once = settings.get("media") == AT_ONCE
        self._records = records
        self._shelf = Shelf(folder / FOLDER, quota)
        self._turn = asyncio.Lock()
        self._loading = Loading(self._shelf, self._do, largest)
        self._wanted: deque[tuple[str, int]] = deque(maxlen=MOST_WANTED)
        """Ids of records, and how often each was tried."""
        self._loader: asyncio.Task[None] | None = None

    @property
    def works(self) -> Mapping[str, Work]:
        return {"messages_media": self._open, "messages_media_part": self._part}

    def serve(self, engine: Engine) -> None:
        self._loading.engine = engine

    def arrived(self, records: Sequence[Mapping[str, Any]]) -> None:
        """They are kept: load their files where the settings say so."""
        if not self._at_once:
            return
        self._wanted.extend(
            (each["id"], 0)
            for each in records
            if "_media" in each and each.get("fresh") is not False
        )
        if self._wanted and (self._loader is None or self._loader.done()):
            loop = asyncio.get_running_loop()
            self._loader = loop.create_task(self._load_wanted(), name="load media at once")

    async def state(self) -> tuple[int, int]:
        """How many files there are, and their bytes."""
        try:
            return await self._do(self._shelf.state) if self._shelf.there else (0, 0)
        except OSError:  # who asks for a file hears why
            return 0, 0

    async def trim(self, due: float) -> None:
        if self._shelf.there:
            await self._do(self._shelf.trim, due)

    async def close(self) -> None:
        if self._loader is not None:
            self._loader.cancel()
            await asyncio.wait({self._loader})
        await self._loading.close()
        await self._do(self._shelf.close)

    # the agent's calls

    async def _open(self, args: Mapping[str, Any]) -> Answer:
        """`ready` with what the file is, or `loading` where that takes longer than `wait`."""
        wait = args.get("wait", 0.0)
        if not isinstance(wait, int | float) or wait < 0:
            raise InvalidRequest("cannot use wait: not a number of seconds", field="wait")
        record = await self._find(_word(args, "id"), args.get("chat", ""))
        name, media = name_of(record["id"]), record["media"]
        if not await self._is_kept(name, media["sha256"]):
            task = self._loading.begin(name, record)
            if not (await asyncio.wait({task}, timeout=min(wait, LONGEST_WAIT)))[0]:
                return {"state": "loading"}
            if task.cancelled():
                raise EngineError("cannot load the file: the session stops", code="stopping")
            task.result()
        size = await self._do(self._shelf.claim, name)
        if size is None:
            raise EngineError("cannot give the file: newer ones took its room", code="busy")
        shown = {key: media[key] for key in ("mimetype", "filename", "sha256") if key in media}
        return {**shown, "state": "ready", "name": name, "size": size}

    async def _part(self, args: Mapping[str, Any]) -> Answer:
        name, offset = _word(args, "name"), args.get("offset")
        if not isinstance(offset, int) or offset < 0:
            raise InvalidRequest("cannot use offset: not a whole number", field="offset")
        try:
            raw = await self._do(self._shelf.read, name, offset, PART)
        except OSError as error:
            why = f"cannot read the file: {error.strerror}"
            raise EngineError(why, code="media_not_kept") from error
        return {"data": binascii.b2a_base64(raw, newline=False).decode()}

    # inside

    async def _find(self, id: str, chat: object) -> Mapping[str, Any]:
        if isinstance(chat, str) and chat:
            jid = chat if "@" in chat else f"{digits_of(chat)}@s.whatsapp.net"
            record = await self._records.search(jid, id)
        else:
            record = await self._records.find(id)
        if record is None:
            raise EngineError(
                "cannot find the message: it is not kept here, or not any more",
                code="message_not_found",
            )
        media = record.get("media")
        if record["kind"] != MESSAGE or not isinstance(media, Mapping):
            raise EngineError("cannot load a file: the message brought none", code="no_media")
        hash = media.get("sha256")
        if not isinstance(hash, str) or not SHA256.fullmatch(hash) or "_media" not in record:
            raise EngineError(
                "cannot load the file: the message does not say enough to load and to check it",
                code="no_media",
            )
        return record

    async def _is_kept(self, name: str, sha256: str) -> bool:
        try:
            if await self._do(self._shelf.size_of, name) is None:
                return False
            return await self._do(self._shelf.is_whole, name, sha256)
        except OSError as error:
            why = f"cannot read the files that are kept: {error.strerror}"
            raise EngineError(why, code="media_not_kept") from error

    async def _load_wanted(self) -> None:
        while self._wanted:
            id, tries = self._wanted.popleft()
            await asyncio.sleep(TRY_AFTER[tries])
            try:
                await self._load(id)
            except EngineError as error:
                if error.code in _PASSES and tries + 1 < len(TRY_AFTER):
                    self._wanted.append((id, tries + 1))  # a slow one stands last
                else:
                    log.info("a file was not loaded: %s", error)

    async def _load(self, id: str) -> None:
        record = await self._find(id, "")
        name = name_of(id)
        if not await self._is_kept(name, record["media"]["sha256"]):
            await asyncio.shield(self._loading.begin(name, record))

    async def _do(self, work: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
        """In a thread, one at a time, also where whoever waits is cancelled."""
        alone = asyncio.get_running_loop().create_task(self._alone(partial(work, *args, **more)))
        return await asyncio.shield(alone)

    async def _alone(self, work: Callable[[], T]) -> T:
        async with self._turn:
            return await asyncio.get_running_loop().run_in_executor(None, work)


def name_of(id: str) -> str:
    """Of the file of a record: nothing that a contact chose."""
    return str(new_sha256(id.encode()).hexdigest()[:40])


def _word(args: Mapping[str, Any], key: str) -> str:
    value = args.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"cannot use {key}: not a text", field=key)
    return value


def _bytes_of(settings: Mapping[str, Any], key: str, default: int) -> int:
    value = settings.get(key)
    return (value if type(value) is int and value > 0 else default) << 20
