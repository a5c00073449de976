"""Ports for programs that a test starts and that cannot say themselves where they listen."""

import fcntl
import os
import random
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

_FILE = Path(tempfile.gettempdir()) / f"wa-agent-test-ports-{os.getuid()}"
_GIVEN = os.open(_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
"""A process that gave a port away holds a lock on the byte of that number, until it ends."""
_OURS: set[int] = set()


def free_port() -> int:
    """Below those that the kernel hands out by itself: until its program binds it, neither a
    connection of another test nor a server on port 0 can get it. No test gets it again, neither
    here nor in a process beside this one, also while its program is stopped."""
    while True:
        port = random.SystemRandom().randrange(12_000, 20_000)
        if port in _OURS:
            continue
        with suppress(OSError):
            fcntl.lockf(_GIVEN, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            with socket.create_server(("127.0.0.1", port)):
                _OURS.add(port)
                return port
