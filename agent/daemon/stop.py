"""The orderly stop: what ends first, what is saved, what is closed. Each step has its time."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Container
from pathlib import Path

from agent.api.server import Server
from agent.clock import boot_now
from agent.config.config import StopSection
from agent.core.model import Category, InstanceId, JournalEntry
from agent.daemon.state_folder import note_stop
from agent.errors import WaError
from agent.log import about
from agent.supervise.assemble import Supervisor
from agent.supervise.facts import Facts
from agent.supervise.seats import Seats

log = logging.getLogger(__name__)


async def stop_in_order(
    supervisor: Supervisor,
    server: Server | None,
    state: Path,
    *,
    leave: bool,
) -> bool:
    """Schedules have ended with the TaskGroup; what follows keeps this order. `leave`: the agent
    is restarting, and the workers stay.

    False when the disk took not all of it: that keeps no session from being closed.
    """
    written, store = True, supervisor.store
    if server is not None:
        server.announce_end()
    supervisor.repairs.stop()
    supervisor.keeping.work.stop()
    facts = supervisor.registry.facts.values()
    every = [session for session in facts if not session.instance.backend]
    log.info("schedules stopped; %s", "workers stay" if leave else "closing every session")

    async def write(what: Awaitable[object]) -> None:
        nonlocal written
        try:
            await what
        except WaError as error:
            written = False
            log.error("cannot finish a step of the stop, continuing: %s", error)

    async def save_records() -> None:
        await write(supervisor.registry.save_all(closing=not leave))
        await write(supervisor.upkeep.keep())

    if leave:
        await save_records()
        links = [session.link for session in every if session.link is not None]
        await asyncio.gather(*(link.close() for link in links), return_exceptions=True)
    else:
        times = supervisor.settings.config.stop
        besides = {session.id for session in facts if session.instance.backend}
        await close_sessions(every, supervisor.seats, times, save_records, besides=besides)
    await supervisor.packs.close(leave_workers=leave)
    await supervisor.backends.close()
    await write(store.append(said("agent_stopped", "the agent stopped in order")))
    await write(note_stop(store, state))
    if server is not None:
        await server.close()
    supervisor.bus.close()
    await supervisor.host.close(leave_workers=leave)
    return written


async def close_sessions(
    all_facts: Collection[Facts],
    host: Seats,
    times: StopSection,
    save_records: Callable[[], Awaitable[None]],
    *,
    besides: Container[InstanceId] = (),
) -> list[InstanceId]:
    """Prepare, save, close. Returns the ids whose worker would not end in order. `besides`:
    sessions that go on: those of backends."""
    linked = [facts for facts in all_facts if facts.link is not None]
    what = f"tell {len(linked)} sessions to prepare"
    await _ask_all(linked, "prepare_stop", times.prepare, what)
    await save_records()
    await _ask_all(linked, "save", times.save, f"save {len(linked)} sessions")
    # A start may still be queued: it would begin when the agent is gone.
    units = await host.list()
    running = [id for id, unit in units.items() if unit.runs or unit.job_pending]
    running = [id for id in running if id not in besides]
    begun = boot_now()
    unclean: list[InstanceId] = []

    async def close(id: InstanceId) -> None:
        try:
            async with asyncio.timeout(times.close):
                await host.stop(id)
        except (WaError, TimeoutError) as error:
            unclean.append(id)
            words = "cannot close the worker of %s in order: %s"
            log.error(words, id, error or "too slow", extra=about(id))

    await asyncio.gather(*map(close, running))
    log.info("closed %d workers in %.1f s", len(running) - len(unclean), boot_now() - begun)
    return unclean


async def _ask_all(linked: Collection[Facts], do: str, limit: float, what: str) -> None:
    begun = boot_now()

    async def ask(facts: Facts) -> None:
        try:
            if facts.link is not None:
                await facts.link.call(do, {}, timeout=limit)
        except WaError as error:
            words = "cannot %s the session of %s: %s"
            log.warning(words, do.replace("_", " "), facts.id, error, extra=about(facts.id))

    await asyncio.gather(*map(ask, linked))
    log.info("%s: done in %.1f s", what, boot_now() - begun)


def said(kind: str, sentence: str) -> JournalEntry:
    return JournalEntry(kind, sentence, Category.SYSTEM, wall=time.time())
