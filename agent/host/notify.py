"""Tell the service manager how this process is: READY, STATUS, WATCHDOG, STOPPING.

The manager is systemd, or the agent on the process host. Sending never blocks and never raises: a
manager that does not read must not stop the process that reports to it.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

_PATH_LIMIT = 107


class Notifier:
    """Writes to one notify socket; without a socket every notice counts as sent."""

    __slots__ = ("_address", "_folder", "_sock", "unsent")

    def __init__(self, address: str = "") -> None:
        self.unsent = 0
        """Notices the manager did not take: its queue was full or its socket missing."""
        self._folder = -1
        self._address = address
        self._sock: socket.socket | None = None
        if not address:
            return
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        if address.startswith("@"):
            self._address = "\0" + address[1:]
        elif len(os.fsencode(address)) > _PATH_LIMIT:
            self._address = self._shorten(Path(address))

    def ready(self, status: str = "") -> bool:
        return self.send("READY=1", *([f"STATUS={_line(status)}"] if status else []))

    def status(self, text: str) -> bool:
        return self.send(f"STATUS={_line(text)}")

    def watchdog(self, status: str = "") -> bool:
        return self.send("WATCHDOG=1", *([f"STATUS={_line(status)}"] if status else []))

    def stopping(self, status: str = "") -> bool:
        return self.send("STOPPING=1", *([f"STATUS={_line(status)}"] if status else []))

    def extend(self, seconds: float) -> bool:
        """Ask for this much more time, counted from now."""
        return self.send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}")

    def send(self, *assignments: str) -> bool:
        """One notice of several assignments; False when it was not taken."""
        if self._sock is None:
            return True
        try:
            self._sock.sendto("\n".join(assignments).encode(), self._address)
        except OSError:
            self.unsent += 1
            return False
        return True

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def _shorten(self, path: Path) -> str:
        try:
            self._folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return str(path)
        return f"/proc/self/fd/{self._folder}/{path.name}"


def notifier_from(environment: Mapping[str, str]) -> Notifier:
    return Notifier(environment.get("NOTIFY_SOCKET", ""))


def watchdog_from(environment: Mapping[str, str], pid: int) -> float | None:
    """Seconds between two pings that the manager wants; None when it wants none of `pid`."""
    if environment.get("WATCHDOG_PID", "") not in ("", str(pid)):
        return None
    try:
        seconds = int(environment.get("WATCHDOG_USEC", "0")) / 1_000_000
    except ValueError:
        return None
    return seconds if seconds > 0 else None


def _line(text: str) -> str:
    return text.replace("\n", " ")
