"""The notify socket of the process host: workers send READY, WATCHDOG, STATUS. The kernel names the
sender of a notice; what its text says about the sender is ignored."""

import asyncio
import contextlib
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from agent.errors import HostError
from agent.files import short_path

log = logging.getLogger(__name__)

_CREDENTIALS = struct.Struct("3i")
_LONGEST_NOTICE = 4096
_AT_ONCE = 64
# Plain numbers: the socket module's flags are enumerations, whose arithmetic would be a good part
# of the cost of thousands of notices a minute.
_ROOM = socket.CMSG_SPACE(_CREDENTIALS.size)
_CLOSE_ON_EXEC = int(socket.MSG_CMSG_CLOEXEC)
_CUT = int(socket.MSG_TRUNC) | int(socket.MSG_CTRUNC)
_SOCKET_LEVEL, _CREDENTIALS_SENT = int(socket.SOL_SOCKET), int(socket.SCM_CREDENTIALS)
_PING = b"WATCHDOG=1"

OnNotice = Callable[[int, Mapping[str, str]], None]
"""pid of the sender, and the assignments. Plain pings are noted only."""


class NotifySocket:
    """A thread of its own listens. Nearly all notices are pings, a thousand a minute from 200
    workers: each would be a turn of the event loop, here it is a number in a table. And the kernel
    queues ten notices at most, so a busy loop would lose some.
    """

    def __init__(
        self, sock: socket.socket, path: Path, on_notice: OnNotice, known: Collection[int]
    ) -> None:
        self._sock = sock
        self._on_notice = on_notice
        self._known = known
        self._pinged: dict[int, float] = {}
        self._users = (os.geteuid(), 0)
        self._closed = False
        self._inode = path.lstat().st_ino
        self._folder = path.parent.stat().st_ino
        self._reached = True
        self._loop = asyncio.get_running_loop()
        # Bounded, so that a flood of notices cannot block the loop.
        self._room = threading.Semaphore(_AT_ONCE)
        self.path = path
        self._back = 0.0
        """When workers found it again; pings before were lost."""
        self.refused = 0
        """Dropped notices: from another user, too long, without text."""
        self._thread = threading.Thread(target=self._listen, name="notices", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, path: Path, on_notice: OnNotice, known: Collection[int]) -> "NotifySocket":
        """Bound at the path of the earlier agent, so that its workers reach this one. `known`: the
        pids whose pings count."""
        try:
            sock = _listening(path)
        except OSError as error:
            raise HostError(f"cannot listen on {path}: {error}") from error
        return cls(sock, path, on_notice, known)

    def pinged(self, pid: int) -> float:
        """When it last sent a ping, or could send one again, on the loop's clock; 0: never."""
        return max(self._pinged.get(pid, 0.0), self._back)

    def is_reached(self) -> bool:
        """Whether workers find it: its folder may have been moved away. Then no ping arrives."""
        try:
            reached = self.path.lstat().st_ino == self._inode
        except FileNotFoundError:
            reached = self._put_back()
        except OSError:
            reached = False
        if self._reached and not reached:
            words = "%s was moved away or replaced: until it is back, missing pings do not count"
            log.error(words, self.path)
        elif reached and not self._reached:
            self._back = time.monotonic()
        self._reached = reached
        return reached

    def _put_back(self) -> bool:
        """Listen at the path again where the socket alone was deleted, as a cleaner of old files
        may do; not in another folder that stands there now."""
        try:
            if self.path.parent.stat().st_ino != self._folder:
                return False
            sock = _listening(self.path)
            self._inode = self.path.lstat().st_ino
        except OSError:
            return False
        log.warning("%s was deleted: the agent made it again", self.path)
        self._back = time.monotonic()
        before, self._sock = self._sock, sock
        before.shutdown(socket.SHUT_RDWR)  # the thread goes on with the new one
        return True

    def forget(self, pid: int) -> None:
        self._pinged.pop(pid, None)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._room.release()
        self._sock.shutdown(socket.SHUT_RDWR)  # ends the thread's waiting
        self._thread.join()
        self._sock.close()
        with contextlib.suppress(OSError):
            self.path.unlink()

    # In the thread

    def _listen(self) -> None:
        while not self._closed:
            sock = self._sock
            try:
                self._take_one(sock)
            except OSError as error:
                if not self._closed:
                    log.error("cannot read the workers' notices: %s", error)
                    time.sleep(1.0)
            if sock is not self._sock:
                sock.close()

    def _take_one(self, sock: socket.socket) -> None:
        text, ancillary, flags, _ = sock.recvmsg(_LONGEST_NOTICE, _ROOM, _CLOSE_ON_EXEC)
        pid = _sender(ancillary, self._users)
        if text == _PING and pid:
            if pid in self._known:
                self._pinged[pid] = time.monotonic()
            return
        notice = _assignments(text)
        if pid and notice and not flags & _CUT:
            self._room.acquire()
            self._hand_over(pid, notice)
        elif not self._closed and sock is self._sock:
            self.refused += 1

    def _hand_over(self, pid: int, notice: Mapping[str, str]) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(self._tell, pid, notice)

    # In the event loop

    def _tell(self, pid: int, notice: Mapping[str, str]) -> None:
        self._room.release()
        if self._closed:
            return
        self._on_notice(pid, notice)


def _listening(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        _bind(sock, path)
    except OSError:
        sock.close()
        raise
    return sock


def _bind(sock: socket.socket, path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with short_path(path) as name:
        sock.bind(name)
    path.chmod(0o600)


def _sender(ancillary: list[tuple[int, int, bytes]], users: Collection[int]) -> int:
    """0 for another user's process (root's is allowed)."""
    for level, kind, content in ancillary:
        if level == _SOCKET_LEVEL and kind == _CREDENTIALS_SENT:
            pid, uid, _ = _CREDENTIALS.unpack(content[: _CREDENTIALS.size])
            return pid if uid in users else 0
    return 0


def _assignments(text: bytes) -> Mapping[str, str]:
    lines = text.decode("utf-8", "replace").splitlines()
    pairs = (line.partition("=") for line in lines)
    return {name: value for name, equals, value in pairs if equals and name}
