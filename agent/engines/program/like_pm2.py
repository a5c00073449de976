"""What pm2 gives the programs that it runs: process.send, and a standard input that stays open."""

import asyncio
import logging
import os
import socket
from contextlib import suppress

log = logging.getLogger("program")
_CHUNK = 1 << 16
_AT_ONCE = 16
READY = b'"ready"'
SHUTDOWN = b'"shutdown"\n'


class LikePm2:
    """A channel of Node's own for messages, in lines of JSON. What the program sends is read, so
    that it never waits, and dropped; of it `ready` is logged once."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.input, self._silent = os.pipe()
        """The program's standard input, and its other end, which writes nothing."""
        self.number = self._theirs.fileno()
        self.environment = {
            "NODE_CHANNEL_FD": str(self.number),
            "NODE_CHANNEL_SERIALIZATION_MODE": "json",
        }
        self._line = b""
        self._ready = False

    def begin(self) -> None:
        """The program has its ends now."""
        self._close_theirs()
        self._ours.setblocking(False)
        asyncio.get_running_loop().add_reader(self._ours, self._read)

    def ask_to_end(self) -> None:
        with suppress(OSError):
            self._ours.send(SHUTDOWN)

    def close(self) -> None:
        self._close_theirs()
        if self._ours.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._ours)
            self._ours.close()
            os.close(self._silent)

    def _close_theirs(self) -> None:
        if self._theirs.fileno() >= 0:
            self._theirs.close()
            os.close(self.input)

    def _read(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                content = self._ours.recv(_CHUNK)
            except OSError:
                return
            if not content:
                asyncio.get_running_loop().remove_reader(self._ours)
                return
            *lines, rest = (self._line + content).split(b"\n")
            self._line = rest[: len(READY) + 1]
            if READY in lines and not self._ready:
                self._ready = True
                log.info('the program says that it is ready (process.send("ready"))')
