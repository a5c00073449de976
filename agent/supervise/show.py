"""The picture of one instance that the API, the metrics and the command line get to see."""

import time

from agent.core.model import ConnectionStatus, Health, HealthVerdict
from agent.core.view import MESSAGE_DIRECTIONS, RESTART_REASONS, InstanceView
from agent.host.base import Host
from agent.supervise.facts import Facts
from agent.supervise.loop import boot_now
from agent.supervise.observe import desired_of

NOT_LOOKED_YET = HealthVerdict(
    Health.NOT_FOUND, ConnectionStatus.DISCONNECTED, "not_looked_yet", "not looked at yet"
)


def view_of(facts: Facts, host: Host) -> InstanceView:
    now, now_wall = boot_now(), time.time()
    record = facts.record
    verdict = facts.verdict or NOT_LOOKED_YET
    proved_at = facts.claim.proved_at() if facts.claim else None
    return InstanceView(
        instance=facts.instance,
        desired=desired_of(facts, host),
        record=record,
        unit=facts.unit,
        status=record.status,
        status_since_wall=record.status_since_wall,
        reason=verdict.reason or record.reason,
        sentence=verdict.sentence,
        verdict=verdict,
        linked=facts.link is not None,
        claim=facts.claim,
        probe=facts.probe,
        proof_age=None if proved_at is None else max(now - proved_at, 0.0),
        connected_since_wall=facts.connected_since_wall,
        started_wall=now_wall - (now - facts.unit.since) if facts.unit.runs else None,
        memory_bytes=facts.memory_bytes,
        cpu_seconds=facts.cpu_seconds,
        processes=facts.processes,
        restarts={**dict.fromkeys(RESTART_REASONS, 0), **facts.restarts},
        reconnects=dict(facts.reconnects),
        messages={**dict.fromkeys(MESSAGE_DIRECTIONS, 0), **facts.messages},
        errors=dict(facts.errors),
        status_seconds=dict(facts.status_seconds),
        next_attempt_wall=record.not_before_wall if record.not_before_wall > now_wall else None,
        enabled_by_operator=facts.enabled_by_operator,
        probes=facts.probes,
        probe_seconds=facts.probe_seconds,
        seen_wall=now_wall,
    )
