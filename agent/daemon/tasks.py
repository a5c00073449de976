"""Signals to the whole agent, and how its tasks are kept up."""

import asyncio
import errno
import logging
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from agent.errors import WaError

log = logging.getLogger(__name__)

AGAIN = 5.0
"""Seconds until a task that failed begins again."""
BESIDE = ("messages", "outbox", "troubles", "webhooks")
"""Tasks without which sessions are watched all the same: their faults end no agent."""
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
_WAITS = ("disk_full", "read_only", "io", "busy")


@dataclass(slots=True)
class Signals:
    """What the machine asks of the whole agent."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
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
        """A second one changes nothing: each step of the stop is bounded in time."""
        log.info("%s: stopping in order", number.name)
        self.stop.set()


async def keep_up(name: str, begin: Callable[[], Awaitable[object]], again: float = AGAIN) -> None:
    """Run a task to its end. One that a full disk or a want of descriptors ended begins again:
    that is no reason to close sessions that are well."""
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
    """True if the disk refused it, or the machine lacks descriptors or memory."""
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
