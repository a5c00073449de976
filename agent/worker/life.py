"""The life of every worker: its log, its lock, the requests to end, its exit status."""

import asyncio
import faulthandler
import gc
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from agent.core.words import Category
from agent.errors import ConfigError, WaError
from agent.host.notify import Notifier, watchdog_from
from agent.link.server import LinkServer
from agent.link.wire import Hello
from agent.log import LEVELS, set_up_logging
from agent.worker.identity import Identity, lock_held, refuse_foreign_group

log = logging.getLogger(__name__)

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT)
MEMBER: ContextVar[str] = ContextVar("member", default="")
"""Id of the member whose run the present task is a part of, in the worker of a pack."""

Read = Callable[[str, Path], Identity]
Work = Callable[[Identity, Path], Coroutine[Any, Any, int]]


def live(id_text: str, read: Read, work: Work) -> int:
    """Live one worker's life by the environment; return the exit status."""
    set_up_worker_log(id_text, os.environ)
    faulthandler.enable()  # the watchdog's SIGABRT then shows where the worker hung
    try:
        identity, runtime = read(id_text, path_of("WA_SESSION_ROOT")), path_of("RUNTIME_DIRECTORY")
        refuse_foreign_group(identity.folder)
        with lock_held(identity.folder, identity.lineage):
            return asyncio.run(work(identity, runtime / "link.sock"))
    except WaError as error:
        log.error("%s", error)
        return error.exit_status
    except Exception:
        log.exception("the worker ended with an internal error")
        return 1


def set_up_worker_log(id_text: str, env: Mapping[str, str]) -> None:
    level = env.get("WA_LOG_LEVEL", "info").lower()
    set_up_logging(level if level in LEVELS else "info")

    def stamp(record: logging.LogRecord) -> bool:
        record.__dict__.setdefault("wa_instance", MEMBER.get() or id_text[:48])
        record.__dict__.setdefault("wa_category", str(Category.SESSION))
        return True

    for handler in logging.getLogger().handlers:
        handler.addFilter(stamp)


class Life:
    """One run of a worker: made in its event loop, spent, ended."""

    def __init__(self, hello: Hello, notifier: Notifier, watchdog: float | None) -> None:
        """`watchdog`: seconds in which the manager wants a sign of life; None = it wants none."""
        self.hello, self.notifier, self.watchdog = hello, notifier, watchdog
        self.hurry = asyncio.Event()
        """Set once the end was asked for twice."""
        self._wanted = asyncio.Event()
        self._done = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._crash: asyncio.Future[BaseException] = self._loop.create_future()

    def crashed(self, error: BaseException) -> None:
        """End without a save: the engine is in an unknown state, or may do no more."""
        if not self._crash.done():
            self._crash.set_result(error)

    def ask(self) -> None:
        """Ask for the end; asked again, the worker hurries."""
        (self.hurry if self._wanted.is_set() else self._wanted).set()

    async def stop(self) -> None:
        """End the worker by the link: return when all is saved and closed."""
        self._wanted.set()
        await self._done.wait()

    async def spend(
        self,
        works: Mapping[str, Coroutine[Any, Any, None]],
        status: Callable[[], str],
        stop: Callable[[], Awaitable[bool]],
    ) -> int:
        """Run the works until a request to end, then `stop`; return the exit status.

        `status` is the manager's status text at READY; `stop` says whether all was saved.
        """
        crash = await self._until_wanted({"ready": self._say_ready(status), **works})
        if crash is not None:
            # The engine's memory is in an unknown state: what the disk holds is better than a save.
            log.error("the engine crashed: %s: %s", type(crash).__name__, crash, exc_info=crash)
            return 1
        in_order = await stop()
        level = logging.INFO if in_order else logging.ERROR
        log.log(level, "closed in order" if in_order else "closed, but not all was saved")
        return 0 if in_order else 1

    async def end(self, server: LinkServer) -> None:
        self._done.set()
        await server.close()
        self.notifier.close()

    async def _until_wanted(
        self, works: Mapping[str, Coroutine[Any, Any, None]]
    ) -> BaseException | None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work, name=name) for name, work in works.items()]
            wanted = group.create_task(self._wanted.wait(), name="wanted")
            either: set[asyncio.Future[Any]] = {wanted, self._crash}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            for task in (*tasks, wanted):
                task.cancel()
        return self._crash.result() if self._crash.done() else None

    async def _say_ready(self, status: Callable[[], str]) -> None:
        gc.enable()
        # A full notify queue must not lose the one notice that a start waits for.
        while not self.notifier.send("READY=1", f"STATUS={status()}"):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


class ProcessLife(Life):
    """The life of this process, with its manager's environment and its signals."""

    def __init__(self, identity: Identity) -> None:
        run = os.environ.get("INVOCATION_ID") or os.urandom(16).hex()
        hello = Hello(identity.id, run, identity.engine, os.getpid())
        notifier = Notifier(os.environ.get("NOTIFY_SOCKET", ""))
        super().__init__(hello, notifier, watchdog_from(os.environ, os.getpid()))
        for number in ENDING_SIGNALS:
            self._loop.add_signal_handler(number, self.ask)

    async def end(self, server: LinkServer) -> None:
        await super().end(server)
        for number in ENDING_SIGNALS:
            # All is saved: a signal from here on may not turn a good end into a bad one.
            self._loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)


def path_of(name: str) -> Path:
    if not (value := os.environ.get(name, "").split(":")[0]):
        raise ConfigError(f"cannot start a worker: {name} is not set", field=name)
    return Path(value)
