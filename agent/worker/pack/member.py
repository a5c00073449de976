"""One run of a session in a pack: tasks of this process, with a lock, a link and an engine of their
own. Its `Worker` begins it again, and ends it when it hangs, as it does with a process."""

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals

from agent.engines.base import OpenEngine
from agent.errors import WaError
from agent.host.life import Exit, Worker
from agent.host.notify import Notifier
from agent.link.wire import Hello
from agent.worker.identity import lock_held, read_identity, refuse_foreign_group
from agent.worker.life import Life
from agent.worker.pack.tasks import Run, context_of
from agent.worker.run import run_session

log = logging.getLogger(__name__)

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
    open_engine: OpenEngine
    watchdog: float | None
    broken: Callable[[str], None]
    """Ends the whole pack at once: a member cannot be ended alone."""
    extend: Callable[[str], object] = lambda _: None
    """A member that saves needs more time; in the words of a notice."""


class MemberRun:
    """A Child that is no process."""

    def __init__(self, house: House, worker: Worker) -> None:
        self.pid, self.run = os.getpid(), Run(worker.id)
        self._house, self._worker = house, worker
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Exit] = self._loop.create_future()
        self._life: Life | None = None
        self._asked = False
        self._last: asyncio.TimerHandle | None = None
        name, context = f"run of {worker.id}", context_of(self.run)
        self._loop.create_task(self._work(), name=name, context=context).add_done_callback(
            self._end
        )

    def send(self, number: Signals) -> None:
        if number is not SIGTERM:
            self.run.cancel()
            words = f"{self._worker.id} cannot be ended alone"
            if self._last is None:
                self._last = self._loop.call_later(BROKEN_OFF_WITHIN, self._house.broken, words)
        elif self._life is not None:
            self._life.ask()
        self._asked = True

    def listen(self, *, at_once: bool) -> None: ...

    def hears(self) -> bool:
        return True

    def release(self) -> None: ...

    async def clear(self) -> int:
        """Nothing of a run goes on after its end."""
        self.run.cancel()
        if self.run.tasks:
            await asyncio.wait(set(self.run.tasks), timeout=LEFT_WITHIN)
        if self.run.tasks:
            self._house.broken(f"{self._worker.id} ended, and a task of it goes on")
        if self._last is not None:
            self._last.cancel()
        return 0

    def _end(self, task: "asyncio.Task[int]") -> None:
        status = SIGKILL if task.cancelled() else task.result()
        result = "exit-code" if status else ""
        self.ended.set_result(Exit("signal" if task.cancelled() else result, status))

    def _notice(self, *said: str) -> None:
        self._worker.notice(dict(each.split("=", 1) for each in said))
        for each in said:
            if each.startswith("EXTEND"):
                self._house.extend(each)

    async def _work(self) -> int:
        """Return the exit status that its process would have."""
        house, id = self._house, self._worker.id
        folder = house.links / id
        try:
            identity = await asyncio.to_thread(read_identity, id, house.root)
            refuse_foreign_group(identity.folder)
            folder.mkdir(mode=0o750, exist_ok=True)
            hello = Hello(id, self._worker.status.run, identity.engine, self.pid)
            notifier = Notifier(take=self._notice)
            life = self._life = Life(hello, notifier, house.watchdog)
            if self._asked:
                life.ask()
            with lock_held(identity.folder):
                link = folder / "link.sock"
                return await run_session(identity, link, life, lambda _name: house.open_engine)
        except WaError as error:
            log.error("%s", error)
            return error.exit_status
        except Exception:
            log.exception("the worker ended with an internal error")
            return 1
