"""Lines and words that both ends of the link know. No I/O, and no import that makes a worker
larger."""

import json
import os
import socket
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from agent.core.words import InstanceId
from agent.errors import LinkError, WaError, cause_of
from agent.files import short_path

VERSION = 1
_JSON = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))
LINE_LIMIT = 1 << 20
"""Bytes of one message without its line's end."""


@dataclass(frozen=True, slots=True)
class Hello:
    id: InstanceId
    run: str
    engine: str
    pid: int


class Call(NamedTuple):
    number: int
    do: str
    args: Mapping[str, Any]


def reply(number: int, value: Mapping[str, Any] | WaError) -> dict[str, Any]:
    if not isinstance(value, WaError):
        return {"t": "reply", "n": number, "value": value}
    told = {"error": str(value)[:2000], "code": value.code, "field": (value.field or "")[:80]}
    return {"t": "reply", "n": number, **told}


def read_call(line: bytes) -> Call:
    try:
        message = json.loads(line)
        call = Call(message["n"], message["do"], message["args"])
    # A bomb of brackets is a RecursionError, a number of thousands of digits a ValueError.
    except (ValueError, RecursionError, TypeError, LookupError) as error:
        raise malformed(f"it is no call: {error}") from error
    if not (type(call.number) is int and isinstance(call.do, str) and isinstance(call.args, dict)):
        raise malformed("it is no call")
    return call


def malformed(why: str) -> LinkError:
    return LinkError(f"cannot accept a message: {why:.200}", code="malformed")


def encode(message: Mapping[str, Any]) -> bytes:
    """Return the line of one message; refuse here what the other end would refuse."""
    try:
        line = _JSON.encode(message).encode()  # half of a surrogate pair is a ValueError
    except (TypeError, ValueError, RecursionError) as error:
        raise LinkError(f"cannot write a message: {error}", code="malformed") from error
    if len(line) > LINE_LIMIT:
        words = f"cannot write a message: {len(line)} bytes, at most {LINE_LIMIT}"
        raise LinkError(words, code="oversized")
    return line + b"\n"


class Lines:
    """Takes bytes in as they come, and gives whole lines out."""

    _rest = b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        for line in (*whole, self._rest):
            if len(line) > LINE_LIMIT:
                words = f"cannot read a message: more than {LINE_LIMIT} bytes"
                raise LinkError(words, code="oversized")
        yield from whole


_KIND = socket.SOCK_STREAM | socket.SOCK_NONBLOCK


def listen_at(path: Path) -> socket.socket:
    """Bind a listening socket; one left over by a dead process is replaced.

    The caller holds the instance's lock, so no live process listens there.
    """
    sock = socket.socket(socket.AF_UNIX, _KIND)
    before = os.umask(0o117)
    try:
        with short_path(path) as name:
            with suppress(FileNotFoundError):
                if not stat.S_ISSOCK(os.lstat(name).st_mode):
                    raise FileExistsError(f"{path.name} is there and is not a socket")
                os.unlink(name)  # noqa: PTH108 - the name goes through an open descriptor
            sock.bind(name)
        sock.listen(16)
    except OSError as error:
        sock.close()
        why = f"cannot listen at {path}: {cause_of(error)}"
        raise LinkError(why, code="unreachable") from error
    finally:
        os.umask(before)
    return sock


def reach(path: Path, pid: int) -> socket.socket:
    """Connect; a Unix socket does so at once or not at all. Only the process `pid` may answer."""
    sock = socket.socket(socket.AF_UNIX, _KIND)
    try:
        with short_path(path) as name:
            sock.connect(name)
    except OSError as error:
        sock.close()
        raise LinkError(f"cannot reach {path}: {cause_of(error)}", code="unreachable") from error
    if (found := peer_of(sock)) != pid:
        sock.close()
        words = f"cannot trust who listens at {path}: process {found} answers, not {pid}"
        raise LinkError(words, code="peer")
    return sock


def peer_of(sock: socket.socket) -> int:
    """Return the process at the other end, as the kernel names it."""
    return int(struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])
