"""The notify socket of one worker, which sends READY, WATCHDOG and STATUS to it. The kernel names
the sender of a notice, and only the worker's own process is heard."""

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from agent.files import short_path

_CREDENTIALS = struct.Struct("3i")
_ROOM = socket.CMSG_SPACE(_CREDENTIALS.size)
_PING = {"WATCHDOG": "1"}


class Notices:
    """At the path of the earlier agent's, so that its workers reach this one."""

    def __init__(self, path: Path, hear: Callable[[int, Mapping[str, str]], None]) -> None:
        self.path, self._hear = path, hear
        self._loop = asyncio.get_running_loop()
        self._folder = path.parent.stat().st_ino
        self._open()

    def _open(self) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self.path.unlink(missing_ok=True)
            with short_path(self.path) as name:
                self._sock.bind(name)
            self.path.chmod(0o600)
            self._inode = self.path.lstat().st_ino
        except OSError:
            self._sock.close()
            raise
        self.listen(at_once=True)

    def listen(self, *, at_once: bool) -> None:
        """False: who has the socket reads it now and then, for 200 workers send a thousand pings a
        minute, and each would be a turn of the loop."""
        self._loop.remove_reader(self._sock)
        if at_once:
            self._loop.add_reader(self._sock, self._read)

    def _read(self) -> None:
        """One at a time: a flood must not hold up the loop."""
        text, sent, _, _ = self._sock.recvmsg(4096, _ROOM)
        if text == b"WATCHDOG=1":
            said = _PING
        else:
            lines = text.decode(errors="replace").splitlines()
            said = dict(line.split("=", 1) for line in lines if "=" in line)
        for _level, _kind, credentials in sent:
            self._hear(_CREDENTIALS.unpack(credentials)[0], said)

    def read_all(self) -> None:
        with suppress(BlockingIOError):
            for _ in range(100):
                self._read()

    def is_reached(self) -> bool:
        """False where it was deleted, as by a cleaner of old files, or moved away: no notice came.
        It is made again, but in no other folder that stands there now."""
        with suppress(OSError):
            if self.path.lstat().st_ino == self._inode:
                return True
        with suppress(OSError):
            if self.path.parent.stat().st_ino == self._folder:
                self.close()
                self._open()
        return False

    def close(self) -> None:
        self._loop.remove_reader(self._sock)
        self._sock.close()
