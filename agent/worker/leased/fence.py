"""The fence of a session of a fleet: it connects with a lease only, and ends with its last one.

The agent sends each new lease. Past the last one another machine may run the session. So the worker
disconnects its engine and ends, whether an agent lives or not; what it did not save stays
unsaved. Only the worker of such a session imports this.
"""

import asyncio
import ctypes
import logging
import os
import signal
import struct
import time
from collections.abc import Callable
from typing import Any

from agent.clock import boot_now
from agent.core.words import NO_LEASE, Claim, ConnectionStatus
from agent.engines.base import Engine
from agent.errors import EngineError, InvalidRequest, LeaseOver, WaError
from agent.worker.life import Life
from agent.worker.reports import Reports

log = logging.getLogger(__name__)

DISCONNECT, END, KERNEL = 1.0, 1.5, 2.0
"""Seconds past the lease: until the engine must be disconnected; until the process must have ended;
until the kernel kills it, which needs no turn of a process that hangs or is frozen. What `[fleet]
margin` leaves beyond the first is for clocks of different speed."""
LONGEST = 1e6
"""Seconds: a moment that is further away is none of the boot clock's."""
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
    """`open`: the session may run as it does, until the first lease sets an end to that."""

    def __init__(self, engine: Engine, reports: Reports, life: Life, *, open: bool) -> None:
        self._engine = engine
        self._reports = reports
        self._life = life
        self._timer = BootTimer(self._rang)
        self._kill = KillTimer()
        self._until: float | None = None
        self._opened = asyncio.Event()
        self._over = False
        self._ending: asyncio.Task[None] | None = None
        if open:
            self._opened.set()

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
        """Refuse a call that the lease does not allow."""
        self._must_hold()
        if not self._opened.is_set() and do not in WITHOUT_LEASE:
            raise EngineError(f"cannot {do}: it is {WAITING.raw}", code=NO_LEASE)

    async def take(self, until: object, *, extend: bool = False) -> None:
        """A new lease; None: the machine left its fleet. `extend`: only for one that has a lease,
        from an agent that does not know yet what its machine owns."""
        self._must_hold()
        if extend and self._until is None:
            return
        moment = None if until is None else _moment(until)
        self._timer.set(moment or 0.0)
        self._kill.set(0.0 if moment is None else moment + KERNEL)
        self._until = moment
        self._reports.instead = None
        self._opened.set()
        if lease := getattr(self._engine, "lease", None):
            await lease(moment)

    def close(self) -> None:
        """The session has no connection more, and its process goes on."""
        if self._ending is not None:
            self._ending.cancel()
        self._timer.close()
        self._kill.close()

    def _must_hold(self) -> None:
        """A lease that ended stays so, even where a newer one waits in the link: what happened
        meanwhile is not known here."""
        if self._over or (self._until is not None and boot_now() >= self._until):
            raise LeaseOver("cannot go on: the lease of this machine ended")

    def _rang(self) -> None:
        if not self._over and self._until is not None and boot_now() >= self._until:
            self._over = True
            self._timer.set(0.0)
            self._ending = asyncio.create_task(self._end(self._until), name="fence")

    async def _end(self, until: float) -> None:
        # A process host that adopted this process has no other way to learn how it ends.
        said = ("STOPPING=1", "STATUS=stopping: the lease of this machine ended")
        self._life.notifier.send(*said, f"EXIT_STATUS={LeaseOver.exit_status}")
        # The first keeps the engine from connecting again, whatever it was at.
        last = (self._engine.prepare_stop(), self._engine.disconnect())
        try:
            async with asyncio.timeout(until + DISCONNECT - boot_now()):
                await asyncio.gather(*last)
        except TimeoutError:
            log.error("the lease of this machine ended, and the engine does not disconnect")
            os._exit(LeaseOver.exit_status)
        except Exception as error:
            log.error("cannot disconnect in order: %s: %s", type(error).__name__, error)
        self._life.crashed(LeaseOver("the lease of this machine ended: disconnected"))
        await asyncio.sleep(until + END - boot_now())
        os._exit(LeaseOver.exit_status)


def _moment(until: Any) -> float:
    if not isinstance(until, int | float) or isinstance(until, bool):
        raise InvalidRequest("cannot take a lease: until is not a number", field="until")
    left = until - boot_now()
    if not left <= LONGEST:
        raise InvalidRequest("cannot take a lease: until is too far away", field="until")
    if left <= 0:
        raise LeaseOver("cannot take a lease: it has ended")
    return float(until)


class BootTimer:
    """Calls `rang` in the event loop when the boot clock shows the moment that was set."""

    def __init__(self, rang: Callable[[], None]) -> None:
        self._file = _libc.timerfd_create(time.CLOCK_BOOTTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        _check(self._file)
        asyncio.get_running_loop().add_reader(self._file, rang)

    def set(self, until: float) -> None:
        """`until` 0: it never rings."""
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
        """`until` 0: never."""
        _check(_libc.timer_settime(self._timer, _ABSOLUTE, _timespec(until), None))

    def close(self) -> None:
        _check(_libc.timer_delete(self._timer))


def _timespec(until: float) -> bytes:
    seconds = int(until)
    return struct.pack("@4l", 0, 0, seconds, int((until - seconds) * 1e9))


def _check(result: int) -> None:
    if result < 0:
        cause = os.strerror(ctypes.get_errno())
        raise WaError(f"cannot use a timer on the boot clock: {cause}")
