"""The tasks of a running agent, in one group: any one that fails ends them all, but one that a
full disk or a want of descriptors ended begins again."""

import asyncio
import errno
import gc
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from agent.backends.declared import ADVICE, one_server
from agent.config.config import Config
from agent.core.model import Category, JournalEntry
from agent.daemon.parts import Parts
from agent.errors import ConfigError, WaError
from agent.log import set_level
from agent.supervise.periodic.upkeep import check_database, log_performance, sweep_trash
from agent.supervise.periodic.usage import keep_trends
from agent.supervise.periodic.watchdog import Watchdog
from agent.supervise.start_up import take_on

log = logging.getLogger(__name__)


# What the machine asks of the whole agent: stop, hurry, read the settings again.


@dataclass(slots=True)
class Signals:
    """What the machine asks of the whole agent."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    reload: asyncio.Event = field(default_factory=asyncio.Event)

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)

    def ignore(self) -> None:
        """Nothing is left to stop: an impatient signal must not spoil the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    def _stop(self, number: signal.Signals) -> None:
        if self.stop.is_set():
            log.warning("%s again: saving without further waiting", number.name)
            self.hurry.set()
        else:
            log.info("%s: stopping in order", number.name)
            self.stop.set()


Begin = Callable[[], Awaitable[object]]
AGAIN = 5.0
"""Seconds until such a task begins again."""

BESIDE = ("messages", "outbox", "troubles", "webhooks")
"""Tasks without which sessions are watched all the same: a fault of theirs ends no agent."""
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
_WAITS = ("disk_full", "read_only", "io", "busy")


class StopAsked(Exception):
    """Ends the TaskGroup when an orderly stop was asked for."""


@dataclass(frozen=True, slots=True)
class Tasks:
    config: Config
    """As it was at the start."""
    parts: Parts
    signals: Signals
    read_config: Callable[[], Config]

    async def run(self) -> int:
        """Until a stop is asked for or a task fails; the exit status."""
        store = self.parts.supervision.ground.store
        settings = self.parts.supervision.settings
        watchdog = Watchdog(
            self.parts.supervision.loop, store.answers, lambda: settings.config.heartbeat.url
        )
        status = 0
        try:
            async with asyncio.TaskGroup() as group:
                for name, begin in self._all(watchdog).items():
                    group.create_task(keep_up(name, begin), name=name)
                # Modules and settings stay: the collector does not walk them again in each burst
                # of new sessions, and not while nothing happens.
                gc.freeze()
                watchdog.say("READY=1")
                await store.note(said("agent_started", "the agent started"))
                log.info("ready on %s", ", ".join(self.parts.server.addresses))
        except* StopAsked:
            pass
        except* Exception as failures:
            status = 1
            for failure in failures.exceptions:
                log.error("a part of the agent failed", exc_info=failure)
        watchdog.say("STOPPING=1")
        return status

    def _all(self, watchdog: Watchdog) -> dict[str, Begin]:
        """By name."""
        supervision, parts = self.parts.supervision, self.parts
        settings, views = supervision.settings, supervision.registry.views
        config, copy = self.config, self.config.agent.state_path / "agent.db.copy"
        return {
            "passes": supervision.loop.run,
            "packs": supervision.packs.run,
            "sampling": supervision.sampler.run,
            "trends": lambda: keep_trends(supervision.trends, supervision.registry.facts),
            "incidents": supervision.incidents.run,
            "addresses": supervision.reaching.run,
            "rounds": supervision.rounds.run,
            "loop lag": supervision.figures.watch_lag,
            "handover": supervision.handover.run,
            "snapshots": supervision.snapshots.run,
            "watchdog": watchdog.run,
            "heartbeat": watchdog.beat,
            "performance log": lambda: log_performance(
                views, lambda: settings.config.log.performance_interval
            ),
            "deletions": parts.supervisor.deletion.finish_deletions,
            "ports": parts.server.get_missing_ports,
            "own socket": parts.server.keep_own_socket,
            "trash": lambda: sweep_trash(
                config.session_root, lambda: settings.config.sessions.trash_days
            ),
            "database check": lambda: check_database(supervision.ground.store, copy),
            "reload": self._reload_when_asked,
            "stop": self._end_when_asked,
            "messages": parts.reader.run,
            "outbox": parts.sending.run,
            "troubles": parts.troubles.run,
            "webhooks": parts.webhooks.run,
        }

    async def _end_when_asked(self) -> None:
        await self.signals.stop.wait()
        raise StopAsked

    async def _reload_when_asked(self) -> None:
        supervision = self.parts.supervision
        await _warn_of_one_server(self.config)
        while True:
            await self.signals.reload.wait()
            self.signals.reload.clear()
            try:
                config = self.read_config()
            except ConfigError as error:
                log.error("the old settings stay in force: %s", error)
                supervision.settings.refused = True
                continue
            await take_on(config, supervision)
            self.parts.sending.take_on(config)
            self.parts.webhooks.reload(config)
            set_level(config.agent.log_level)
            await _warn_of_one_server(config)
            log.info("settings read again")


async def _warn_of_one_server(config: Config) -> None:
    for sentence in await asyncio.to_thread(lambda: list(one_server(config.backend))):
        log.warning("%s: %s", sentence, ADVICE)


async def keep_up(name: str, begin: Begin, again: float = AGAIN) -> None:
    """Run a task to its end; what the machine refused for a while is no reason to close sessions
    that are well."""
    while True:
        try:
            await begin()
        except Exception as error:
            if not ((known := _may_pass(error)) or name in BESIDE):
                raise
            words, trace = "the task %s begins again in %g s: %s", None if known else error
            log.error(words, name, again, _words(error), exc_info=trace)
            await asyncio.sleep(again)
        else:
            return


def _may_pass(error: BaseException) -> bool:
    """Whether the disk, or the machine's want of descriptors or memory, may be over later."""
    if isinstance(error, BaseExceptionGroup):
        return all(_may_pass(inner) for inner in error.exceptions)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _SCARCE:
            return True
        cause = cause.__cause__
    # A damaged database is set aside and rebuilt by the next start.
    return isinstance(error, WaError) and error.code in _WAITS


def _words(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_words(inner) for inner in error.exceptions)
    return str(error)


def said(kind: str, sentence: str) -> JournalEntry:
    return JournalEntry(kind, sentence, Category.SYSTEM, wall=time.time())
