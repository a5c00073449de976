"""A process that the agent started or adopted, identified by its pidfd, never by its pid."""

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass

from agent.host.machine.proc_table import read_process


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended. Nothing set: unknown, as of one that an earlier agent started."""

    code: int | None = None
    signal: int | None = None
    dumped: bool = False

    @property
    def status(self) -> int:
        """As systemd's ExecMainStatus: the code, or the number of the signal."""
        return self.code if self.code is not None else self.signal or 0


NEVER_RESTARTED = (66, 78)
"""As the units' RestartPreventExitStatus=: its folder cannot be used; a setting is wrong."""
_CLEAN_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)


def result_of(how: Exit, *, was_ready: bool, stop_wanted: bool) -> str:
    """In systemd's words, for an end that the host did not bring about by force."""
    if how.signal is not None and how.signal not in _CLEAN_SIGNALS:
        return "core-dump" if how.dumped else "signal"
    if how.code or how == Exit():
        # How an adopted worker ended is unknown; what was asked for counts as done.
        return "success" if stop_wanted and not how.code else "exit-code"
    return "success" if was_ready or stop_wanted or how.signal else "protocol"


class Child:
    """`ended` is set once, when the process is gone. OSError: it is gone already."""

    def __init__(self, pid: int) -> None:
        self.pid, self._pidfd = pid, os.pidfd_open(pid)
        process = read_process(pid)
        self.start_ticks = process.start_ticks if process is not None else 0
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Exit] = self._loop.create_future()
        self._loop.add_reader(self._pidfd, self._readable)

    def send(self, number: signal.Signals) -> None:
        """To this very process; nothing when it is gone."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)
                if number is not signal.SIGKILL:
                    # A frozen process gets no other signal.
                    signal.pidfd_send_signal(self._pidfd, signal.SIGCONT)

    def release(self) -> None:
        """Stop watching it; it lives on."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _readable(self) -> None:
        how = Exit()
        with contextlib.suppress(ChildProcessError):  # an earlier agent's
            # By pidfd: no other wait can take the status away in between.
            if (end := os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)) is not None:
                dumped = end.si_code == os.CLD_DUMPED
                exited = end.si_code == os.CLD_EXITED
                how = Exit(end.si_status) if exited else Exit(None, end.si_status, dumped)
        self.release()
        if not self.ended.done():
            self.ended.set_result(how)
