"""Carry out one action on one instance, with its deadline, and say how it went."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from agent.clock import boot_now
from agent.core.model import Action, ActionKind, Outcome
from agent.errors import EngineError, LinkError, WaError
from agent.host.base import Host, Limits
from agent.log import about
from agent.supervise.facts import Facts
from agent.supervise.set_aside import set_aside

log = logging.getLogger(__name__)

T = TypeVar("T")
CALL_TIMEOUT = 15.0
REMOTE_TIMEOUT = 120.0
"""A server takes its time over what it does to a session."""


@dataclass(frozen=True, slots=True)
class Hands:
    """What acting needs of the rest."""

    host: Host
    session_root: Path
    limits: Callable[[Facts], Limits]
    call_timeout: Callable[[], float]


async def execute(facts: Facts, action: Action, hands: Hands) -> Outcome:
    """Never raises what the world does wrong: that is the outcome."""
    begun = boot_now()
    try:
        await _do(facts, action.kind, hands)
    except EngineError as error:
        return Outcome(action, False, boot_now() - begun, str(error), error.code or "")
    except WaError as error:
        return Outcome(action, False, boot_now() - begun, str(error))
    except TimeoutError:
        return Outcome(action, False, boot_now() - begun, "it took too long")
    return Outcome(action, True, boot_now() - begun)


async def to_its_end(facts: Facts, work: Coroutine[Any, Any, T], name: str) -> T | None:
    """A task of its own, so that a stop may interrupt a start that takes long; None: it did."""
    task = asyncio.create_task(work, name=name)
    facts.action.task = task
    try:
        await asyncio.wait([task])
        return None if task.cancelled() else task.result()
    finally:
        # A cancelled action ends before this task: the code that closes all workers afterwards
        # must find what it had asked of the host.
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        facts.action.task = None


async def hold_to_limits(facts: Facts, hands: Hands) -> None:
    """Hold a running worker to its limits once per run, and when its settings change.

    However it came to run: adopted, started by its host, by hand, by a repair, at boot.
    """
    changed, facts.asked.new_limits = facts.asked.new_limits, False
    if not facts.unit.runs or (facts.unit.run == facts.limited_run and not changed):
        return
    facts.limited_run = facts.unit.run
    try:
        await hands.host.set_limits(facts.id, hands.limits(facts))
    except WaError as error:
        log.warning(
            "cannot set the limits of %s: %s; its next run gets them",
            facts.id,
            error,
            extra=about(facts.id),
        )


def _do(facts: Facts, kind: ActionKind, hands: Hands) -> Awaitable[object]:
    match kind:
        case ActionKind.START:
            return start(facts, hands)
        case ActionKind.STOP:
            return hands.host.stop(facts.id)
        case ActionKind.RESTART:
            return restart(facts, hands)
        case ActionKind.RESET_FAILED:
            return hands.host.reset_failed(facts.id)
        case ActionKind.CONNECT | ActionKind.DISCONNECT:
            return _call(facts, kind, hands.call_timeout())
        case ActionKind.RENEW:
            return _renew(facts, hands)
    raise AssertionError(f"no hand for {kind}")


async def start(facts: Facts, hands: Hands) -> None:
    """Every start of ours, whoever decided it: held to its limits, and a stop may interrupt it."""
    await hands.host.set_limits(facts.id, hands.limits(facts))
    await _begin_count_anew(facts, hands)
    facts.action.is_start = True
    try:
        await hands.host.start(facts.id)
    finally:
        facts.action.is_start = False
        facts.action.started_run = (await hands.host.status(facts.id)).run


async def _begin_count_anew(facts: Facts, hands: Hands) -> None:
    """The host's burst limit is against crash loops: it counts no starts that we mean."""
    if facts.action.started_run:
        await hands.host.reset_failed(facts.id)


async def restart(facts: Facts, hands: Hands) -> None:
    """As `start`, for a worker that runs."""
    await hands.host.set_limits(facts.id, hands.limits(facts))
    await _begin_count_anew(facts, hands)
    facts.action.is_start = True
    try:
        await hands.host.restart(facts.id)
    finally:
        facts.action.is_start = False
        facts.action.started_run = (await hands.host.status(facts.id)).run


async def _call(facts: Facts, kind: ActionKind, timeout: float) -> None:
    if facts.link is None:
        return
    await facts.link.call(kind.value, {}, timeout=timeout)


async def _renew(facts: Facts, hands: Hands) -> None:
    """The pairing is gone: set its files aside as evidence and lay out an empty folder.

    The same again does no harm, however far it came before.
    """
    await hands.host.stop(facts.id)
    if facts.instance.backend:
        return  # its server took the keys away itself, and nothing of them is here
    why = f"the pairing ended: {facts.record.reason}"
    await asyncio.to_thread(set_aside, hands.session_root, facts, why)


async def call_worker(
    facts: Facts,
    do: str,
    arguments: dict[str, object] | None = None,
    *,
    timeout: float = CALL_TIMEOUT,
) -> None:
    if facts.link is None:
        raise LinkError(f"cannot {do} {facts.id}: its worker does not answer", code="gone")
    await facts.link.call(do, arguments or {}, timeout=timeout)
