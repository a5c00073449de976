"""What a program says as systemd's services do: READY=1, STATUS=, WATCHDOG=1."""

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

_CREDENTIALS = struct.Struct("3i")
_LONGEST = 4096
_AT_ONCE = 64

OnNotice = Callable[[dict[str, str]], None]


class Notices:
    """A socket without a file: its name is in the program's environment. The kernel names the
    sender; one of another user is not heard."""

    def __init__(self, on_notice: OnNotice) -> None:
        self._on_notice = on_notice
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        name = f"wa-program-{os.getpid()}-{os.urandom(16).hex()}"
        self._socket.bind(f"\0{name}")
        self.address = f"@{name}"
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                text, ancillary, _flags, _ = self._socket.recvmsg(
                    _LONGEST, socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(64)
                )
            except OSError:
                return
            _close_sent(ancillary)
            if _sender(ancillary) == os.geteuid():
                lines = text.decode("utf-8", "replace").splitlines()
                pairs = (line.partition("=") for line in lines)
                self._on_notice({name: value for name, mark, value in pairs if mark})


def _sender(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            return int(_CREDENTIALS.unpack(content[: _CREDENTIALS.size])[1])
    return -1


def _close_sent(ancillary: list[tuple[int, int, bytes]]) -> None:
    """sd_notify may send files to keep (FDSTORE=1); nobody keeps them here."""
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            for fd in struct.unpack(f"{len(content) // 4}i", content[: len(content) // 4 * 4]):
                with suppress(OSError):
                    os.close(fd)
