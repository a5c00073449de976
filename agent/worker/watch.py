"""The worker's link in the chain of watchdogs.

A ping goes out only after the engine answered a probe in time, so a blocked loop, a dead
engine and a stuck one all end in the manager's restart. An engine that answers "my session
does not answer" is alive: that session is the agent's to repair.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from agent.clock import boot_now
from agent.engines.base import Engine
from agent.errors import EngineError
from agent.host.notify import Notifier
from agent.worker.reports import Reports

log = logging.getLogger(__name__)

PROBE_EVERY = 10.0
"""Seconds between two probes if no watchdog asks for pings."""
SLOW = 5.0
"""Seconds of an answer, as [health] slow: the agent itself measures a longer one."""
STATUS_AGAIN = 0.2
_EVERY = 0.4
_LIMIT = 0.5
"""Shares of the watchdog's time: begin of a probe to begin of the next, and for one probe.
Together below 1, so that one slow but good answer never costs the worker its life."""


async def watch_engine(
    engine: Engine, reports: Reports, notifier: Notifier, watchdog: float | None
) -> None:
    """Probe for ever: tell the manager that the engine answers, or the agent that it shall ask."""
    every = min(PROBE_EVERY, watchdog * _EVERY) if watchdog else PROBE_EVERY
    limit = watchdog * _LIMIT if watchdog else PROBE_EVERY
    answered = True
    while True:
        begun = time.monotonic()
        before, answered = answered, await _answers(engine, reports, limit)
        if answered:
            notifier.send("WATCHDOG=1")
        if before != answered:
            how = "answers again" if answered else "does not answer: no ping"
            log.log(logging.INFO if answered else logging.ERROR, "the engine %s", how)
        await asyncio.sleep(max(0.0, begun + every - time.monotonic()))


async def tell_status(
    changed: asyncio.Event, text_now: Callable[[], str], notifier: Notifier
) -> None:
    """Keep STATUS= up to date. Only a change is sent: each one wakes the manager."""
    last = ""
    while True:
        await changed.wait()
        changed.clear()
        if (text := text_now()) == last:
            continue
        if notifier.send(f"STATUS={text}"):
            last = text
        else:
            await asyncio.sleep(STATUS_AGAIN)  # the manager's queue is full
            changed.set()


async def _answers(engine: Engine, reports: Reports, limit: float) -> bool:
    """True if the engine answers. A session found to be not as it was is reported again: at rest
    the agent asks only then."""
    begun, before = boot_now(), reports.current()
    answers = well = False
    try:
        async with asyncio.timeout(limit):
            answer = await engine.probe()
        answers, well = True, reports.renew(answer.claim) == before and boot_now() - begun < SLOW
    except EngineError:
        answers = True
    except TimeoutError:
        pass
    except Exception:
        log.exception("cannot probe the engine: internal error")
    if not well:
        reports.repeat()
    return answers
