"""One worker of the process host: its runs, in systemd's order and words."""

import asyncio
import math
import secrets
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from agent.clock import boot_now
from agent.core.model import InstanceId, UnitState, UnitStatus
from agent.core.words import Category
from agent.errors import HostError
from agent.host.exit_words import words
from agent.host.process.child import NEVER_RESTARTED, Child, Exit, result_of
from agent.host.process.notices import Notices
from agent.log import bound

if TYPE_CHECKING:
    from agent.host.process.host import ProcessHost

ABORT_GRACE = 5.0
"""For the stack that faulthandler writes after SIGABRT."""
AT_REST = (UnitState.INACTIVE, UnitState.FAILED)


class ProcessWorker:
    def __init__(self, id: InstanceId, host: "ProcessHost") -> None:
        self.id, self._host, self._settings = id, host, host.settings
        self._log = bound(Category.SESSION, id, __name__)
        self._loop = asyncio.get_running_loop()
        self.state, self.run, self.restarts = UnitState.INACTIVE, "", 0
        self.child: Child | None = None
        self._notices: Notices | None = None
        self._result, self._exit_status, self._text, self._since = "success", 0, "", 0.0
        self._cause = ""
        """Why the host ends the present run: watchdog, timeout, oom-kill; "" = it does not."""
        self._was_ready, self._failed_starts = False, 0
        self._stop_wanted, self._turned = asyncio.Event(), asyncio.Event()
        self._starts: list[float] = []
        """When its runs began, as far as they still count."""
        self._until = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._life: asyncio.Task[None] | None = None

    @property
    def status(self) -> UnitStatus:
        return UnitStatus(
            state=self.state,
            run=self.run,
            main_pid=self.child.pid if self.child is not None else 0,
            restarts=self.restarts,
            result=self._result,
            exit_status=self._exit_status,
            status_text=self._text,
            job_pending=self._stop_wanted.is_set() and self.state not in AT_REST,
            since=self._since,
        )

    async def start(self) -> None:
        """Return when READY was said; HostError when this or the present run ends before."""
        while self._stop_wanted.is_set() and self.state is UnitState.DEACTIVATING:
            await self._turned.wait()
        failed = self._failed_starts
        if self.state in AT_REST:
            self.restarts, self._result, self._exit_status = 0, "success", 0
            self.live(None)
        while self.state is not UnitState.ACTIVE:
            if self._stop_wanted.is_set():
                raise HostError(f"cannot start {self.id}: it is being stopped")
            swept = self.state is not UnitState.DEACTIVATING
            if self.state in AT_REST or (self._failed_starts > failed and swept):
                raise HostError(f"cannot start {self.id}: its worker ended ({self._words()})")
            await self._turned.wait()

    async def stop(self) -> None:
        """Return when no process of it is left, however long its save takes."""
        if self.state not in AT_REST:
            self._stop_wanted.set()
            if self.child is not None and self.state is not UnitState.DEACTIVATING:
                self._ask_to_stop()
        while self.state not in AT_REST:
            await self._turned.wait()

    def reset_failed(self) -> None:
        self._starts.clear()
        self.restarts = 0
        if self.state is UnitState.FAILED:
            self._result, self._exit_status = "success", 0
            self._enter(UnitState.INACTIVE)

    def live(self, child: Child | None, run: str = "", *, replace: bool = False) -> None:
        """`child`: an earlier agent's worker, which goes on, or gives way to another run. It said
        READY once, maybe to the earlier agent: until its first ping it has the time of a start."""
        self.run = run
        self.child = child
        if replace:
            self._ask_to_stop()
        else:
            state = UnitState.ACTIVATING if child is None else UnitState.ACTIVE
            self._enter(state, self._settings.start_timeout)
        self._life = asyncio.create_task(self._lives(), name=f"worker {self.id}")
        self._life.add_done_callback(self._over)

    def hear(self, path: Path) -> None:
        """Notices come to this path from now on."""
        if self._notices is not None:
            self._notices.close()
        self._notices = Notices(path, self._notice)

    def read(self) -> None:
        if self._notices is not None and self.state is UnitState.ACTIVE:
            self._notices.read_all()

    def spare(self) -> None:
        """The agent was delayed: the watchdog's time begins again."""
        if self.state is UnitState.ACTIVE:
            self._limit(self._settings.watchdog)

    def let_go(self) -> None:
        """The agent ends, the worker lives on."""
        self._limit(math.inf)
        if self._life is not None:
            self._life.cancel()
        if self.child is not None:
            self.child.release()
        if self._notices is not None:
            self._notices.close()

    def kill(self, cause: str) -> None:
        if self.child is not None:
            self._cause = self._cause or cause
            self._enter(UnitState.DEACTIVATING)
            self.child.send(signal.SIGKILL)

    def _notice(self, pid: int, said: Mapping[str, str]) -> None:
        if self.child is None or pid != self.child.pid:
            return
        settings, up = self._settings, self.state is UnitState.ACTIVE
        self._text = said.get("STATUS", self._text)[:200]
        if said.get("READY") == "1" and self.state is UnitState.ACTIVATING:
            self._enter(UnitState.ACTIVE, settings.watchdog)
        if said.get("STOPPING") == "1" and up:
            self._enter(UnitState.DEACTIVATING, settings.stop_timeout)
        elif said.get("WATCHDOG") == "1" and up:
            self._limit(settings.watchdog)
        elif said.get("WATCHDOG") == "trigger" and up:
            self._abort()
        more = said.get("EXTEND_TIMEOUT_USEC", "")
        if more.isdecimal() and len(more) <= 12 and not up and self._until < math.inf:
            self._limit(max(self._until - self._loop.time(), int(more) / 1e6))

    async def _lives(self) -> None:
        while True:
            how = Exit(code=1)
            try:
                if self.child is None:
                    if not self._begin():
                        return None
                    self.child = await self._host.launch(self)
                    self._enter(UnitState.ACTIVATING, self._settings.start_timeout)
                    if self._stop_wanted.is_set():
                        self._ask_to_stop()
            except HostError as error:
                self._log.error("%s", error)
                self._result, self._exit_status = "resources", 0
                self._failed_starts += 1
            if self.child is not None:
                how = await self.child.ended
                self._note_end(how)
                if killed := await self._host.kill_remains(self.child, self.run):
                    self._log.info("killed %s processes that %s had left", killed, self.id)
                self.child = None
            if self._stop_wanted.is_set():
                good = self._result == "success"
                return self._enter(UnitState.INACTIVE if good else UnitState.FAILED)
            if how.code in NEVER_RESTARTED:
                self._log.error("%s ended (%s); it is not started again", self.id, self._words())
                return self._enter(UnitState.FAILED)
            self._log.warning("%s ended (%s); starting it again", self.id, self._words())
            self._enter(UnitState.ACTIVATING)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop_wanted.wait(), self._settings.restart_delay)
                return self._enter(UnitState.INACTIVE)
            self.restarts += 1

    def _begin(self) -> bool:
        """False: the start limit is reached."""
        now = self._loop.time()
        self._starts = [at for at in self._starts if at > now - self._settings.burst_interval]
        if len(self._starts) >= self._settings.burst:
            reached = "%s: %s starts within burst_interval, start limit reached"
            self._log.warning(reached, self.id, len(self._starts))
            self._result = "start-limit-hit"
            self._enter(UnitState.FAILED)
            return False
        self._starts.append(now)
        self.run = secrets.token_hex(16)
        self._text, self._cause, self._was_ready = "", "", False
        self._enter(UnitState.ACTIVATING)
        return True

    def _note_end(self, how: Exit) -> None:
        wanted = self._stop_wanted.is_set()
        own = result_of(how, was_ready=self._was_ready, stop_wanted=wanted)
        self._result, self._exit_status = self._cause or own, how.status
        self._failed_starts += not self._was_ready
        self._enter(UnitState.DEACTIVATING)

    def _ask_to_stop(self) -> None:
        self._enter(UnitState.DEACTIVATING, self._settings.stop_timeout)
        assert self.child is not None
        self.child.send(signal.SIGTERM)

    def _abort(self) -> None:
        self._log.warning("%s sent no watchdog ping for %g s", self.id, self._settings.watchdog)
        self._cause = "watchdog"
        self._enter(UnitState.DEACTIVATING, ABORT_GRACE)
        assert self.child is not None
        self.child.send(signal.SIGABRT)

    def _limit(self, seconds: float) -> None:
        """Moving it later costs no new timer: the old one looks again when it fires."""
        self._until = self._loop.time() + seconds
        if self._timer is not None and self._timer.when() > self._until:
            self._timer.cancel()
            self._timer = None
        if self._timer is None and self._until < math.inf:
            self._timer = self._loop.call_at(self._until, self._look)

    def _look(self) -> None:
        late = self._loop.time() - self._until
        self._timer = None
        if late < 0:
            self._limit(-late)
        elif self.child is None:
            return
        elif self.state is UnitState.ACTIVATING:
            self._log.warning("%s sent no READY within its start time", self.id)
            self._cause = "timeout"
            self._ask_to_stop()
        elif self.state is UnitState.DEACTIVATING:
            self._log.warning("%s did not end within its stop time; the agent killed it", self.id)
            self.kill("timeout")
        elif late > self._settings.watchdog / 4 or not self._hears():
            # The agent was delayed, or no ping could arrive.
            self._limit(self._settings.watchdog)
        elif self._until <= self._loop.time():
            self._abort()

    def _hears(self) -> bool:
        self.read()
        return self._notices is not None and self._notices.is_reached()

    def _words(self) -> str:
        return words(self._result, self._exit_status)

    def _enter(self, state: UnitState, seconds: float = math.inf) -> None:
        self.state = state
        self._was_ready = self._was_ready or state is UnitState.ACTIVE
        if state in AT_REST:
            self._stop_wanted.clear()
        if self._notices is not None:
            self._notices.listen(at_once=state is not UnitState.ACTIVE)
        self._since = boot_now()
        self._limit(seconds)
        self._turned.set()
        self._turned = asyncio.Event()
        self._host.wake(self.id)

    def _over(self, life: "asyncio.Task[None]") -> None:
        if not life.cancelled() and life.exception() is not None:
            told = "internal error in the life cycle of worker %s"
            self._log.error(told, self.id, exc_info=life.exception())
