"""The disk of `scripts/chaos vm`: it keeps what was flushed, and forgets by chance what was not."""

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.machine.forgetful import ForgetfulDisk

BLOCK = 4096
BLOCKS = 64
READ, WRITE, DISCONNECT, FLUSH = range(4)


class Client:
    """A machine's side of NBD, as much as a test needs."""

    def __init__(self, address: Path) -> None:
        self.line = socket.socket(socket.AF_UNIX)
        self.line.settimeout(20)
        self.line.connect(str(address))
        assert self.take(18)[:16] == b"NBDMAGICIHAVEOPT"
        self.line.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 0))
        self.size = struct.unpack(">QH", self.take(10))[0]

    def take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.line.recv(count - len(data))
            assert part, "the disk hung up"
            data += part
        return data

    def ask(self, kind: int, block: int = 0, data: bytes = b"", flags: int = 0) -> bytes:
        length = BLOCK if kind in (READ, WRITE) else 0
        head = struct.pack(">IHHQQI", 0x25609513, flags, kind, 7, block * BLOCK, length)
        self.line.sendall(head + data)
        assert struct.unpack(">IIQ", self.take(16)) == (0x67446698, 0, 7)
        return self.take(BLOCK) if kind == READ else b""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[ForgetfulDisk, Path]]:
    image, address = tmp_path / "image", tmp_path / "disk.sock"
    image.write_bytes(bytes(BLOCK * BLOCKS))
    made = ForgetfulDisk(image, address, seed=1)
    yield made, address
    made.close()


def test_flushed_bytes_outlive_a_power_cut_and_some_of_the_others_do_not(
    disk: tuple[ForgetfulDisk, Path],
) -> None:
    made, address = disk
    client = Client(address)
    assert client.size == BLOCK * BLOCKS
    one, two = b"1" * BLOCK, b"2" * BLOCK
    for block in range(BLOCKS):
        client.ask(WRITE, block, one)
    client.ask(FLUSH)
    for block in range(BLOCKS - 1):
        client.ask(WRITE, block, two)
    client.ask(WRITE, BLOCKS - 1, two, flags=1)  # forced unit access: it flushes
    assert made.cut() == (0, 0)
    for block in range(BLOCKS):
        assert client.ask(READ, block) == two
        client.ask(WRITE, block, one)
    assert client.ask(READ, 3) == one, "until the cut it shows what was written"
    client.line.close()

    cached, lost = made.cut()
    assert cached == BLOCKS
    assert 0 < lost < BLOCKS
    again = Client(address)
    found = [again.ask(READ, block) for block in range(BLOCKS)]
    assert found.count(two) == lost
    assert found.count(one) == BLOCKS - lost
    again.line.close()
