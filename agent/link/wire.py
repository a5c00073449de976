"""Lines of the link: one JSON object each, of at most 1 MiB. Pure, no I/O."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from agent.errors import LinkError

LINE_LIMIT = 1024 * 1024
"""Bytes of one message without its line's end."""


def encode(message: Mapping[str, Any]) -> bytes:
    """The line of one message; what the other end would refuse is refused here."""
    try:
        text = json.dumps(message, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        line = text.encode()  # half of a surrogate pair is a ValueError
    except (TypeError, ValueError, RecursionError) as error:
        raise LinkError(f"cannot write a message: {error}", code="malformed") from error
    if len(line) > LINE_LIMIT:
        raise LinkError(
            f"cannot write a message: {len(line)} bytes, at most {LINE_LIMIT}", code="oversized"
        )
    return line + b"\n"


class Lines:
    """Bytes in as they come, whole lines out."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        self._rest += chunk
        while (end := self._rest.find(b"\n")) >= 0:
            self._must_fit(end)
            line = bytes(self._rest[:end])
            del self._rest[: end + 1]
            yield line
        self._must_fit(len(self._rest))

    def _must_fit(self, size: int) -> None:
        if size > LINE_LIMIT:
            raise LinkError(
                f"cannot read a message: more than {LINE_LIMIT} bytes", code="oversized"
            )
