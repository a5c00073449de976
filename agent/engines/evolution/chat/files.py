"""Files to send. Long ones come in parts before their message, and are in memory until then."""

import mimetypes
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.errors import EngineError, InvalidRequest

LARGEST = 16 << 20
"""Bytes of one file: the server gets it as base64 in JSON."""
AT_ONCE = 4
"""Files of all sessions of a server."""
_KEPT = 120.0
_KINDS = ("image", "video", "audio")


@dataclass(slots=True)
class _File:
    parts: list[str] = field(default_factory=list, repr=False)
    size: int = 0
    at: float = 0.0


class Uploads:
    """Of all sessions of a server, in the order in which they began."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, str], _File] = {}

    def take(self, session: str, part: Mapping[str, Any]) -> Mapping[str, Any]:
        """The command `file_part`."""
        self._forget()
        name, index, data = part.get("upload"), part.get("index"), part.get("data")
        if not isinstance(name, str) or not isinstance(index, int) or not isinstance(data, str):
            raise InvalidRequest("cannot take it: this is no part of a file", field="upload")
        key = (session, name)
        file = self._files.get(key) or _File()
        if not file.parts and len(self._files) >= AT_ONCE:
            raise EngineError("cannot take the file: too many at once", code="busy")
        if index != len(file.parts):
            raise EngineError("cannot take the file: a part is missing", code="file_lost")
        size = file.size + _size_of(data)
        if size > LARGEST:
            self._files.pop(key, None)
            raise too_large()
        file.parts.append(data)
        file.size, file.at = size, time.monotonic()
        self._files[key] = file
        return {"size": size}

    def whole(self, session: str, message: Mapping[str, Any]) -> Mapping[str, Any]:
        """The message with the content of its file, where that came in parts."""
        if "upload" not in message:
            return message
        file = self._files.pop((session, str(message["upload"])), None)
        if file is None or file.size != message.get("size"):
            raise EngineError("cannot send the file: it is not whole here", code="file_lost")
        return {**message, "content": "".join(file.parts)}

    def _forget(self) -> None:
        old = time.monotonic() - _KEPT
        self._files = {key: file for key, file in self._files.items() if file.at > old}


def too_large() -> EngineError:
    return EngineError(
        f"cannot send the file: an Evolution server gets {LARGEST >> 20} MiB at most",
        code="file_too_large",
    )


def kind_of(mimetype: str) -> str:
    main = mimetype.partition("/")[0]
    return main if main in _KINDS else "document"


def name_of(message: Mapping[str, Any]) -> str:
    """2.x takes a document's type from the end of its name."""
    name = str(message.get("filename") or "file")
    if mimetypes.guess_type(name)[0] is not None:
        return name
    plain = str(message["mimetype"]).partition(";")[0].strip()
    return name + (mimetypes.guess_extension(plain) or ".bin")


def _size_of(data: str) -> int:
    return len(data) // 4 * 3 - data[-2:].count("=")
