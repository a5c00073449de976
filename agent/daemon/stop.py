"""The orderly stop: what ends first, what is saved, what is closed."""

import asyncio
import logging
from collections.abc import Awaitable

from agent.api.server import Server
from agent.daemon.shut_down import close_sessions, leave_sessions
from agent.daemon.state_folder import StatePlaces, note_stop
from agent.daemon.tasks import said
from agent.errors import WaError
from agent.supervise.assemble import Supervision
from agent.supervise.supervisor import Supervisor

log = logging.getLogger(__name__)


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
