"""Counts, writes down or passes on what a worker says of its session; judges what that shows beside
the session's state (crypto errors, errors, memory, silence); and turns what a pass saw into record
and journal. There the order matters: a drop is counted while the record still says CONNECTED, the
published status comes last."""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent import log, redaction
from agent.clock import boot_now
from agent.core import crypto, figures, memory, model, reasons, reconcile, words
from agent.core.crypto_patterns import OF_KEYS, Effect, read_line
from agent.core.model import ConnectionStatus as Status
from agent.core.model import Health, HealthVerdict, Override, SessionRecord, Signal, UnitState
from agent.core.reconnect import after_connected, after_drop, after_lasting
from agent.core.session import NOT_LOOKED_YET, Session
from agent.core.words import KEPT, PASSKEY_REQUIRED, PASSKEY_SUSPECTED, SUSPECT, Category, Happening
from agent.deliver.bus import EventBus
from agent.supervise.facts import FOLDER_LOST, Facts, Notes, Settings, entry
from agent.supervise.gate import Gate
from agent.supervise.registry import Registry
from agent.supervise.seats import Seats
from agent.supervise.snapshots import Snapshots


@dataclass(slots=True, eq=False, repr=False)
class Means:
    registry: Registry
    seats: Seats
    keeping: Snapshots
    notes: Notes
    bus: EventBus
    gate: Gate
    settings: Settings
    first_probe: float
    """Boot time before which no worker is probed."""
    operators_act_past_us: bool = False
    """True where `systemctl` can start and stop workers without the agent."""


def judge_keys(facts: Facts, policy: crypto.CryptoPolicy, now: float) -> crypto.CryptoState:
    """Judge the session's crypto errors, if its engine counts messages."""
    return crypto.judge_crypto(facts.crypto, policy, now, counts_messages=facts.counts_messages)


def failing_peers(facts: Facts, policy: crypto.CryptoPolicy) -> tuple[str, ...]:
    """Peers whose keys are to be made again; all that fail if no milder step helps."""
    keys = judge_keys(facts, policy, boot_now())
    corrupted = keys.signal is not None and keys.signal.level is Health.CORRUPTED
    return keys.failing if corrupted and facts.instance.backend else keys.peers


ERROR_WINDOW = 300.0
LEAST_OPERATIONS = 20
MOST_LINES = 20
"""Log lines about crypto errors of one session in a minute: the rest is counted only."""

_PASSED_ON = ("direction", "type", "id", "ack")


def take_in(means: Means, facts: Facts, happening: Happening) -> None:
    """Count what happened in a session, write it down or pass it on."""
    kind, detail, now = happening.kind, happening.detail, boot_now()
    if kind in (KEPT, "not_kept", "kept_again"):
        means.registry.kept_more(facts.id)
    match kind:
        case "message":
            direction = "out" if detail.get("direction") == "out" else "in"
            facts.counters.messages[direction] += 1
            facts.counters.per_minute[direction].note(now)
            if direction == "in":
                facts.inbound = replace(facts.inbound, last_wall=time.time())
            # One that this session wrote itself proves nothing.
            if detail.get("type") != "ciphertext" and (detail.get("peer") or direction == "in"):
                _note_readable(means.settings, facts, detail, now)
        case "read_later":
            _note_readable(means.settings, facts, detail, now)
        case "ack":
            facts.counters.messages["ack"] += 1
            facts.inbound = replace(facts.inbound, ack_wall=time.time())
        case "crypto_error":
            if _note_crypto(means.settings, facts, detail, now):
                means.gate.wake(facts.id)
        case _ if kind in WITH_TEXT:
            means.notes.write(entry(facts, kind, _text(detail.get("text")), WITH_TEXT[kind]))
        # The rest is counted elsewhere, as a repair's step or as a drop, or healed.
        case _ if kind not in ("key_regeneration", KEPT):
            facts.counters.errors[kind] += 1
    if kind in ("message", "ack") and means.bus.wants(kind):
        # They go to those who listen, without text and peer, and into no journal.
        every = ((key, _text(detail.get(key))[:64]) for key in _PASSED_ON)
        passed_on: dict[str, Any] = {key: text for key, text in every if text}
        sentence = "a message went out" if detail.get("direction") == "out" else "a message came in"
        if kind == "ack":
            sentence = f"a message is {passed_on.get('ack') or 'acknowledged'}"
        means.bus.publish_passing(entry(facts, kind, sentence, **passed_on))


def signals_of(settings: Settings, facts: Facts) -> tuple[Signal, ...]:
    """Return the signals that judging reads beside the session's own state."""
    config, run, now = settings.config, facts.run, boot_now()
    signals = [judge_keys(facts, config.crypto, now).signal]
    if run.memory_bytes is not None:
        limit, history = settings.memory_limit(facts), run.memory_history
        signals.append(memory.judge_memory(history, run.memory_bytes, limit, config.memory, now))
    if (since := facts.connected_since_wall) is not None:
        signals.append(figures.judge_silence(facts.inbound, since, time.time()))
    # Errors about keys have a judge of their own.
    counters = facts.counters
    errors = sum(count for kind, count in counters.errors.items() if kind not in OF_KEYS)
    done = counters.probes + counters.messages["in"] + counters.messages["out"]
    rate = counters.error_rate = counters.error_rate.note(now, errors, done, ERROR_WINDOW)
    signals.append(rate.judge(errors, done, config.health.error_rate, LEAST_OPERATIONS))
    if facts.lacks:
        words = f"its page lacks {', '.join(facts.lacks)}: operations that need it will fail"
        signals.append(Signal("page_incomplete", Health.DEGRADED, words))
    if words := run.folder_lost:
        cure = f"put back what was at {config.session_root / facts.id}"
        if run.folder_deleted:
            cure = "only that worker still has the pairing: restore a snapshot in its place"
        signals.append(Signal(FOLDER_LOST, Health.DEGRADED, f"{words}; {cure}"))
    return tuple(signal for signal in signals if signal is not None)


def _watch_hour(facts: Facts) -> None:
    """Learn the usual rate from each whole hour of one connection."""
    now_wall, came = time.time(), facts.counters.messages["in"]
    if facts.connected_since_wall is None:
        facts.hour_wall = 0.0
    elif now_wall - facts.hour_wall >= 3600.0:
        if facts.hour_wall:
            lately = came - facts.hour_messages
            facts.inbound = figures.note_hour(facts.inbound, facts.hour_wall, lately)
        facts.hour_wall, facts.hour_messages = now_wall, came


def _note_readable(settings: Settings, facts: Facts, detail: Mapping[str, Any], now: float) -> None:
    """Note a message that was read: it proves that the keys of its sender fit again."""
    policy, group = settings.config.crypto, _text(detail.get("group"))
    peers = _text(detail.get("peer")), _text(detail.get("alias"))
    facts.crypto = crypto.note_message(facts.crypto, policy, now, peers=peers, group=group)


def _note_crypto(settings: Settings, facts: Facts, detail: Mapping[str, Any], now: float) -> bool:
    errors, config = facts.counters.errors, settings.config
    if (finding := read_line(_text(detail.get("text")), config.crypto_patterns)) is None:
        errors["crypto_unknown"] += 1
        return False
    if finding.effect is Effect.BENIGN:
        return False  # no failure: neither counted nor logged
    if detail.get("stranger"):
        # No keys of ours are at fault: what that contact sends next brings its own.
        errors["crypto_stranger"] += 1
        return False
    peer, group, message = (_text(detail.get(it)) for it in ("peer", "group", "id"))
    finding = replace(finding, peer=peer or finding.peer, group=group, message=message[:64])
    errors["crypto"] += 1
    facts.crypto = crypto.note_error(facts.crypto, finding, config.crypto, now)
    if facts.crypto_lines.count(now) >= MOST_LINES:
        return False
    facts.crypto_lines.note(now)
    whose = redaction.mark_of(finding.peer) if finding.peer else "an unnamed peer"
    # The name of the pattern, never the line itself: it may carry keys.
    log.bound(Category.CRYPTO, facts.id).warning("crypto error %s of %s", finding.name, whose)
    return True


_OF_SESSIONS = ("pack_ended", "scanned_again", "not_kept", "kept_again", "kept_aside")
WITH_TEXT = dict.fromkeys(_OF_SESSIONS, Category.SESSION)
WITH_TEXT |= {"repair_step": Category.RECOVERY, "key_unreadable": Category.CRYPTO}
"""Happenings whose text goes into the journal: what was done on a server within a repair's step,
how the pack of a session ended, which record of a session could not be read, a second scan, and
that what arrives cannot be kept, until it can, or was damaged."""


def _text(value: object) -> str:
    return value[:200] if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class Drop:
    """A drop: its reason code, a key that is new for each drop, and the end of a ban."""

    code: str
    key: tuple[str, str, float]
    until_wall: float | None = None


def find_drop(session: Session, verdict: HealthVerdict) -> Drop | None:
    unit, fact = session.unit, session.claim
    away = verdict.reason in reconcile.FOLDER_AWAY or unit.exit_status == words.FOLDER_UNUSABLE
    if away or not session.should_run:  # that says nothing about the session
        return None
    if unit.state is UnitState.FAILED:
        code = words.ENDS.get(unit.exit_status, "worker_failed")
        return Drop(code, ("unit", unit.run, unit.since))
    if fact is None or not unit.runs or fact.claim.reason == SUSPECT:
        # The session did not end: what was recorded before is still the reason.
        return None
    if fact.claim.down and (code := fact.claim.reason):
        # WhatsApp's last word may come while it is down for another reason.
        key = code if reasons.reason_of(code).final else "claim"
        return Drop(code, (key, unit.run, fact.since), fact.claim.until_wall)
    if verdict.health is not Health.STUCK:
        return None
    own = verdict.reason in ("zombie", "injection_failed", PASSKEY_SUSPECTED)
    # A zombie stays one until it is connected again, whatever it claims in between.
    since = 0.0 if verdict.reason == "zombie" else fact.phase_since or fact.since
    return Drop(verdict.reason if own else "start_stuck", (verdict.reason, unit.run, since))


def note_operator(facts: Facts, *, past_us: bool) -> None:
    """Conclude from the unit what an operator did with systemctl, and respect it. `past_us`: the
    operator can."""
    unit = facts.unit
    # A session on a backend has no unit that an operator could stop.
    if past_us and not facts.instance.backend and not unit.job_pending:
        if facts.stopped_by_hand:
            # Once per run, or no start by the agent would ever last.
            facts.record = replace(facts.record, stopped_run=facts.record.seen_run)
            facts.order(Override.STOPPED)
            facts.note("operator", "an operator stopped its unit: it stays stopped until a start")
        elif facts.started_by_hand(facts.action.started_run):
            facts.order(Override.NONE if facts.enabled else Override.STARTED)
            facts.note("operator", "an operator started its unit")
            if facts.ended_by.final or facts.banned:
                # That worker keeps away from WhatsApp; an operator's start lets it log in.
                facts.forgive(restart_of=unit.run)
    settled = not unit.job_pending and unit.state is not UnitState.DEACTIVATING
    seen = (facts.record.seen_run, facts.record.seen_boot)
    if unit.runs and unit.run and settled and seen != (unit.run, facts.boot):
        facts.record = replace(facts.record, seen_run=unit.run, seen_boot=facts.boot)


def remember(gate: Gate, facts: Facts, verdict: HealthVerdict) -> None:
    """Turn one observation and its verdict into a new record and journal entries."""
    _begin_now(facts, facts.at_wall)
    before = facts.record
    _note_drop(gate, facts, verdict)
    _note_pairing(facts)
    _note_passkey(facts)
    _note_status(gate, facts, before, verdict)
    _note_verdict(gate, facts, verdict)
    _watch_hour(facts)


def _note_drop(gate: Gate, facts: Facts, verdict: HealthVerdict) -> None:
    """Count each drop once: by the claim, the unit's failure or the verdict that shows it."""
    if (drop := find_drop(facts, verdict)) is None or drop.key == facts.noted_drop:
        return
    code, facts.noted_drop = drop.code, drop.key
    record, rules, luck = facts.record, gate.settings.config.reconnect, random.random()
    at_wall, until = facts.at_wall, drop.until_wall
    known = not facts.observed and record.reason == code  # an earlier agent counted it already
    if known or (facts.banned and not reasons.reason_of(code).final):
        # No try of ours failed. The ban stays the reason, and ends at the latest time of all.
        facts.record = replace(record, not_before_wall=max(until or 0.0, record.not_before_wall))
        return
    ours = not facts.wait.reason or record.status is Status.CONNECTED
    facts.record = after_drop(record, code, rules, at_wall, luck, until_wall=until, ours=ours)
    if code != "logout" or not facts.asked.logout:
        facts.counters.errors[code] += 1
    gate.failed(facts, verdict.reason if verdict.health is Health.STUCK else code)


def _note_status(gate: Gate, facts: Facts, before: SessionRecord, verdict: HealthVerdict) -> None:
    """Note a new status. `before`: the record before this pass, drops not yet counted."""
    now_wall, since = facts.at_wall, before.status_since_wall
    if verdict.state is before.status:
        if facts.record is not before:  # a drop was counted; the status stays what it was
            facts.record = replace(facts.record, status=before.status, status_since_wall=since)
        if verdict.state is Status.CONNECTED:
            facts.record = after_lasting(facts.record, now_wall)
            facts.connected_since_wall = facts.connected_since_wall or since  # if adopted
        return
    if verdict.state is Status.CONNECTED:
        facts.record = after_connected(facts.record, now_wall, gate.settings.config.reconnect)
        facts.connected_since_wall = now_wall
        facts.asked.try_at_once = facts.asked.logout = False
        facts.noted_drop = ("", "", 0.0)
        gate.succeeded(facts)
        if facts.lost_because:
            facts.counters.count("reconnects", facts.lost_because)
            facts.lost_because = ""
    else:
        if {before.status, verdict.state}.difference(model.UNSETTLED):  # no try of one outage
            since = now_wall
        facts.record = replace(facts.record, status=verdict.state, status_since_wall=since)
        if verdict.state is Status.QR_REQUIRED:
            # The try succeeded: a person has to act now, no further attempt is needed.
            facts.record = replace(facts.record, attempts=0, not_before_wall=0.0)
    if before.status is Status.CONNECTED:
        facts.connected_since_wall = None
        because = verdict.after or verdict.reason or facts.record.reason or "unknown"
        facts.lost_because = facts.lost_because or because
    asked = facts.asked.logout and verdict.reason == "logout"
    why = "logged out as asked" if asked else verdict.sentence
    more = {"asked": True} if asked else {}
    lost = before.status is Status.CONNECTED and verdict.state is Status.RECONNECTING
    goes_on = "; it reconnects" if lost and "reconnects" not in why else ""
    told: dict[str, Any] = {"status": verdict.state, "before": before.status, **more}
    told |= {"reason": verdict.reason, "after": verdict.after, "why": why}
    facts.note("status", f"{before.status} → {verdict.state}: {why}{goes_on}", **told)


def _note_verdict(gate: Gate, facts: Facts, verdict: HealthVerdict) -> None:
    before, facts.verdict = facts.verdict, verdict
    if (before.health, before.reason) == (verdict.health, verdict.reason):
        return
    if verdict.reason == SUSPECT:
        gate.failed(facts, SUSPECT)  # no drop, but it may be part of an incident
    if before is NOT_LOOKED_YET and verdict.health in (Health.HEALTHY, Health.DISCONNECTED):
        return
    words, code = f"{verdict.health}: {verdict.sentence}", verdict.reason
    facts.note("verdict", words, Category.HEALTH, verdict=verdict.health, reason=code)


def _begin_now(facts: Facts, now_wall: float) -> None:
    """A clock that was ahead was set right: what would begin in the future began when its status
    did by the boot clock, or begins now."""
    began = now_wall - max(facts.at - facts.status_time.entered, 0.0)
    if facts.record.status_since_wall > now_wall:
        facts.record = replace(facts.record, status_since_wall=began)
    if (facts.connected_since_wall or 0.0) > now_wall:
        facts.connected_since_wall = began
    facts.hour_wall = min(facts.hour_wall, now_wall)
    if facts.inbound.last_wall > now_wall:
        facts.inbound = replace(facts.inbound, last_wall=now_wall)


def _note_pairing(facts: Facts) -> None:
    claim, record = facts.claim.claim if facts.claim else None, facts.record
    if claim is None or not claim.paired or facts.is_other_account:
        return
    account = claim.account or record.account
    if record.paired and record.account == account:
        return
    facts.record = replace(record, paired=True, account=account)
    if not record.paired:
        facts.note("paired", "paired with a phone")
    elif record.account:
        facts.note("paired", "paired again, with another account")


def _note_passkey(facts: Facts) -> None:
    """Note that WhatsApp asked for a passkey: the record says so until an operator clears it."""
    claim, known = facts.claim.claim if facts.claim else None, facts.passkey_asked
    facts.passkey_asked = claim is not None and claim.reason == PASSKEY_REQUIRED
    if facts.passkey_asked and not known and not facts.record.needs_passkey:
        facts.record = replace(facts.record, needs_passkey=True)
        facts.note(PASSKEY_REQUIRED, reasons.reason_of(PASSKEY_REQUIRED).in_full(facts.id))
