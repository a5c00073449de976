"""Reports the kernel's news of changed routes; nothing is polled."""

import asyncio
import logging
import socket
from collections.abc import Callable

log = logging.getLogger(__name__)

# linux/rtnetlink.h
RTMGRP_LINK = 0x1
RTMGRP_IPV4_IFADDR = 0x10
RTMGRP_IPV4_ROUTE = 0x40
RTMGRP_IPV6_IFADDR = 0x100
RTMGRP_IPV6_ROUTE = 0x400
GROUPS = (
    RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE
)
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
        if kernel is not None:
            kernel.setblocking(False)
            return cls(kernel, changed)
        try:
            kernel = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
            )
            kernel.setblocking(False)
            kernel.bind((0, GROUPS))
        except OSError as error:
            if kernel is not None:
                kernel.close()
            log.info(
                "the kernel reports no route changes here (%s): the agent relies on its probes",
                error,
            )
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
