"""Timers on the boot clock, which goes on while the machine sleeps: asyncio's own stand still."""

import asyncio
import ctypes
import os
import signal
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
        _check(self._file)
        asyncio.get_running_loop().add_reader(self._file, rang)

    def set(self, until: float) -> None:
        """`until` 0: it never rings."""
        _check(_libc.timerfd_settime(self._file, _ABSOLUTE, _moment(until), None))


class KillTimer:
    """The kernel kills this process at the moment that was set, a frozen or hanging one as well."""

    def __init__(self) -> None:
        self._timer = ctypes.c_void_p()
        event = struct.pack("@qii48x", 0, signal.SIGKILL, 0)
        _check(_libc.timer_create(time.CLOCK_BOOTTIME, event, ctypes.byref(self._timer)))

    def set(self, until: float) -> None:
        """`until` 0: never."""
        _check(_libc.timer_settime(self._timer, _ABSOLUTE, _moment(until), None))


def _moment(until: float) -> bytes:
    seconds = int(until)
    return struct.pack("@4l", 0, 0, seconds, int((until - seconds) * 1e9))


def _check(result: int) -> None:
    if result < 0:
        cause = os.strerror(ctypes.get_errno())
        raise WaError(f"cannot use a timer on the boot clock: {cause}")
