"""Ports for programs that a test starts and that cannot say themselves where they listen."""

import random
import socket
from contextlib import suppress


def free_port() -> int:
    """Below those that the kernel hands out by itself: until its program binds it, neither a
    connection of another test nor a server on port 0 can get it."""
    while True:
        port = random.SystemRandom().randrange(12_000, 20_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
