"""Tell the service manager how this process is: READY, STATUS, WATCHDOG, STOPPING.

The manager is systemd, or the agent on the process host. Sending never blocks and never raises: a
manager that does not read must not stop the process that reports to it.
"""

import socket
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

from agent.files import short_path

_PATH_LIMIT = 107


class Notifier:
    """Writes to one notify socket; without a socket every notice counts as sent."""

    __slots__ = ("_address", "_sock", "_take")

    def __init__(self, address: str = "", take: Callable[..., object] | None = None) -> None:
        """Make the notifier. `take` gets each notice's assignments instead of a socket."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._take = take
        self._sock: socket.socket | None = None
        if address:
            self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._sock.setblocking(False)

    def send(self, *assignments: str) -> bool:
        """Send one notice of several assignments; False if it was not taken."""
        if self._take is not None:
            self._take(*assignments)
        if self._sock is None:
            return True
        notice = "\n".join(it.replace("\n", " ") for it in assignments).encode()
        try:
            fits = len(self._address.encode()) <= _PATH_LIMIT
            with nullcontext(self._address) if fits else short_path(Path(self._address)) as name:
                self._sock.sendto(notice, name)
        except OSError:
            return False
        return True

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def watchdog_from(environment: Mapping[str, str], pid: int) -> float | None:
    """Return seconds between two pings that the manager wants; None: it wants none of `pid`."""
    if environment.get("WATCHDOG_PID", "") not in ("", str(pid)):
        return None
    try:
        seconds = int(environment.get("WATCHDOG_USEC", "0")) / 1_000_000
    except ValueError:
        return None
    return seconds if seconds > 0 else None
