"""Files of messages on WhatsApp's side: they come in parts, and those of contacts stay."""

import asyncio
import binascii
import os
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.engines.files import new_sha256
from agent.errors import EngineError, InvalidRequest
from agent.files import open_plain

LARGEST = 64 << 20
FOLDER = "media"
PIECE = 192 * 1024
_NAME = re.compile(r"[0-9a-f]{16,64}")


@dataclass(slots=True)
class _Upload:
    path: Path
    digest: Any = field(default_factory=new_sha256)
    parts: int = 0
    size: int = 0


class SaidFiles:
    def __init__(self, folder: Callable[[], Path]) -> None:
        """`folder` makes the folder of WhatsApp's side where it is not there yet."""
        self._folder = folder
        self._uploads: dict[str, _Upload] = {}

    def take(self, part: Mapping[str, Any]) -> Mapping[str, Any]:
        """The command `file_part`: one part after the other."""
        name, index, data = part.get("upload"), part.get("index"), part.get("data")
        good = isinstance(name, str) and _NAME.fullmatch(name) and isinstance(data, str)
        if not isinstance(name, str) or not isinstance(data, str) or not good:
            raise InvalidRequest("cannot take it: this is no part of a file", field="upload")
        with suppress(FileExistsError):
            (folder := self._folder() / FOLDER).mkdir(mode=0o700)
            folder.chmod(folder.parent.stat().st_mode & 0o770)
        upload = self._uploads.get(name) or _Upload(self._folder() / FOLDER / f"{name}.part")
        if index != upload.parts:
            raise EngineError("cannot take the file: a part is missing", code="file_lost")
        raw = binascii.a2b_base64(data)
        upload.digest.update(raw)
        upload.parts, upload.size = upload.parts + 1, upload.size + len(raw)
        if upload.size > LARGEST:
            self._uploads.pop(name, None)
            raise EngineError("cannot take the file: it is too large", code="file_too_large")
        try:
            with upload.path.open("ab" if index else "wb") as file:
                file.write(raw)
        except OSError as error:
            raise EngineError(f"cannot hold the file: {error}", code="save_failed") from error
        self._uploads[name] = upload
        return {"size": upload.size}

    def whole(self, message: Mapping[str, Any], *, stays: bool = False) -> dict[str, Any]:
        """Size and checksum of a message's file; {} without one. `stays`: to be loaded."""
        name = message.get("upload")
        if isinstance(content := message.get("content"), str):
            name = os.urandom(16).hex()
            self.take({"upload": name, "index": 0, "data": content})
        elif name is None:
            return {}
        upload = self._uploads.pop(str(name), None)
        if upload is None or upload.size != message.get("size", upload.size):
            raise EngineError("cannot send the file: it is not whole here", code="file_lost")
        sha256 = upload.digest.hexdigest()
        try:
            upload.path.replace(upload.path.with_name(sha256)) if stays else upload.path.unlink()
        except OSError as error:
            raise EngineError(f"cannot hold the file: {error}", code="save_failed") from error
        return {"size": upload.size, "sha256": sha256}

    async def pieces(self, sha256: str) -> AsyncGenerator[bytes, None]:
        try:
            if not _NAME.fullmatch(sha256):
                raise FileNotFoundError
            file = await asyncio.to_thread(open_plain, self._folder() / FOLDER / sha256)
        except OSError as error:
            raise EngineError(
                "cannot load the file: WhatsApp does not have it any more", code="media_gone"
            ) from error
        with file:
            while piece := await asyncio.to_thread(file.read, PIECE):
                yield piece
