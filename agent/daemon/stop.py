"""The orderly stop: what ends first, what is saved, what is closed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Container, Coroutine
from typing import Any

from agent.api.server import Server
from agent.clock import boot_now
from agent.config.sections import StopSection
from agent.core.model import InstanceId
from agent.daemon.state_folder import StatePlaces, note_stop
from agent.daemon.tasks import said
from agent.errors import WaError
from agent.log import about
from agent.supervise.assemble import Supervision, Supervisor
from agent.supervise.facts import Facts
from agent.supervise.seats import Seats

log = logging.getLogger(__name__)


# The stop of the whole agent, in its order, each step bounded in time and logged. A second signal
# (`hurry`) skips the waiting, never the saving.


async def close_sessions(
    all_facts: Collection[Facts],
    host: Seats,
    times: StopSection,
    save_records: Callable[[], Awaitable[None]],
    *,
    hurry: asyncio.Event,
    besides: Container[InstanceId] = (),
) -> list[InstanceId]:
    """Prepare, save, close. Returns the ids whose worker would not end in order. `besides`:
    sessions that go on: those of backends."""
    linked = [facts for facts in all_facts if facts.link is not None]
    await bounded_step(
        f"tell {len(linked)} sessions to prepare",
        [_call(facts, "prepare_stop", times.prepare) for facts in linked],
        times.prepare,
        hurry,
    )
    await save_records()
    # The save is the one step that a second signal must not cut short.
    await bounded_step(
        f"save {len(linked)} sessions",
        [_call(facts, "save", times.save) for facts in linked],
        times.save,
        asyncio.Event(),
    )
    # A start may still be queued: it would begin when the agent is gone.
    units = await host.list()
    running = [id for id, unit in units.items() if unit.runs or unit.job_pending]
    running = [id for id in running if id not in besides]
    return await _close_workers(running, host, times.close)


async def leave_sessions(all_facts: Collection[Facts]) -> None:
    """Close the links to the workers and leave their sessions connected."""
    links = [facts.link for facts in all_facts if facts.link is not None]
    await asyncio.gather(*(link.close() for link in links), return_exceptions=True)


async def _close_workers(
    running: Collection[InstanceId], host: Seats, limit: float
) -> list[InstanceId]:
    begun = boot_now()
    unclean: list[InstanceId] = []

    async def close(id: InstanceId) -> None:
        try:
            async with asyncio.timeout(limit):
                await host.stop(id)
        except (WaError, TimeoutError) as error:
            unclean.append(id)
            log.error(
                "cannot close the worker of %s in order: %s",
                id,
                error or "too slow",
                extra=about(id),
            )

    await asyncio.gather(*(close(id) for id in running))
    log.info("closed %d workers in %.1f s", len(running) - len(unclean), boot_now() - begun)
    return unclean


async def _call(facts: Facts, do: str, limit: float) -> None:
    if facts.link is None:
        return
    try:
        await facts.link.call(do, {}, timeout=limit)
    except WaError as error:
        log.warning(
            "cannot %s the session of %s: %s",
            do.replace("_", " "),
            facts.id,
            error,
            extra=about(facts.id),
        )


async def _all(work: Collection[Coroutine[Any, Any, None]]) -> None:
    await asyncio.gather(*work)


async def bounded_step(
    what: str,
    work: Collection[Coroutine[Any, Any, None]],
    limit: float,
    hurry: asyncio.Event,
) -> None:
    begun = boot_now()
    if work:
        tasks = asyncio.ensure_future(_all(work))
        skip = asyncio.create_task(hurry.wait(), name="a second signal")
        await asyncio.wait([tasks, skip], timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        skip.cancel()
        if not tasks.done():
            tasks.cancel()
            await asyncio.gather(tasks, return_exceptions=True)
            log.warning("could not %s within %.1f s", what, boot_now() - begun)
            return
    log.info("%s: done in %.1f s", what, boot_now() - begun)


async def stop_in_order(
    supervision: Supervision,
    supervisor: Supervisor,
    server: Server | None,
    state: StatePlaces,
    *,
    leave: bool,
    hurry: asyncio.Event,
) -> bool:
    """Schedules have ended with the TaskGroup; what follows keeps this order.

    False when the disk took not all of it: that keeps no session from being closed.
    """
    written, ground = True, supervision.ground
    if server is not None:
        server.announce_end()
    supervisor.repairs.stop()
    supervision.keeping.work.stop()
    facts = supervision.registry.facts.values()
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
        await write(supervision.registry.save_all(closing=not leave))
        await write(supervision.handover.keep())

    if leave:
        await save_records()
        await leave_sessions(every)
    else:
        times = supervision.settings.config.stop
        besides = {session.id for session in facts if session.instance.backend}
        await close_sessions(
            every, supervision.seats, times, save_records, hurry=hurry, besides=besides
        )
    await supervision.packs.close(leave_workers=leave)
    await supervision.backends.close()
    await write(ground.store.append(said("agent_stopped", "the agent stopped in order")))
    await write(note_stop(ground.store, state))
    if server is not None:
        await server.close()
    ground.bus.close()
    await ground.host.close(leave_workers=leave)
    return written
