"""A timer on the boot clock, which goes on while the machine sleeps: asyncio's own stand still."""

import asyncio
import ctypes
import os
import struct
import time
from collections.abc import Callable

from agent.errors import WaError

_ABSOLUTE = 1
_libc = ctypes.CDLL(None, use_errno=True)


class BootTimer:
    """Calls `rang` in the event loop when the boot clock shows the moment that was set."""

    def __init__(self, rang: Callable[[], None]) -> None:
        self._file = _libc.timerfd_create(time.CLOCK_BOOTTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file < 0:
            raise _failed("make")
        asyncio.get_running_loop().add_reader(self._file, rang)

    def set(self, until: float) -> None:
        """`until` 0: it never rings."""
        seconds = int(until)
        wanted = struct.pack("@4l", 0, 0, seconds, round((until - seconds) * 1e9))
        if _libc.timerfd_settime(self._file, _ABSOLUTE, wanted, None) < 0:
            raise _failed("set")


def _failed(verb: str) -> WaError:
    return WaError(f"cannot {verb} a timer on the boot clock: {os.strerror(ctypes.get_errno())}")
