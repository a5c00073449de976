"""The notify socket of the process host: where workers say READY, WATCHDOG, STATUS.

The kernel tells who sent a notice; what the text says about the sender counts for nothing.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

from agent.errors import HostError

_CREDENTIALS = struct.Struct("3i")
_LONGEST_NOTICE = 4096
_AT_ONCE = 64
# Plain numbers: the socket module's flags are enumerations, and their arithmetic would be a
# good part of what thousands of notices a minute cost.
_ROOM = socket.CMSG_SPACE(_CREDENTIALS.size)
_CLOSE_ON_EXEC = int(socket.MSG_CMSG_CLOEXEC)
_CUT = int(socket.MSG_TRUNC) | int(socket.MSG_CTRUNC)
_SOCKET_LEVEL, _CREDENTIALS_SENT = int(socket.SOL_SOCKET), int(socket.SCM_CREDENTIALS)
_PING = b"WATCHDOG=1"

OnNotice = Callable[[int, Mapping[str, str]], None]
"""pid of the sender, and the assignments."""


class NotifySocket:
    def __init__(self, sock: socket.socket, path: Path, on_notice: OnNotice) -> None:
        self._sock = sock
        self._on_notice = on_notice
        self.path = path
        self.refused = 0
        """Notices that nobody could have meant: from another user, too long, without text."""
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable)

    @classmethod
    def open(cls, path: Path, on_notice: OnNotice) -> "NotifySocket":
        """Bound anew at the same path, so that workers of an earlier agent reach us."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            _bind(sock, path)
        except OSError as error:
            sock.close()
            raise HostError(f"cannot listen on {path}: {error}") from error
        return cls(sock, path, on_notice)

    def close(self) -> None:
        if self._sock.fileno() < 0:
            return
        asyncio.get_running_loop().remove_reader(self._sock.fileno())
        self._sock.close()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def _readable(self) -> None:
        # Bounded, so that a flood of notices cannot hold the loop.
        for _ in range(_AT_ONCE):
            try:
                text, ancillary, flags, _ = self._sock.recvmsg(
                    _LONGEST_NOTICE, _ROOM, _CLOSE_ON_EXEC
                )
            except (BlockingIOError, InterruptedError):
                return
            pid = _sender(ancillary)
            notice = _assignments(text)
            if pid and notice and not flags & _CUT:
                self._on_notice(pid, notice)
            else:
                self.refused += 1


def _bind(sock: socket.socket, path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    # Through the folder's descriptor: the whole path may be longer than an address can be.
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
    path.chmod(0o600)


def _sender(ancillary: list[tuple[int, int, bytes]]) -> int:
    """0 when it is not this process's own user (or root, who may do anything anyway)."""
    for level, kind, content in ancillary:
        if level == _SOCKET_LEVEL and kind == _CREDENTIALS_SENT:
            pid, uid, _ = _CREDENTIALS.unpack(content[: _CREDENTIALS.size])
            return pid if uid in (os.geteuid(), 0) else 0
    return 0


def _assignments(text: bytes) -> Mapping[str, str]:
    if text == _PING:  # nearly all there ever is
        return {"WATCHDOG": "1"}
    lines = text.decode("utf-8", "replace").splitlines()
    pairs = (line.partition("=") for line in lines)
    return {name: value for name, equals, value in pairs if equals and name}
