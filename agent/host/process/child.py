"""A process that the agent started or adopted, identified by its pidfd, never by its pid.

The end of an adopted one stays unknown.
"""

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass

from agent.host.machine.proc_table import is_alive, read_process


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended. Nothing set: unknown."""

    code: int | None = None
    signal: int | None = None
    dumped: bool = False

    @property
    def status(self) -> int:
        """As systemd's ExecMainStatus: the code, or the number of the signal."""
        return self.code if self.code is not None else self.signal or 0


UNTOLD = Exit()
NEVER_RESTARTED = (66, 78)
"""As the units' RestartPreventExitStatus=: its folder cannot be used; a setting is wrong."""
_CLEAN_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)


def result_of(how: Exit, *, was_ready: bool, stop_wanted: bool) -> str:
    """In systemd's words, for an end that the host did not bring about by force."""
    if how.signal is not None:
        if how.signal in _CLEAN_SIGNALS:
            return "success"
        return "core-dump" if how.dumped else "signal"
    if how.code is None:
        # How an adopted worker ended is unknown; what was asked for counts as done.
        return "success" if stop_wanted else "exit-code"
    if how.code:
        return "exit-code"
    return "success" if was_ready or stop_wanted else "protocol"


class Child:
    """`ended` is set once, when the process is gone."""

    def __init__(self, pid: int, pidfd: int, *, own: bool) -> None:
        self.pid = pid
        process = read_process(pid)
        self.start_ticks = process.start_ticks if process is not None else 0
        self._pidfd = pidfd
        self._own = own
        self._gone = False
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Exit] = self._loop.create_future()
        self._loop.add_reader(pidfd, self._readable)

    @classmethod
    def spawned(cls, pid: int) -> "Child":
        # Not yet waited for, so the pid cannot have passed to another process.
        return cls(pid, os.pidfd_open(pid), own=True)

    @classmethod
    def adopted(cls, pid: int, start_ticks: int) -> "Child | None":
        """A worker of an earlier agent; None when it is gone, even if its pid is in use."""
        child = cls._open_foreign(pid)
        if child is not None and not is_alive(pid, start_ticks):
            child.release()
            return None
        return child

    @classmethod
    def stray(cls, pid: int) -> "Child | None":
        """Recognised by its lock or its log; None when it is gone already."""
        child = cls._open_foreign(pid)
        if child is not None and (process := read_process(pid)) is not None:
            child._own = process.parent == os.getpid()
        return child

    @classmethod
    def _open_foreign(cls, pid: int) -> "Child | None":
        """None when it is gone; OSError when it cannot be seen, as without a free descriptor."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        return cls(pid, pidfd, own=False)

    def send(self, number: signal.Signals) -> None:
        """To this very process; nothing when it is gone."""
        if not self._gone:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def end(self, patience: float) -> None:
        """It may save and close first, for as long."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)  # a frozen process gets no other signal
        done, _ = await asyncio.wait([self.ended], timeout=patience)
        if not done:
            self.send(signal.SIGKILL)
            await self.ended

    def release(self) -> None:
        """Stop watching it; it lives on."""
        if not self._gone:
            self._gone = True
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)

    def _readable(self) -> None:
        how = self._reap() if self._own else UNTOLD
        self.release()
        if not self.ended.done():
            self.ended.set_result(how)

    def _reap(self) -> Exit:
        # By pidfd: no other wait can take the status away in between.
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return UNTOLD
        if result is None:
            return UNTOLD
        if result.si_code == os.CLD_EXITED:
            return Exit(code=result.si_status)
        return Exit(signal=result.si_status, dumped=result.si_code == os.CLD_DUMPED)
