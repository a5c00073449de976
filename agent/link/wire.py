"""Frames of the link: four bytes of length, then one JSON object. Pure, no I/O.

The other side may be hostile: every length, nesting and number is checked here, and
all that can be wrong is a `LinkError` whose code says which rule was broken.
"""

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any, NoReturn

from agent.errors import LinkError

FRAME_LIMIT = 1024 * 1024
"""Bytes of one message without its length."""
DEPTH_LIMIT = 16
_HEAD = 4


def encode(message: Mapping[str, Any]) -> bytes:
    """Return the frame of one message; what the other end would refuse is refused here."""
    try:
        check_plain(message)
        body = json.dumps(message, allow_nan=False, separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise LinkError(f"cannot write a message: {error}", code="malformed") from error
    if len(body) > FRAME_LIMIT:
        raise LinkError(
            f"cannot write a message: {len(body)} bytes, at most {FRAME_LIMIT}", code="oversized"
        )
    return len(body).to_bytes(_HEAD, "big") + body


class Decoder:
    """Bytes in as they come, whole messages out. After an error it stays broken."""

    __slots__ = ("_buffer", "_error")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._error: LinkError | None = None

    def feed(self, chunk: bytes) -> None:
        if self._error is None:
            self._buffer += chunk

    def next_message(self) -> dict[str, Any] | None:
        """The next whole message; None when more bytes are needed."""
        if self._error is not None:
            raise self._error
        try:
            return self._next()
        except LinkError as error:
            self._error = error
            self._buffer.clear()
            raise

    def _next(self) -> dict[str, Any] | None:
        if len(self._buffer) < _HEAD:
            return None
        size = int.from_bytes(self._buffer[:_HEAD], "big")
        # Refused on the announced length: nothing is ever collected that is too long.
        if size > FRAME_LIMIT:
            raise LinkError(
                f"cannot read a message: {size} bytes announced, at most {FRAME_LIMIT}",
                code="oversized",
            )
        if len(self._buffer) < _HEAD + size:
            return None
        body = bytes(self._buffer[_HEAD : _HEAD + size])
        del self._buffer[: _HEAD + size]
        return decode_body(body)


def decode_body(body: bytes) -> dict[str, Any]:
    """Parse one message's JSON; an object of bounded depth with finite numbers and whole text."""
    try:
        message = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
        check_plain(message)
    # A bomb of brackets is a RecursionError, a number of thousands of digits a ValueError.
    except (ValueError, RecursionError) as error:
        raise LinkError(f"cannot read a message: {error}", code="malformed") from error
    if not isinstance(message, dict):
        raise LinkError("cannot read a message: not an object", code="malformed")
    return message


def check_plain(value: object, depth: int = 0) -> None:
    """Raise ValueError for what JSON allows and this link does not (NaN, huge numbers)."""
    if depth > DEPTH_LIMIT:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        if value and depth == DEPTH_LIMIT:
            raise ValueError("nested too deeply")
        for key, item in value.items():
            if not (type(key) is str and key.isascii()):
                _check_one(key)
            # Most of a message, and nothing that could be wrong with it: no call for each.
            if item is None or item is True or item is False or item == "":
                continue
            if isinstance(item, dict | list | tuple):
                check_plain(item, depth + 1)
            else:
                _check_one(item)
    elif isinstance(value, list | tuple):
        for item in value:
            check_plain(item, depth + 1)
    else:
        _check_one(value)


def _check_one(value: object) -> None:
    if isinstance(value, str):
        if not value.isascii():
            value.encode("utf-8")  # half of a surrogate pair is a UnicodeEncodeError, a ValueError
    elif isinstance(value, float):
        if not isfinite(value):
            raise ValueError("a number is not finite")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("a number is too large")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")
