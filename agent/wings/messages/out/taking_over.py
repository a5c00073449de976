"""What an agent does with the messages that the one before it left."""

import asyncio
import logging
from collections import Counter

from agent.core.model import InstanceId
from agent.daemon.wing_parts import Around
from agent.engines.catalog import entry_of
from agent.errors import WaError
from agent.log import about
from agent.wings.messages.out.file import OutboxFiles
from agent.wings.messages.out.message import OutMessage
from agent.wings.messages.out.states import UNKNOWN, State
from agent.wings.messages.out.store import OutboxStore

log = logging.getLogger(__name__)


async def take_over(
    store: OutboxStore, around: Around, files: OutboxFiles, now_wall: float
) -> list[OutMessage]:
    """Those that are to be sent, in their order. Where it fails the store is closed."""
    try:
        return await _take_over(store, around, files, now_wall)
    except WaError:
        await store.close()
        raise


async def _take_over(
    store: OutboxStore, around: Around, files: OutboxFiles, now_wall: float
) -> list[OutMessage]:
    views, fleet = around.supervisor.views(), bool(around.config.fleet.database)
    left: list[OutMessage] = []
    unsure: list[int] = []
    gone: Counter[tuple[InstanceId, float]] = Counter()
    for row in await store.waiting():
        view = views.get(row.instance)
        if (view is None and not fleet) or (view and view.instance.created_wall != row.born):
            gone[row.instance, view.instance.created_wall if view else 0.0] += 1
        elif row.begun_wall and view and not entry_of(view.instance.engine).repeats:
            unsure.append(row.number)
        else:
            left.append(row)
    why = "the agent ended while it was sent: check whether it went out"
    told = {"reason": UNKNOWN, "sentence": why, "changed_wall": now_wall}
    await store.end_all(unsure, State.FAILED, **told)
    for (instance, born), count in gone.items():
        await store.forget_instance(instance, born)
        log.warning(
            "%d messages are not sent: their instance was deleted", count, extra=about(instance)
        )
    await asyncio.to_thread(files.remove_others, {row.file for row in left})
    return left
