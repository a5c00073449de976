"""One session in a pack: its runs, each with its own lock, link and engine, ended on its own.

What systemd does for a session's own worker is done here: a run that ends by itself is begun again,
up to a limit; one that hangs is broken off. Nothing of a run goes on after its end.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.clock import boot_now
from agent.core.model import InstanceId, UnitState
from agent.engines.base import Engine, OpenEngine
from agent.errors import ConfigError, FolderUnusable, WaError
from agent.host.notify import Notifier
from agent.link.wire import Hello
from agent.log import about
from agent.worker.identity import lock_held, read_identity
from agent.worker.life import Life
from agent.worker.pack.tasks import Run, context_of
from agent.worker.run import run_session

log = logging.getLogger(__name__)

NEVER_AGAIN = frozenset({FolderUnusable.exit_status, ConfigError.exit_status})
"""Exit statuses that a restart cannot cure."""
RESTART_DELAY = 0.1
BURST, BURST_INTERVAL = 5, 60.0
"""So many starts by itself within so many seconds are the last."""
START_WITHIN, STOP_WITHIN = 60.0, 35.0
BROKEN_OFF_WITHIN = 15.0
"""Seconds for a run that was broken off; then the whole pack ends."""
LEFT_WITHIN = 2.0


@dataclass(frozen=True, slots=True)
class House:
    """What the members of one pack have in common."""

    root: Path
    """Of the sessions."""
    links: Path
    """A folder for each member's socket lies here."""
    check_folder: Callable[[Path], None]
    """Raises FolderUnusable for a session's folder that is another's."""
    open_engine: OpenEngine
    watchdog: float | None
    changed: Callable[[], None]
    """Called when a member's status is another."""
    extend: Callable[[str], object]
    """A member that saves needs more time; in the words of a notice."""
    sharers: Callable[[], int]
    broken: Callable[[str], None]
    """Ends the whole pack at once: a member cannot be ended alone."""


class _Notices(Notifier):
    """What a run says to its manager, which is its member here."""

    __slots__ = ("_take",)

    def __init__(self, take: Callable[[str, str], None]) -> None:
        super().__init__()
        self._take = take

    def send(self, *assignments: str) -> bool:
        for assignment in assignments:
            name, _, value = assignment.partition("=")
            self._take(name, value)
        return True


class MemberLife(Life):
    def __init__(self, hello: Hello, notifier: Notifier, house: House) -> None:
        super().__init__(hello, notifier, house.watchdog)
        self._house = house

    def sharers(self) -> int:
        return self._house.sharers()

    async def let_go(self, engine: Engine) -> None:
        if abandon := getattr(engine, "abandon", None):
            await abandon()


class Member:
    def __init__(self, id: InstanceId, house: House, restarts: int = 0) -> None:
        self.id = id
        self.state = UnitState.INACTIVE
        self.restarts = restarts
        self._house = house
        self._result, self._exit_status = "success", 0
        self._status_text = ""
        self._since = boot_now()
        self._starts: list[float] = []
        self._run: Run | None = None
        self._runs: asyncio.Task[None] | None = None
        self._stop_wanted = asyncio.Event()
        self._turned = asyncio.Event()

    @property
    def at_rest(self) -> bool:
        return self.state in (UnitState.INACTIVE, UnitState.FAILED)

    def status(self) -> Mapping[str, Any]:
        return {
            "state": str(self.state),
            "run": self._run.name if self._run is not None else "",
            "restarts": self.restarts,
            "result": self._result,
            "exit_status": self._exit_status,
            "status_text": self._status_text,
            "since": self._since,
        }

    @property
    def in_line(self) -> bool:
        """It is about to be started: for its agent it runs."""
        return not self.at_rest and (self._runs is None or self._runs.done())

    def line_up(self) -> None:
        self._enter(UnitState.ACTIVATING)

    async def start(self) -> None:
        """Return when it is ready, or has ended for good."""
        if self.at_rest or self.in_line:
            self._stop_wanted.clear()
            self._result, self._exit_status = "success", 0
            self._enter(UnitState.ACTIVATING)
            work = self._live()
            self._runs = asyncio.get_running_loop().create_task(work, context=Context())
        while self.state is UnitState.ACTIVATING:
            await self._turn()

    async def stop(self, *, hurry: bool = False) -> None:
        """Return when nothing of it is left."""
        if self.at_rest:
            return
        if self.in_line:
            self._enter(UnitState.INACTIVE)
            return
        self._stop_wanted.set()
        if (run := self._run) is not None and run.life is not None:
            if self.state is not UnitState.DEACTIVATING:
                run.deadline = time.monotonic() + STOP_WITHIN
                run.life.ask()
            if hurry:
                run.life.hurry.set()
        self._enter(UnitState.DEACTIVATING)
        while not self.at_rest:
            await self._turn()

    def reset_failed(self) -> None:
        self._starts.clear()
        self.restarts = 0
        if self.state is UnitState.FAILED:
            self._result, self._exit_status = "success", 0
            self._enter(UnitState.INACTIVE)

    def look(self) -> None:
        """Break off a run that hangs; end the pack where that does not help."""
        run = self._run
        if run is None or not run.deadline or time.monotonic() < run.deadline:
            return
        if run.cause:
            self._house.broken(f"{self.id} cannot be ended alone")
            return
        run.cause = "watchdog" if self.state is UnitState.ACTIVE else "timeout"
        run.deadline = time.monotonic() + BROKEN_OFF_WITHIN
        log.error("%s hangs (%s): its run is broken off", self.id, run.cause, extra=about(self.id))
        for task in list(run.tasks):
            task.cancel()

    async def _live(self) -> None:
        """Its runs, one after another."""
        while True:
            self._starts.append(boot_now())
            status = await self._run_once()
            run = self._run
            assert run is not None
            self._exit_status = max(status, 0)
            self._result = run.cause or ("exit-code" if status else "success")
            if self._stop_wanted.is_set():
                good = self._result == "success"
                self._enter(UnitState.INACTIVE if good else UnitState.FAILED)
                return
            if status in NEVER_AGAIN:
                self._enter(UnitState.FAILED)
                return
            self._starts = [at for at in self._starts if at > boot_now() - BURST_INTERVAL]
            if len(self._starts) >= BURST:
                self._result = "start-limit-hit"
                self._enter(UnitState.FAILED)
                return
            self._enter(UnitState.ACTIVATING)
            self.restarts += 1
            try:
                async with asyncio.timeout(RESTART_DELAY):
                    await self._stop_wanted.wait()
            except TimeoutError:
                continue
            self._enter(UnitState.INACTIVE)
            return

    async def _run_once(self) -> int:
        """The exit status that its process would have; -1 where it was broken off."""
        run = self._run = Run(self.id)
        run.deadline = time.monotonic() + START_WITHIN
        loop, context = asyncio.get_running_loop(), context_of(run)
        task = loop.create_task(self._work(run), name=f"run of {self.id}", context=context)
        await asyncio.wait({task})
        run.deadline = time.monotonic() + BROKEN_OFF_WITHIN
        for left in list(run.tasks):
            left.cancel()
        if run.tasks:
            await asyncio.wait(set(run.tasks), timeout=LEFT_WITHIN)
        if run.tasks:
            self._house.broken(f"{self.id} ended, and a task of it goes on")
        run.deadline = 0.0
        return -1 if task.cancelled() else task.result()

    async def _work(self, run: Run) -> int:
        house, folder = self._house, self._house.links / self.id
        try:
            identity = await asyncio.to_thread(read_identity, self.id, house.root)
            house.check_folder(identity.folder)
            folder.mkdir(mode=0o750, exist_ok=True)
            hello = Hello(self.id, run.name, identity.engine, os.getpid())
            notifier = _Notices(lambda name, value: self._said(run, name, value))
            run.life = MemberLife(hello, notifier, house)
            if self._stop_wanted.is_set():
                run.life.ask()
            with lock_held(identity.folder):
                link = folder / "link.sock"
                return await run_session(identity, link, run.life, lambda _name: house.open_engine)
        except WaError as error:
            log.error("%s", error)
            return error.exit_status
        except Exception:
            log.exception("the worker ended with an internal error")
            return 1

    def _said(self, run: Run, name: str, value: str) -> None:
        now, watchdog = time.monotonic(), self._house.watchdog
        if name == "STATUS":
            self._status_text = value[:200]
            self._house.changed()
        elif name == "READY" and self.state is UnitState.ACTIVATING:
            run.deadline = now + watchdog if watchdog else 0.0
            self._enter(UnitState.ACTIVE)
        elif name == "WATCHDOG" and self.state is UnitState.ACTIVE and not run.cause:
            run.deadline = now + watchdog if watchdog else 0.0
        elif name == "STOPPING" and self.state is UnitState.ACTIVE:
            run.deadline = now + STOP_WITHIN
            self._enter(UnitState.DEACTIVATING)
        elif name == "EXTEND_TIMEOUT_USEC" and not run.cause:
            run.deadline = max(run.deadline, now + int(value) / 1e6)
            self._house.extend(f"{name}={value}")

    def _enter(self, state: UnitState) -> None:
        if state is not self.state:
            self.state, self._since = state, boot_now()
        self._turned.set()
        self._turned = asyncio.Event()
        self._house.changed()

    async def _turn(self) -> None:
        await self._turned.wait()
