"""What workers use, by their own word where this machine does not tell it."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from agent.core.model import InstanceId
from agent.errors import WaError
from agent.host.machine.process_tree import UNSEEN, Usage
from agent.host.machine.resources import measure
from agent.log import about
from agent.supervise.facts import Facts

log = logging.getLogger(__name__)

AT_ONCE = 16
LONGEST = 5.0
MOST = 1 << 50
"""What is said beyond it is no figure of a process."""


async def measure_whole(
    main_pids: Mapping[InstanceId, int], known: Mapping[InstanceId, Facts]
) -> dict[InstanceId, Usage]:
    """By the machine where it tells; what it does not, by the worker as far as it answers."""
    found = await asyncio.to_thread(measure, main_pids)
    turns = asyncio.Semaphore(AT_ONCE)

    async def complete(id: InstanceId) -> None:
        async with turns:
            if (facts := known.get(id)) is not None:
                found[id] = found[id].completed(await _ask(facts))

    await asyncio.gather(*(complete(id) for id in list(found) if found[id].partial))
    return found


async def _ask(facts: Facts) -> Usage:
    if facts.link is None or facts.instance.backend:
        return UNSEEN
    try:
        return parse_usage(await facts.link.call("own_use", timeout=LONGEST))
    except WaError as error:  # it hangs, or is of a version that does not know the call
        log.debug(
            "cannot read the usage of the worker of %s: %s", facts.id, error, extra=about(facts.id)
        )
        return UNSEEN


def parse_usage(told: Mapping[str, Any]) -> Usage:
    """A worker may say anything: what is no figure counts as not said."""
    return Usage(
        memory_bytes=_count(told.get("memory_bytes")),
        cpu_seconds=_seconds(told.get("cpu_seconds")),
        processes=_count(told.get("processes")),
    )


def _count(told: object) -> int | None:
    return told if type(told) is int and 0 <= told < MOST else None


def _seconds(told: object) -> float | None:
    if isinstance(told, bool) or not isinstance(told, int | float):
        return None
    return float(told) if 0 <= told < MOST else None
