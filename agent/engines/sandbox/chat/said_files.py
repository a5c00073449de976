"""Files that the sandbox's contacts send: they lie on WhatsApp's side, as messages do."""

import asyncio
import binascii
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.engines.files import new_sha256
from agent.errors import EngineError, InvalidRequest
from agent.files import open_plain, write_whole

# Files that come in parts before their message; of each only its size and checksum are kept.


LARGEST = 64 << 20


@dataclass(slots=True)
class _File:
    digest: Any = field(default_factory=new_sha256)
    parts: int = 0
    size: int = 0

    def take(self, data: str) -> None:
        raw = binascii.a2b_base64(data)
        self.digest.update(raw)
        self.parts += 1
        self.size += len(raw)


class Uploads:
    def __init__(self) -> None:
        self._files: dict[str, _File] = {}

    def take(self, part: Mapping[str, Any]) -> Mapping[str, Any]:
        """The command `file_part`."""
        name, index, data = part.get("upload"), part.get("index"), part.get("data")
        if not isinstance(name, str) or not isinstance(index, int) or not isinstance(data, str):
            raise InvalidRequest("cannot take it: this is no part of a file", field="upload")
        file = self._files.get(name) or _File()
        if index != file.parts:
            raise EngineError("cannot take the file: a part is missing", code="file_lost")
        file.take(data)
        if file.size > LARGEST:
            self._files.pop(name, None)
            raise EngineError("cannot take the file: it is too large", code="file_too_large")
        self._files[name] = file
        return {"size": file.size}

    def whole(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Size and checksum of a message's file; {} without one."""
        if isinstance(content := message.get("content"), str):
            file = _File()
            file.take(content)
        elif "upload" in message:
            found = self._files.pop(str(message["upload"]), None)
            if found is None or found.size != message.get("size"):
                raise EngineError("cannot send the file: it is not whole here", code="file_lost")
            file = found
        else:
            return {}
        return {"size": file.size, "sha256": file.digest.hexdigest()}


FOLDER = "media"
PIECE = 192 * 1024
_PART = ".part"
_NAME = re.compile(r"[0-9a-f]{16,64}")


class SaidFiles:
    def __init__(self, folder: Callable[[], Path]) -> None:
        """`folder` makes the folder of WhatsApp's side where it is not there yet."""
        self._folder = folder
        self._uploads = Uploads()

    def take(self, part: Mapping[str, Any]) -> Mapping[str, Any]:
        """The command `said_part`."""
        name = part.get("upload")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidRequest("cannot take it: this is no part of a file", field="upload")
        answer = self._uploads.take(part)
        try:
            path = self._own_folder() / (name + _PART)
            with path.open("ab" if part["index"] else "wb") as file:
                file.write(binascii.a2b_base64(part["data"]))
        except OSError as error:
            raise EngineError(f"cannot hold the file: {error}", code="save_failed") from error
        return answer

    def keep(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Size and checksum of what a message brings; {} without a file."""
        found = self._uploads.whole(said)
        if not found:
            return {}
        try:
            folder = self._own_folder()
            path = folder / found["sha256"]
            if "content" in said:
                mode = folder.stat().st_mode & 0o660
                write_whole(path, binascii.a2b_base64(said["content"]), mode=mode)
            else:
                (folder / (said["upload"] + _PART)).replace(path)
        except OSError as error:
            raise EngineError(f"cannot hold the file: {error}", code="save_failed") from error
        return found

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

    def _own_folder(self) -> Path:
        folder = self._folder() / FOLDER
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            folder.chmod(folder.parent.stat().st_mode & 0o770)
        return folder
