"""The fence of a session of a fleet: it connects with a lease only, and ends with its last one.

The agent sends each new lease. Past the last one another machine may run the session. So the worker
disconnects its engine and ends, with or without an agent; what it did not save stays unsaved. The
worker of a session without a fleet does not import this.
"""

import asyncio
import ctypes
import logging
import os
import signal
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any

from agent import clock, errors
from agent.core.words import LEASE_OVER, NO_LEASE, Claim, ConnectionStatus
from agent.engines.base import Engine
from agent.host.notify import Notifier
from agent.worker.reports import Reports

log = logging.getLogger(__name__)

DISCONNECT, KERNEL = 1.0, 2.0
"""Seconds past the lease: until the engine must be disconnected and the process ends; until the
kernel kills it, which needs no turn of a process that hangs or is frozen. What `[fleet] margin`
leaves beyond the last is for clocks of different speed."""
LONGEST = 1e6
"""Seconds: a moment that is further away is no boot time."""
PATIENCE = 2.0
"""Seconds for which a worker that began waits without a word."""
WITHOUT_LEASE = frozenset({"lease", "probe", "own_use", "qr", "prepare_stop", "close"})
"""The calls that neither reach WhatsApp nor write into the session's folder."""
WAITING = Claim(
    ConnectionStatus.DISCONNECTED, reason=NO_LEASE, raw="waiting for this machine's lease"
)
_ABSOLUTE = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Fence:
    """Fence of one session. The sessions of a pack have one machine, so the first that ends ends
    all."""

    def __init__(self, engine: Engine, reports: Reports, notifier: Notifier) -> None:
        self._engine, self._reports, self._notifier = engine, reports, notifier
        self._timer, self._kill = BootTimer(self._rang), KillTimer()
        self._until: float | None = None
        self._opened = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None

    async def opened(self) -> None:
        """Return when the worker may connect."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._opened.wait()
        except TimeoutError:
            log.warning("not connecting: %s", WAITING.raw)
            self._reports.instead = WAITING
            self._reports.claim(WAITING)
            await self._opened.wait()

    def admit(self, do: str) -> None:
        """Refuse a call that the lease does not allow. A lease that ended stays so, even where a
        newer one waits in the link: what happened meanwhile is not known here."""
        if self._until is not None and clock.boot_now() >= self._until:
            raise _over("answer: the lease of this machine ended")
        if not self._opened.is_set() and do not in WITHOUT_LEASE:
            raise errors.EngineError(f"cannot answer {do}: it is {WAITING.raw}", code=NO_LEASE)

    async def lease(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """A new lease, `until` a moment of the boot clock. `extend`: only for a worker that has
        one, from an agent that does not know yet what its machine owns."""
        if self._until is None and args.get("extend") is True:
            return {}
        until = _moment(args.get("until"))
        self._timer.set(until)
        self._kill.set(until + KERNEL)
        self._until, self._reports.instead = until, None
        self._opened.set()
        return {}

    def close(self) -> None:
        """End the fence: the session has no connection more, and its process goes on."""
        self._timer.close()
        self._kill.close()

    def _rang(self) -> None:
        if self._ending is None and self._until is not None and clock.boot_now() >= self._until:
            self._timer.set(0.0)
            self._ending = asyncio.create_task(self._end(self._until), name="fence")

    async def _end(self, until: float) -> None:
        # A process host that adopted this process has no other way to learn how it ends.
        said = ("STOPPING=1", "STATUS=stopping: the lease of this machine ended")
        self._notifier.send(*said, f"EXIT_STATUS={LEASE_OVER}")
        try:
            async with asyncio.timeout(until + DISCONNECT - clock.boot_now()):
                # prepare_stop: or the engine would connect again, whatever it is at.
                await asyncio.gather(self._engine.prepare_stop(), self._engine.disconnect())
            log.warning("the lease of this machine ended: disconnected")
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
            log.error("the lease of this machine ended, and it cannot disconnect: %s", cause)
        finally:
            os._exit(LEASE_OVER)


def _over(doing: str) -> errors.EngineError:
    return errors.EngineError(f"cannot {doing}", code="lease_over")


def _moment(until: Any) -> float:
    if not isinstance(until, int | float) or isinstance(until, bool):
        raise errors.InvalidRequest("cannot take a lease: until is not a number", field="until")
    left = until - clock.boot_now()
    if not left <= LONGEST:
        raise errors.InvalidRequest("cannot take a lease: until is too far away", field="until")
    if left <= 0:
        raise _over("take a lease: it has ended")
    return float(until)


class BootTimer:
    """Calls `rang` in the event loop when the boot clock shows the moment that was set."""

    def __init__(self, rang: Callable[[], None]) -> None:
        self._file = _libc.timerfd_create(time.CLOCK_BOOTTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        _check(self._file)
        asyncio.get_running_loop().add_reader(self._file, rang)

    def set(self, until: float) -> None:
        """Set the boot time at which it rings; 0 = never."""
        _check(_libc.timerfd_settime(self._file, _ABSOLUTE, _timespec(until), None))

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._file)
        os.close(self._file)


class KillTimer:
    """The kernel kills this process at the moment that was set, a frozen or hanging one as well."""

    def __init__(self) -> None:
        self._timer = ctypes.c_void_p()
        event = struct.pack("@qii48x", 0, signal.SIGKILL, 0)
        _check(_libc.timer_create(time.CLOCK_BOOTTIME, event, ctypes.byref(self._timer)))

    def set(self, until: float) -> None:
        """Set the boot time of the kill; 0 = never."""
        _check(_libc.timer_settime(self._timer, _ABSOLUTE, _timespec(until), None))

    def close(self) -> None:
        _check(_libc.timer_delete(self._timer))


def _timespec(until: float) -> bytes:
    seconds = int(until)
    return struct.pack("@4l", 0, 0, seconds, int((until - seconds) * 1e9))


def _check(result: int) -> None:
    if result < 0:
        cause = os.strerror(ctypes.get_errno())
        raise errors.WaError(f"cannot use a timer on the boot clock: {cause}")
