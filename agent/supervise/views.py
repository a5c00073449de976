"""The picture of one instance for the API, the metrics and the command line."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from agent.clock import boot_now
from agent.core.breaker import breaker_of
from agent.core.figures import with_zeros
from agent.core.findings.crypto import judge_crypto
from agent.core.findings.rates import PerMinute
from agent.core.model import ConnectionStatus, Health, HealthVerdict, SessionRecord
from agent.core.observed import desired_in
from agent.core.reasons import reason_of
from agent.core.view import (
    MESSAGE_DIRECTIONS,
    InstanceView,
    is_waiting,
)
from agent.engines.catalog import entry_of
from agent.host.base import Host
from agent.supervise.facts import Facts, SavedFacts
from agent.supervise.gate import Gate
from agent.supervise.settings import Settings

NOT_LOOKED_YET = HealthVerdict(
    Health.NOT_FOUND,
    ConnectionStatus.DISCONNECTED,
    "not_looked_yet",
    "the agent has not checked it yet",
)
_NO_MESSAGES = dict.fromkeys(MESSAGE_DIRECTIONS, 0)
_NO_RATE = PerMinute()


@dataclass(frozen=True, slots=True)
class ViewSources:
    host: Host
    gate: Gate
    settings: Settings
    in_incident: Callable[[Facts], bool]
    server_version: Callable[[str], str]
    """Of a backend, by its name."""


def view_of(facts: Facts, sources: ViewSources) -> InstanceView:
    """Instance and record are shown as saved: a kill of the agent undoes nothing that was seen."""
    now, now_wall = boot_now(), time.time()
    saved = SavedFacts() if facts.saved.rows_behind else facts.saved
    instance, record = saved.instance or facts.instance, saved.record or facts.record
    breaker, rules = breaker_of(record), sources.settings.config.reconnect.breaker
    opens_in = breaker.opens_in(now_wall, rules)
    counted = entry_of(facts.instance.engine).counts_messages
    decrypted = (
        {"ok": facts.counters.messages["in"], "failed": facts.counters.errors["crypto"]}
        if counted
        else {}
    )
    unit, verdict = facts.shown[0], facts.shown[1] or NOT_LOOKED_YET
    proved_at = facts.run.claim.proved_at() if facts.run.claim else None
    backend = instance.backend
    desired = desired_in(sources.host.boot_id(), instance, record, facts.enabled_by_operator)
    return InstanceView(
        instance=instance,
        desired=desired,
        record=record,
        unit=unit,
        status=record.status,
        status_since_wall=record.status_since_wall,
        reason=verdict.reason or record.reason,
        sentence=verdict.sentence,
        verdict=verdict,
        linked=facts.link is not None,
        claim=facts.run.claim,
        probe=facts.run.probe,
        proof_age=None if proved_at is None else max(now - proved_at, 0.0),
        connected_since_wall=facts.connected_since_wall,
        started_wall=now_wall - (now - unit.since) if unit.runs else None,
        memory_bytes=facts.run.memory_bytes,
        cpu_seconds=facts.run.cpu_seconds,
        processes=facts.run.processes,
        engine_version=sources.server_version(backend) if backend else facts.engine_version,
        figures=facts.run.figures,
        counts=with_zeros(facts.counters.by_word),
        messages={**_NO_MESSAGES, **facts.counters.messages},
        counts_messages=counted,
        errors=dict(facts.counters.errors),
        counted_since_wall=facts.counters.since_wall,
        status_time=facts.status_time,
        next_attempt_wall=_next_attempt(record, now_wall),
        enabled_by_operator=facts.enabled_by_operator,
        probes=facts.counters.probes,
        probe_seconds=facts.counters.probe_seconds,
        response_seconds=facts.counters.mean_answer(now),
        seen_wall=now_wall,
        circuit=breaker.state(now_wall, rules).value,
        circuit_opens_wall=now_wall + opens_in if opens_in else None,
        repair=facts.repair.last,
        kept=facts.repair.kept,
        wait_reason=facts.wait.reason
        if desired.should_run and is_waiting(verdict, facts.wait.reason)
        else "",
        in_incident=sources.in_incident(facts),
        wait_sentence=facts.wait.sentence,
        turns_before=sources.gate.queues.before(facts.id),
        crypto_operations=decrypted,
        crypto_lately=judge_crypto(facts.crypto, sources.settings.config.crypto, now).errors,
        repair_steps=dict(facts.counters.repair_steps),
        repair_seconds=facts.counters.repair_seconds,
        memory_limit=sources.settings.memory_limit(facts),
        messages_per_minute={
            word: facts.counters.per_minute.get(word, _NO_RATE).count(now) for word in ("in", "out")
        },
        last_snapshot_wall=facts.last_snapshot_wall,
        snapshot_failure=facts.snapshot_failure,
    )


def _next_attempt(record: SessionRecord, now_wall: float) -> float | None:
    """None also where the agent makes no try by itself, as after a ban."""
    if record.not_before_wall <= now_wall or reason_of(record.reason).hopeless:
        return None
    return record.not_before_wall
