"""The facts of one instance as one frozen value, from which the core judges and decides."""

import time

from agent.clock import boot_now
from agent.core.model import Observation, Signal
from agent.core.reconnect import ReconnectPolicy, not_before
from agent.host.base import Host
from agent.supervise.facts import Facts


def observation_of(
    facts: Facts,
    host: Host,
    policy: ReconnectPolicy,
    *,
    wait_reason: str = "",
    wait_sentence: str = "",
    signals: tuple[Signal, ...] = (),
    back_at: float | None = None,
    waits_turn: bool = False,
) -> Observation:
    now, now_wall = boot_now(), time.time()
    earliest = not_before(facts.record, policy, now, now_wall)
    return Observation(
        instance=facts.instance,
        desired=facts.desired(host.boot_id()),
        record=facts.record,
        unit=facts.unit,
        at=now,
        linked_since=facts.run.linked_since,
        claim=facts.run.claim,
        probe=facts.run.probe,
        files=facts.folder.files,
        files_problem=facts.folder.problem,
        memory_bytes=facts.run.memory_bytes,
        not_before=now if facts.asked.try_at_once else earliest,
        at_wall=now_wall,
        signals=signals,
        wait_reason=wait_reason,
        wait_sentence=wait_sentence,
        back_at=back_at,
        waits_turn=waits_turn,
    )
