"""A disk that forgets: an NBD server whose power cut loses what was not flushed.

Until a flush a write is in the disk's cache only. At a cut each such write is kept or lost by
chance, as in a real disk, which writes its cache in any order.
"""

import random
import socket
import struct
import threading
from pathlib import Path

_MAGIC, _OPTION_REPLY = b"NBDMAGICIHAVEOPT", 0x3E889045565A9
_REQUEST, _REPLY = 0x25609513, 0x67446698
_FLAGS = 1 | 4 | 8  # has flags, flush, forced unit access
_EXPORT_NAME, _INFO, _GO = 1, 6, 7
_READ, _WRITE, _DISCONNECT, _FLUSH = range(4)
_UNSUPPORTED = (1 << 31) + 1


class ForgetfulDisk:
    """Serves one image to one machine at a time; `cut` is what a lost power does to it."""

    def __init__(self, image: Path, address: Path) -> None:
        self._durable = bytearray(image.read_bytes())
        self._shown = bytearray(self._durable)
        self._cache: list[tuple[int, bytes]] = []
        self._chance = random.Random(0)
        self._guard = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(address))
        self._listener.listen()
        threading.Thread(target=self._serve, name="disk", daemon=True).start()

    @property
    def cached(self) -> int:
        """Writes that a cut could lose now."""
        return len(self._cache)

    def cut(self) -> tuple[int, int]:
        """Forget; how many writes were in the cache, and how many of them are lost."""
        with self._guard:
            cached, lost = len(self._cache), 0
            for offset, data in self._cache:
                if self._chance.random() < 0.5:
                    self._durable[offset : offset + len(data)] = data
                else:
                    lost += 1
            self._cache.clear()
            self._shown = bytearray(self._durable)
        return cached, lost

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                machine, _ = self._listener.accept()
            except OSError:  # closed
                return
            with machine:
                try:
                    if self._greet(machine):
                        self._answer(machine)
                except (OSError, EOFError):
                    continue

    def _greet(self, machine: socket.socket) -> bool:
        machine.sendall(_MAGIC + struct.pack(">H", 3))
        _take(machine, 4)
        while True:
            _, option, length = struct.unpack(">QII", _take(machine, 16))
            _take(machine, length)
            size = struct.pack(">QH", len(self._shown), _FLAGS)
            if option == _EXPORT_NAME:
                machine.sendall(size)
                return True
            if option not in (_INFO, _GO):
                _option_reply(machine, option, _UNSUPPORTED)
                continue
            _option_reply(machine, option, 3, struct.pack(">H", 0) + size)
            _option_reply(machine, option, 1)
            if option == _GO:
                return True

    def _answer(self, machine: socket.socket) -> None:
        while True:
            head = struct.unpack(">IHHQQI", _take(machine, 28))
            magic, flags, kind, handle, offset, length = head
            if magic != _REQUEST or kind == _DISCONNECT:
                return
            data = _take(machine, length) if kind == _WRITE else b""
            answer = b""
            with self._guard:
                if kind == _READ:
                    answer = bytes(self._shown[offset : offset + length])
                elif kind == _WRITE:
                    self._shown[offset : offset + length] = data
                    self._cache.append((offset, data))
                if kind == _FLUSH or flags & 1:
                    for at, written in self._cache:
                        self._durable[at : at + len(written)] = written
                    self._cache.clear()
            machine.sendall(struct.pack(">IIQ", _REPLY, 0, handle) + answer)


def _option_reply(machine: socket.socket, option: int, kind: int, data: bytes = b"") -> None:
    machine.sendall(struct.pack(">QIII", _OPTION_REPLY, option, kind, len(data)) + data)


def _take(machine: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = machine.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data
