"""One worker of the process host: its events, in systemd's order and words.

Each event names the phases in which it means something; in others it is late and ignored. The
deadline is a value; one timer looks at it.
"""

import asyncio
import secrets
import signal
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING

from agent.clock import boot_now
from agent.core.model import InstanceId, UnitStatus
from agent.core.words import Category
from agent.errors import HostError
from agent.host.exit_words import words
from agent.host.process.child import NEVER_RESTARTED, Child, Exit, result_of
from agent.host.process.deadline import Deadline
from agent.host.process.phase import AT_REST, LIVE, STATE, Phase
from agent.log import bound

if TYPE_CHECKING:
    from agent.host.process.host import ProcessHost

ABORT_GRACE = 5.0
"""For the stack that faulthandler writes after SIGABRT."""


class ProcessWorker:
    def __init__(self, id: InstanceId, host: "ProcessHost") -> None:
        self.id = id
        self._log = bound(Category.SESSION, id, __name__)
        self.phase = Phase.DEAD
        self.run = ""
        self.child: Child | None = None
        self.restarts = 0
        self._host = host
        self._settings = host.settings
        self._result = "success"
        self._exit_status = 0
        self._status_text = ""
        self._since = 0.0
        self._cause = ""
        """Why the host ends the present run: watchdog, timeout, oom-kill; "" = it does not."""
        self._stop_wanted = False
        self._starts: list[float] = []
        """When its runs began, as far as they still count."""
        self._loop = asyncio.get_running_loop()
        self._deadline = Deadline(self._deadline_passed, self._renewed)
        self._task: asyncio.Task[None] | None = None
        self._turned: asyncio.Event | None = None
        """Set when the phase changes; None while no caller waits."""
        self._was_ready = False
        self._failed_starts = 0

    @property
    def status(self) -> UnitStatus:
        return UnitStatus(
            state=STATE[self.phase],
            run=self.run,
            main_pid=self.child.pid if self.child is not None else 0,
            restarts=self.restarts,
            result=self._result,
            exit_status=self._exit_status,
            status_text=self._status_text,
            job_pending=self._stop_wanted and self.phase not in AT_REST,
            since=self._since,
        )

    async def start(self) -> None:
        """Return when READY was said; HostError when this or the present run ends before."""
        while self.phase in (Phase.STOPPING, Phase.KILLING, Phase.SWEEPING) and self._stop_wanted:
            await self._turn()
        failed = self._failed_starts
        if self.phase in AT_REST:
            self.restarts = 0
            self._result, self._exit_status = "success", 0
            self._begin()
        while self.phase is not Phase.RUNNING:
            if self._stop_wanted:
                raise HostError(f"cannot start {self.id}: it is being stopped")
            if self.phase in AT_REST or self._failed_starts > failed:
                raise HostError(f"cannot start {self.id}: its worker ended ({self._words()})")
            await self._turn()

    async def stop(self) -> None:
        """Return when no process of it is left, however long its save takes."""
        if self.phase in AT_REST:
            return
        self._stop_wanted = True
        if self.phase is Phase.WAITING:
            self._rest(Phase.DEAD)
        elif self.phase in (Phase.STARTING, Phase.RUNNING):
            self._ask_to_stop()
        while self.phase not in AT_REST:
            await self._turn()

    def reset_failed(self) -> None:
        self._starts.clear()
        self.restarts = 0
        if self.phase is Phase.FAILED:
            self._result, self._exit_status = "success", 0
            self._enter(Phase.DEAD)

    def out_of_memory(self) -> None:
        if self.phase in (Phase.STARTING, Phase.RUNNING):
            self._kill("oom-kill")

    def spare(self) -> None:
        """The agent was delayed: the watchdog's time begins again."""
        if self.phase is Phase.RUNNING:
            self._deadline.extend(self._settings.watchdog)

    def adopt(self, child: Child, run: str, *, ready: bool, restarts: int) -> None:
        """An earlier agent started it; its watchdog's time begins again. A worker says READY once,
        maybe to an agent that was being killed: until its first ping it has the time of a start."""
        self.run, self.restarts = run, restarts
        self._take(child)
        limit = self._settings.watchdog if ready else self._settings.start_timeout
        self._enter(Phase.RUNNING, limit)

    def replace_stray(self, child: Child) -> None:
        """It may save and close first; then a run with a name begins in its place."""
        self._take(child)
        self._ask_to_stop()

    def let_go(self) -> None:
        """The agent ends, the worker lives on."""
        self._deadline.set(None)
        if self._task is not None:
            self._task.cancel()
        if self.child is not None:
            self.child.release()

    def notice(self, said: Mapping[str, str]) -> None:
        if "STATUS" in said:
            self._status_text = said["STATUS"][:200]
        if said.get("READY") == "1" and self.phase is Phase.STARTING:
            self._enter(Phase.RUNNING, self._settings.watchdog)
        if said.get("STOPPING") == "1" and self.phase is Phase.RUNNING:
            self._enter(Phase.STOPPING, self._settings.stop_timeout)
        if said.get("WATCHDOG") == "1" and self.phase is Phase.RUNNING:
            self._deadline.set(self._settings.watchdog)
        if said.get("WATCHDOG") == "trigger" and self.phase is Phase.RUNNING:
            self._abort()
        if "EXTEND_TIMEOUT_USEC" in said and self.phase in (Phase.STARTING, Phase.STOPPING):
            self._deadline.extend_by_word(said["EXTEND_TIMEOUT_USEC"])

    def _begin(self) -> None:
        """A run begins, unless the start limit is reached."""
        now = self._loop.time()
        self._starts = [at for at in self._starts if at > now - self._settings.burst_interval]
        if len(self._starts) >= self._settings.burst:
            reached = "%s: %s starts within burst_interval, start limit reached"
            self._log.warning(reached, self.id, len(self._starts))
            self._result = "start-limit-hit"
            self._rest(Phase.FAILED)
            return
        self._starts.append(now)
        self.run = secrets.token_hex(16)
        self._status_text, self._cause, self._was_ready = "", "", False
        self._enter(Phase.LAUNCHING)
        self._follow(self._launch())

    async def _launch(self) -> None:
        try:
            child = await self._host.launch(self.id, self.run)
        except HostError as error:
            self._log.error("%s", error)
            self._result, self._exit_status = "resources", 0
            self._failed_starts += 1
            self._restart_or_rest(Exit(code=1))
            return
        self._take(child)
        self._enter(Phase.STARTING, self._settings.start_timeout)
        if self._stop_wanted:
            self._ask_to_stop()

    def _take(self, child: Child) -> None:
        self.child = child
        child.ended.add_done_callback(self._ended)

    def _ask_to_stop(self) -> None:
        self._enter(Phase.STOPPING, self._settings.stop_timeout)
        self._send(signal.SIGTERM)

    def _abort(self) -> None:
        self._log.warning("%s sent no watchdog ping for %g s", self.id, self._settings.watchdog)
        self._cause = "watchdog"
        self._enter(Phase.ABORTING, ABORT_GRACE)
        self._send(signal.SIGABRT)

    def _kill(self, cause: str) -> None:
        self._cause = self._cause or cause
        self._enter(Phase.KILLING)
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.child is not None:
            self.child.send(number)
            if number is not signal.SIGKILL:
                self.child.send(signal.SIGCONT)  # a frozen process gets no other signal

    def _renewed(self) -> float:
        if self.phase is not Phase.RUNNING or self.child is None:
            return 0.0
        return self._host.notices.pinged(self.child.pid) + self._settings.watchdog

    def _deadline_passed(self, late: float) -> None:
        if self.phase is Phase.STARTING:
            self._log.warning("%s sent no READY within its start time", self.id)
            self._cause = "timeout"
            self._ask_to_stop()
        elif self.phase is Phase.RUNNING and (
            late > self._settings.watchdog / 4
            or not self._host.notices.is_reached()
            or self._renewed() > self._loop.time()
        ):
            # The agent was delayed, and its pulse has not noticed it yet; or no ping could arrive.
            self._deadline.set(self._settings.watchdog)
        elif self.phase is Phase.RUNNING:
            self._abort()
        elif self.phase in (Phase.STOPPING, Phase.ABORTING):
            self._log.warning("%s did not end within its stop time; the agent killed it", self.id)
            self._kill("timeout")
        elif self.phase is Phase.WAITING:
            self.restarts += 1
            self._begin()

    def _ended(self, ended: "asyncio.Future[Exit]") -> None:
        if ended.cancelled() or self.phase not in LIVE:
            return
        how = ended.result()
        self._result = self._cause or result_of(
            how, was_ready=self._was_ready, stop_wanted=self._stop_wanted
        )
        self._exit_status = how.status
        self._failed_starts += not self._was_ready
        self._enter(Phase.SWEEPING)
        self._follow(self._sweep(how))

    async def _sweep(self, how: Exit) -> None:
        assert self.child is not None
        killed = await self._host.kill_remains(self.child, self.run)
        if killed:
            self._log.info("killed %s processes that %s had left", killed, self.id)
        self.child = None
        self._restart_or_rest(how)

    def _restart_or_rest(self, how: Exit) -> None:
        if self._stop_wanted:
            self._rest(Phase.DEAD if self._result == "success" else Phase.FAILED)
        elif how.code in NEVER_RESTARTED:
            self._log.error("%s ended (%s); the host does not restart it", self.id, self._words())
            self._rest(Phase.FAILED)
        else:
            self._log.warning("%s ended (%s); starting it again", self.id, self._words())
            self._enter(Phase.WAITING, self._settings.restart_delay)

    def _rest(self, phase: Phase) -> None:
        self._stop_wanted = False
        self._enter(phase)

    def _words(self) -> str:
        return words(self._result, self._exit_status)

    def _enter(self, phase: Phase, time_limit: float | None = None) -> None:
        self.phase = phase
        self._was_ready = self._was_ready or phase is Phase.RUNNING
        self._since = boot_now()
        self._deadline.set(time_limit)
        if self._turned is not None:
            self._turned.set()
            self._turned = None
        self._host.changed(self)

    async def _turn(self) -> None:
        if self._turned is None:
            self._turned = asyncio.Event()
        await self._turned.wait()

    def _follow(self, work: Awaitable[None]) -> None:
        self._task = asyncio.ensure_future(work)
        self._task.add_done_callback(self._followed)

    def _followed(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            self._log.error(
                "internal error in the life cycle of worker %s", self.id, exc_info=task.exception()
            )
