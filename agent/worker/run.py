"""One worker's whole life, from its identity to its exit status."""

import asyncio
import faulthandler
import logging
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.model import Category, Claim, InstanceId
from agent.engines.base import Engine
from agent.engines.catalog import load_engine
from agent.errors import ConfigError, EngineError, WaError
from agent.host.notify import Notifier, notifier_from, watchdog_from
from agent.link.messages import Hello
from agent.link.server import LinkServer
from agent.log import LEVELS, set_up_logging
from agent.worker.calls import Calls
from agent.worker.identity import Identity, lock_held, read_identity, session_folder
from agent.worker.reports import Reports
from agent.worker.sharing import share_session
from agent.worker.stop import stop_in_order
from agent.worker.watch import tell_status, watch_engine

log = logging.getLogger(__name__)

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT)
FIRST_CONNECT = 60.0
"""Seconds an engine may take to begin to connect."""


def run_worker(id_text: str) -> int:
    """Do it all with what the environment says; return the exit status."""
    set_up_worker_log(id_text, os.environ)
    faulthandler.enable()  # the watchdog's SIGABRT then shows where the worker hung
    try:
        root, runtime = _path("WA_SESSION_ROOT"), _path("RUNTIME_DIRECTORY")
        identity = read_identity(id_text, root)
        with lock_held(identity.folder):
            return asyncio.run(_work(identity, runtime / "link.sock"))
    except WaError as error:
        log.error("%s", error)
        return error.exit_status
    except Exception:
        log.exception("the worker ended unforeseen")
        return 1


def set_up_worker_log(id_text: str, env: Mapping[str, str]) -> None:
    level = env.get("WA_LOG_LEVEL", "info").lower()
    set_up_logging(level if level in LEVELS else "info")

    def stamp(record: logging.LogRecord) -> bool:
        record.__dict__.setdefault("wa_instance", id_text[:48])
        record.__dict__.setdefault("wa_category", str(Category.SESSION))
        return True

    for each in logging.getLogger().handlers:
        each.addFilter(stamp)


@dataclass(slots=True)
class _Ending:
    """Who wants the worker to end, and how it went."""

    wanted: asyncio.Event
    hurry: asyncio.Event
    done: asyncio.Event

    def ask(self) -> None:
        (self.hurry if self.wanted.is_set() else self.wanted).set()

    async def stop(self) -> None:
        """The link's `close`: answered when all is saved and closed."""
        self.wanted.set()
        await self.done.wait()


async def _work(identity: Identity, link_path: Path) -> int:
    notifier = notifier_from(os.environ)
    reports = Reports(identity.id)
    ending = _Ending(asyncio.Event(), asyncio.Event(), asyncio.Event())
    loop = asyncio.get_running_loop()
    for number in ENDING_SIGNALS:
        loop.add_signal_handler(number, ending.ask)
    share_session(identity.folder)  # of a worker that was killed
    engine = load_engine(identity.engine)(
        session_folder(identity.folder), identity.settings, reports
    )
    calls = Calls(engine, reports, ending.stop, lambda: share_session(identity.folder))

    def current() -> Mapping[InstanceId, Claim]:
        return {identity.id: reports.current()}

    run = os.environ.get("INVOCATION_ID") or os.urandom(16).hex()
    hello = Hello(identity.id, run, identity.engine, os.getpid())
    server = await LinkServer.open(link_path, hello, calls.answer, current)
    reports.attach(server)
    try:
        crash = await _until_wanted(engine, reports, notifier, ending)
        if crash is not None:
            # Its memory is in an unknown state: what the disk holds is better than a save.
            log.error("the engine crashed: %s: %s", type(crash).__name__, crash, exc_info=crash)
            return 1
        in_order = await stop_in_order(engine, reports, notifier, ending.hurry)
        log.info("closed in order") if in_order else log.error("closed, but not all was saved")
        return 0 if in_order else 1
    finally:
        share_session(identity.folder)
        ending.done.set()
        await server.close()
        notifier.close()
        for number in ENDING_SIGNALS:
            # All is saved: a signal from here on may not turn a good end into a bad one.
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)


async def _until_wanted(
    engine: Engine, reports: Reports, notifier: Notifier, ending: _Ending
) -> BaseException | None:
    """Keep the session until somebody wants the end; return what crashed, if that is why."""
    watchdog = watchdog_from(os.environ, os.getpid())
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_say_ready(notifier, reports), name="ready"),
            group.create_task(_connect(engine), name="connect"),
            group.create_task(tell_status(reports, notifier), name="status"),
            group.create_task(watch_engine(engine, reports, notifier, watchdog), name="watch"),
        ]
        wanted = group.create_task(ending.wanted.wait(), name="wanted")
        either: set[asyncio.Future[Any]] = {wanted, reports.crash}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        for task in (*tasks, wanted):
            task.cancel()
    return reports.crash.result() if reports.crash.done() else None


async def _say_ready(notifier: Notifier, reports: Reports) -> None:
    # A full notify queue must not lose the one notice that a start waits for.
    while not notifier.ready(reports.status_text()):  # noqa: ASYNC110 - the manager tells nothing
        await asyncio.sleep(0.1)


async def _connect(engine: Engine) -> None:
    try:
        async with asyncio.timeout(FIRST_CONNECT):
            await engine.connect()
    except EngineError as error:
        log.warning("%s", error)
    except TimeoutError:
        log.error("cannot connect: the engine did not begin in %g s", FIRST_CONNECT)


def _path(name: str) -> Path:
    value = os.environ.get(name, "").split(":")[0]
    if not value:
        raise ConfigError(f"cannot start a worker: {name} is not set", field=name)
    return Path(value)
