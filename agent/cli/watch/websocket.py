"""Just enough of a WebSocket's client side to listen: the handshake, text, ping, close."""

import base64
import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from typing import Any, BinaryIO

from agent.cli.client import AgentSaidNo, Client
from agent.errors import AgentUnreachable

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_LONGEST = 1 << 20


class Closed(Exception):
    """The other side ended the connection; the reason is the message."""


def listen(client: Client, path: str, *, silence: float = 60.0) -> Iterator[dict[str, Any]]:
    """Each JSON message; raises Closed or AgentUnreachable at the end."""
    sock = client.open_socket()
    try:
        sock.settimeout(silence)
        with sock.makefile("rb") as stream:
            _shake_hands(client, sock, stream, path)
            yield from _messages(sock, stream)
    except (OSError, ValueError) as error:
        raise AgentUnreachable(f"cannot listen to the agent any more: {error}") from error
    finally:
        sock.close()


def _shake_hands(client: Client, sock: socket.socket, stream: BinaryIO, path: str) -> None:
    key = base64.b64encode(os.urandom(16))
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {client.host()}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key.decode()}",
        *(f"{name}: {value}" for name, value in client.authorization().items()),
    ]
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    status = stream.readline(4096).split()
    headers: dict[bytes, bytes] = {}
    while (line := stream.readline(8192)).strip():
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip()
    if len(status) < 2:
        raise Closed("the agent closed the connection")
    if status[1] != b"101":
        body = stream.read(min(int(headers.get(b"content-length", b"0")), _LONGEST))
        raise AgentSaidNo(int(status[1]), body)
    wanted = base64.b64encode(hashlib.sha1(key + _MAGIC).digest())
    if headers.get(b"sec-websocket-accept") != wanted:
        raise Closed("the program at that address speaks no WebSocket")


def _messages(sock: socket.socket, stream: BinaryIO) -> Iterator[dict[str, Any]]:
    while True:
        kind, payload = _frame(stream)
        if kind == _TEXT:
            yield json.loads(payload)
        elif kind == _PING:
            _send(sock, _PONG, payload)
        elif kind == _CLOSE:
            with contextlib.suppress(OSError):  # it may be gone already
                _send(sock, _CLOSE, payload[:2])
            raise Closed(
                payload[2:].decode("utf-8", "replace") or "the agent closed the connection"
            )


def _frame(stream: BinaryIO) -> tuple[int, bytes]:
    first, second = _exactly(stream, 2)
    length = second & 0x7F
    if length == 126:
        length = int.from_bytes(_exactly(stream, 2), "big")
    elif length == 127:
        length = int.from_bytes(_exactly(stream, 8), "big")
    if second & 0x80 or not first & 0x80 or length > _LONGEST:
        raise Closed("the agent sent an invalid frame")
    return first & 0x0F, _exactly(stream, length)


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise Closed("the agent closed the connection")
    return data


def _send(sock: socket.socket, kind: int, payload: bytes) -> None:
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    sock.sendall(bytes((0x80 | kind, 0x80 | len(payload))) + mask + masked)
