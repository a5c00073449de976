"""Files that come in parts before their message; of each only its size and checksum are kept."""

import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.engines.files import new_sha256
from agent.errors import EngineError, InvalidRequest

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
