"""Reports the kernel's news of changed routes; nothing is polled."""

import asyncio
import logging
import socket
from collections.abc import Callable

log = logging.getLogger(__name__)

GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, and addresses and routes of IPv4 and IPv6, of linux/rtnetlink.h."""
MESSAGE = 65536
MOST_AT_ONCE = 64


class Routes:
    """Calls `changed` for each burst of changes, in the running loop, until `close`."""

    def __init__(self, kernel: socket.socket, changed: Callable[[], None]) -> None:
        self._kernel = kernel
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(kernel.fileno(), self._read)

    @classmethod
    def open(
        cls, changed: Callable[[], None], kernel: socket.socket | None = None
    ) -> "Routes | None":
        """On `kernel`, or on a socket of its own; None where the kernel gives no news (a container,
        a unit that forbids the socket)."""
        given = kernel
        try:
            kernel = given or socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
            )
            kernel.setblocking(False)
            if given is None:
                kernel.bind((0, GROUPS))
        except OSError as error:
            if kernel is not None:
                kernel.close()
            words = "the kernel reports no route changes here (%s): the agent relies on its probes"
            log.info(words, error)
            return None
        return cls(kernel, changed)

    def close(self) -> None:
        self._loop.remove_reader(self._kernel.fileno())
        self._kernel.close()

    def _read(self) -> None:
        """Its content does not matter: the agent looks whether an address can be reached."""
        for _ in range(MOST_AT_ONCE):
            try:
                self._kernel.recv(MESSAGE)
            except BlockingIOError:
                break
            except OSError:
                break  # more than its buffer takes (ENOBUFS): also a change
        self._changed()
