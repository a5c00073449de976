"""A host is the part of the machine that starts, stops and describes workers: `systemd` or
`process`; nothing above this room knows which one it has. The life of one worker, run after run, in
systemd's order and words: a run is carried out by a process of its own, or by tasks in the process
of a pack."""

import asyncio
import logging
import math
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGABRT, SIGKILL, SIGTERM, Signals
from typing import Any, NamedTuple, Protocol

from agent.clock import boot_now
from agent.core.model import UNIT_ABSENT, InstanceId, UnitState, UnitStatus
from agent.errors import HostError
from agent.log import about

log = logging.getLogger(__name__)


Wake = Callable[[InstanceId], None]
"""Called (in the event loop, never awaited) when something about a worker may have changed."""


class Host(Protocol):
    """Starts and stops workers. Every call succeeds or raises HostError, in bounded time."""

    name: str
    boot: str
    """The name of this boot of the machine."""

    async def list(self) -> Mapping[InstanceId, UnitStatus]:
        """Return all workers that this host knows, running or failed, by one question."""

    async def status(self, instance: InstanceId) -> UnitStatus: ...

    async def start(self, instance: InstanceId) -> None:
        """Return when the worker said READY; raise HostError with the result otherwise. Starting a
        running worker does nothing."""

    async def stop(self, instance: InstanceId) -> None:
        """Stop a worker; return when no process of it is left."""

    async def restart(self, instance: InstanceId) -> None:
        await self.stop(instance)
        await self.start(instance)

    async def reset_failed(self, instance: InstanceId) -> None: ...

    def limit_memory(self, instance: InstanceId, most: int) -> None:
        """Kill a worker above `most` bytes, where no MemoryMax= of a unit does; 0 = no limit."""

    def enabled_by_operator(self, instance: InstanceId) -> bool:
        """True when an operator enabled this worker with `systemctl enable`."""
        return False

    def link_path(self, instance: InstanceId) -> Path:
        """Return the Unix socket on which that worker listens."""

    def log_path(self, instance: InstanceId) -> Path | None:
        """Return the file of that worker's output; None: the journal has it."""

    @property
    def connected(self) -> bool | None:
        """True if the machine's manager answers; None where there is no connection to lose."""

    @property
    def jobs_pending(self) -> int:
        """Starts and stops that the machine has not finished yet."""

    async def agent_is_restarting(self) -> bool:
        """True only when the machine itself says that the agent is being restarted, not stopped."""
        return False

    async def missing_address(self) -> str:
        """Return HOST:PORT that the machine could not open for the agent; "" = none."""
        return ""

    async def close(self, *, leave_workers: bool) -> None:
        """Close the connection to the machine. Live workers stay alive."""


SYSTEMDS_OWN = {
    66: "its folder or its identity file cannot be used",
    77: "the lease of its machine ended",
    200: "its working folder cannot be entered",
    203: "its program cannot be executed",
    216: "its group is unknown",
    217: "its user is unknown",
    226: "its view of the file system cannot be made (a path of its unit is missing?)",
    233: "its runtime folder cannot be made",
    238: "its state folder cannot be made",
    243: "a credential of its unit cannot be read (the file of a LoadCredential= is missing?)",
}
"""Meaning of each exit status: the worker's own, and systemd's of a program it could not start."""


def words(ended: UnitStatus) -> str:
    if not (status := ended.exit_status):
        return ended.result
    meaning = f": {SYSTEMDS_OWN[status]}" if status in SYSTEMDS_OWN else ""
    return f"{ended.result}, exit status {status}{meaning}"


ABORT_GRACE = 5.0
"""Seconds for the stack that faulthandler writes after SIGABRT."""
DELAYED = 1.0
"""Seconds of delay after which the agent takes no silence for a death."""
LEASE_OVER = 77
NEVER_RESTARTED = {66: logging.ERROR, LEASE_OVER: logging.WARNING, 78: logging.ERROR}
"""As the units' RestartPreventExitStatus=: no use of its folder; no lease; a wrong setting. Each
with the level of its line in the log."""
_INACTIVE, _FAILED = UnitState.INACTIVE, UnitState.FAILED
_ACTIVATING, _ACTIVE, _ENDING = UnitState.ACTIVATING, UnitState.ACTIVE, UnitState.DEACTIVATING


class Exit(NamedTuple):
    """The end of a run. `result` in systemd's words: exit-code, signal, core-dump; "" = in
    order."""

    result: str
    status: int = 0


UNKNOWN = Exit("exit-code")
"""The end of a run that an earlier agent had started; after a stop it counts as done."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the units that are shipped; the first three are settings of [worker]."""

    watchdog: float = math.inf
    stop_timeout: float = 30.0
    burst: int = 5
    start_timeout: float = 60.0
    restart_delay: float = 0.1
    burst_interval: float = 60.0
    polled: float = 0.0
    """Seconds between two looks of the host at the pings of all; 0: each has a timer."""


class Child(Protocol):
    pid: int
    ended: "asyncio.Future[Exit]"

    def send(self, number: Signals) -> None: ...

    async def clear(self) -> int:
        """Kill what the run left after its end; return how many there were."""

    def release(self) -> None:
        """Let the run go on after the agent's end."""


Launch = Callable[["Worker"], Child]


class Worker:
    """A worker and its runs. `status.since`: boot time at which it entered its state."""

    def __init__(
        self, id: InstanceId, limits: Limits, launch: Launch, changed: Callable[[], None]
    ) -> None:
        """Make the worker. `launch` begins the run that `status` names; HostError: it cannot."""
        self.id, self._limits, self._launch, self._changed = id, limits, launch, changed
        self._loop = asyncio.get_running_loop()
        self.status = UNIT_ABSENT
        self.child: Child | None = None
        self._cause, self._exit = "", 0
        """Why the present run is ended: watchdog, timeout, oom-kill; "" = it is not. And the exit
        status that its worker told: that of an adopted one cannot be seen."""
        self._stop_wanted, self._was_ready, self._failed_starts = False, False, 0
        self._turned: asyncio.Future[None] = self._loop.create_future()
        """Done when the worker enters another state, or is to stop."""
        self._starts: list[float] = []
        """Begins of the runs that still count."""
        self.until = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._life: asyncio.Task[None] | None = None

    @property
    def state(self) -> UnitState:
        return self.status.state

    async def start(self) -> None:
        """Start; return at READY; HostError if this or the present run ends before."""
        while self._stop_wanted and self.state is _ENDING:
            await asyncio.wait({self._turned})
        failed = self._failed_starts
        if not self.status.runs:
            self.live()
        while self.state is not _ACTIVE:
            if self._stop_wanted:
                raise HostError(f"cannot start {self.id}: it is being stopped")
            swept = self.state is not _ENDING
            if not self.status.runs or (self._failed_starts > failed and swept):
                raise HostError(f"cannot start {self.id}: its worker ended ({words(self.status)})")
            await asyncio.wait({self._turned})

    async def stop(self) -> None:
        """Stop; return when nothing of the worker is left, however long its save takes."""
        if self.status.runs:
            self._stop_wanted = True
            self._turn()
            if self.child is not None and self.state is not _ENDING:
                self._end(SIGTERM, self._limits.stop_timeout)
        while self.status.runs:
            await asyncio.wait({self._turned})

    def reset_failed(self) -> None:
        self._starts.clear()
        self.status = replace(self.status, restarts=0)
        if self.state is _FAILED:
            self._enter(_INACTIVE, result="success", exit_status=0)

    def live(self, *, after: float = 0.0) -> None:
        """Begin its runs, the first one `after` seconds: not 0 for another run of a worker that
        ended."""
        self._enter(_ACTIVATING, restarts=0, result="success", exit_status=0)
        # A worker's runs are no part of its caller's task, and take no context of it.
        work = self._lives(after)
        self._life = self._loop.create_task(work, name=f"worker {self.id}", context=Context())
        self._life.add_done_callback(_ended)

    def adopt(self, child: Child, run: str, *, moved: bool) -> None:
        """An earlier agent's worker goes on, or gives way to another run. It said READY once, maybe
        to the earlier agent: until its first ping it has the time of a start."""
        self.child, self.status = child, replace(self.status, run=run)
        self.live()
        self._enter(_ACTIVE, self._limits.start_timeout)
        if moved:
            self._end(SIGTERM, self._limits.stop_timeout)

    def let_go(self) -> None:
        """Let the worker live on after the agent's end."""
        self._limit(math.inf)
        if self._life is not None:
            self._life.cancel()
        if self.child is not None:
            self.child.release()

    def kill(self, cause: str) -> None:
        self._end(SIGKILL, math.inf, cause)

    def notice(self, said: Mapping[str, str]) -> None:
        """Take in a notice in the words of sd_notify(3)."""
        up = self.state is _ACTIVE
        if (text := said.get("STATUS")) is not None:
            self.status = replace(self.status, status_text=text[:200])
        if said.get("READY") == "1" and self.state is _ACTIVATING:
            self._enter(_ACTIVE, self._limits.watchdog)
        if said.get("EXIT_STATUS") == str(LEASE_OVER):
            self._exit = LEASE_OVER
        if said.get("STOPPING") == "1" and up:
            self._enter(_ENDING, self._limits.stop_timeout)
        elif said.get("WATCHDOG") == "1":
            self.ping()
        more = said.get("EXTEND_TIMEOUT_USEC", "")
        if more.isdecimal() and len(more) <= 12 and not up and self.until < math.inf:
            self._limit(max(self.until - self._loop.time(), int(more) / 1e6))

    def ping(self) -> None:
        """Take in a ping: the timer looks again when it fires."""
        if self.status.state is _ACTIVE:
            self.until = self._loop.time() + self._limits.watchdog

    def lose(self) -> None:
        """Note that no notice of the present run can arrive: its silence is no death."""
        if self.state is _ACTIVE:
            self._enter(_ACTIVE, lost=True)

    async def _lives(self, pause: float) -> None:
        while True:
            if pause:
                await asyncio.wait({self._turned}, timeout=0 if self._stop_wanted else pause)
                self.status = replace(self.status, restarts=self.status.restarts + 1)
            if self._stop_wanted and self.child is None:
                return self._enter(_INACTIVE)
            pause, how = self._limits.restart_delay, Exit("resources")
            if self.child is None and not self._begin():
                return self._enter(_FAILED, result="start-limit-hit")
            if self.child is not None:
                how = await self.child.ended
            if not self._was_ready:
                self._failed_starts += 1
            own = how.result or ("success" if self._was_ready or self._stop_wanted else "protocol")
            own = "success" if how is UNKNOWN and self._stop_wanted else own
            status = how.status or self._exit
            self._enter(_ENDING, result=self._cause or own, exit_status=status)
            if self.child is not None:
                with suppress(HostError):  # no look at the processes was possible
                    if killed := await self.child.clear():
                        self._log(logging.INFO, f"killed {killed} processes that it had left")
            self.child = None
            if self._stop_wanted:
                return self._enter(_INACTIVE if self.status.result == "success" else _FAILED)
            if status in NEVER_RESTARTED:
                level = NEVER_RESTARTED[status]
                self._log(level, f"ended ({words(self.status)}); the agent may start it later")
                return self._enter(_FAILED)
            self._log(logging.WARNING, f"ended ({words(self.status)}); starting it again")
            self._enter(_ACTIVATING)

    def _begin(self) -> bool:
        """Begin a run; False: the start limit is reached."""
        now = self._loop.time()
        self._starts = [at for at in self._starts if at > now - self._limits.burst_interval]
        if len(self._starts) >= self._limits.burst:
            self._log(logging.WARNING, f"ended {len(self._starts)} times: start limit reached")
            return False
        self._starts.append(now)
        self._cause, self._exit, self._was_ready = "", 0, False
        self.status = replace(self.status, run=secrets.token_hex(16), status_text="", lost=False)
        try:
            self.child = self._launch(self)
            self._enter(_ACTIVATING, self._limits.start_timeout)
        except HostError as error:
            self._log(logging.ERROR, str(error))
        return True

    def _end(self, by: Signals, within: float, cause: str = "") -> None:
        if self.child is not None:
            self._cause = self._cause or cause
            self._enter(_ENDING, within)
            self.child.send(by)

    def _limit(self, seconds: float) -> None:
        """Set the deadline. A later one needs no new timer: the old one looks again."""
        self.until = self._loop.time() + seconds
        if self._timer is not None and self._timer.when() > self.until:
            self._timer.cancel()
            self._timer = None
        timed = self.state is not _ACTIVE or not self._limits.polled
        if self._timer is None and timed and self.until < math.inf:
            self._timer = self._loop.call_at(self.until, self.look)

    def look(self) -> None:
        """Act on a deadline that is over, unless it was moved."""
        limits, late = self._limits, self._loop.time() - self.until
        self._timer = None
        if late < 0:
            self._limit(-late)
        elif self.child is None:
            return
        elif self.state is _ACTIVATING:
            self._log(logging.WARNING, "sent no READY within its start time")
            self._end(SIGTERM, limits.stop_timeout, "timeout")
        elif self.state is _ENDING:
            self._log(logging.WARNING, "did not end within its stop time; it is killed")
            self.kill("timeout")
        elif late > DELAYED + limits.polled:  # the agent was frozen, and maybe its workers too
            self._limit(limits.watchdog)
        else:
            self._log(logging.WARNING, f"sent no watchdog ping for {limits.watchdog:g} s")
            self._end(SIGABRT, ABORT_GRACE, "watchdog")

    def _log(self, level: int, what: str) -> None:
        log.log(level, "%s %s", self.id, what, extra=about(self.id))

    def _enter(self, state: UnitState, seconds: float = math.inf, **more: Any) -> None:
        pid = self.child.pid if self.child is not None else 0
        if state in (_INACTIVE, _FAILED):
            self._stop_wanted = False
        more |= {"state": state, "job_pending": self._stop_wanted}
        self.status = replace(self.status, since=boot_now(), main_pid=pid, **more)
        self._was_ready = self._was_ready or state is _ACTIVE
        self._limit(seconds)
        self._turn()
        self._changed()

    def _turn(self) -> None:
        self._turned.set_result(None)
        self._turned = self._loop.create_future()


def _ended(life: "asyncio.Task[None]") -> None:
    if not life.cancelled() and (error := life.exception()) is not None:
        log.error("internal error in the life of %s", life.get_name(), exc_info=error)
