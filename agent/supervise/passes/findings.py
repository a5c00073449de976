"""What a worker says of its session, counted, written down or passed on; and what that shows beside
the session's state: crypto errors, memory, silence."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.clock import boot_now
from agent.core.crypto import (
    CryptoPolicy,
    CryptoState,
    forget_old,
    judge_crypto,
    note_error,
    note_message,
)
from agent.core.crypto_patterns import OF_KEYS, Effect, read_line
from agent.core.figures import judge_silence, note_hour
from agent.core.memory import judge_memory
from agent.core.model import Category, Health, InstanceId, JournalEntry, Signal
from agent.core.words import KEPT, Happening
from agent.deliver.bus import EventBus
from agent.log import bound
from agent.redaction import mark_of
from agent.supervise.facts import FOLDER_LOST, Facts, Notes, Settings


def judge_keys(facts: Facts, policy: CryptoPolicy, now: float) -> CryptoState:
    """The session's crypto errors judged, where its engine counts messages."""
    return judge_crypto(facts.crypto, policy, now, counts_messages=facts.counts_messages)


def reads_messages(facts: Facts, policy: CryptoPolicy) -> bool:
    """True if it read a message within the window, or its engine does not tell."""
    if not facts.counts_messages:
        return True
    return bool(forget_old(facts.crypto, policy, boot_now()).messages)


def failing_peers(facts: Facts, policy: CryptoPolicy) -> tuple[str, ...]:
    """Peers whose keys are to be made again; all that fail if no milder step helps."""
    crypto = judge_keys(facts, policy, boot_now())
    corrupted = crypto.signal is not None and crypto.signal.level is Health.CORRUPTED
    return crypto.failing if corrupted and facts.instance.backend else crypto.peers


HOUR = 3600.0
ERROR_WINDOW = 300.0
LEAST_OPERATIONS = 20

PASSING = ("message", "ack")
"""Happenings that go to the listeners for events and into no journal."""
_PASSED_ON = ("direction", "type", "id", "ack")


@dataclass(frozen=True, slots=True)
class Findings:
    """Takes in happenings of sessions; gives the signals that judging reads."""

    settings: Settings
    kept: Sequence[Callable[[InstanceId], None]]
    notes: Notes
    bus: EventBus
    wake: Callable[[InstanceId], None]

    def take(self, facts: Facts, happening: Happening) -> None:
        if happening.kind in (KEPT, "not_kept", "kept_again"):
            self.attached(facts.id)
        if happening.kind == KEPT:
            return
        if self.note(facts, happening):
            self.wake(facts.id)
        if happening.kind in WITH_TEXT:
            text, category = _text(happening.detail.get("text")), WITH_TEXT[happening.kind]
            self.notes.write(JournalEntry(happening.kind, text, category, facts.id, time.time()))
        if happening.kind in PASSING and self.bus.wants(happening.kind):
            self.bus.publish_passing(_passing_entry(facts, happening))

    def attached(self, id: InstanceId) -> None:
        for hear in self.kept:
            hear(id)

    def note(self, facts: Facts, happening: Happening) -> bool:
        """Count it; True when the instance should be looked at now."""
        detail, now = happening.detail, boot_now()
        match happening.kind:
            case "message":
                out = detail.get("direction") == "out"
                direction = "out" if out else "in"
                facts.counters.messages[direction] += 1
                facts.counters.per_minute[direction].note(now)
                if not out:
                    facts.inbound = replace(facts.inbound, last_wall=time.time())
                # One that this session wrote itself proves nothing.
                if detail.get("type") != "ciphertext" and (detail.get("peer") or not out):
                    self._note_readable(facts, detail, now)
                return False
            case "read_later":
                self._note_readable(facts, detail, now)
                return False
            case "ack":
                facts.counters.messages["ack"] += 1
                facts.inbound = replace(facts.inbound, ack_wall=time.time())
                return False
            case "crypto_error":
                return self._note_crypto(facts, happening, now)
            case kind if kind in WITH_TEXT or kind in ("key_regeneration", KEPT):
                return False  # counted elsewhere, as a repair's step or as a drop, or healed
            case kind:
                facts.counters.errors[kind] += 1
                return False

    def signals(self, facts: Facts) -> tuple[Signal, ...]:
        now, since = boot_now(), facts.connected_since_wall
        signals = [
            judge_keys(facts, self.settings.config.crypto, now).signal,
            self._memory(facts, now),
            None if since is None else judge_silence(facts.inbound, since, time.time()),
            self._errors(facts, now),
        ]
        if facts.lacks:
            words = f"its page lacks {', '.join(facts.lacks)}: operations that need it will fail"
            signals.append(Signal("page_incomplete", Health.DEGRADED, words))
        if words := facts.run.folder_lost:
            if facts.run.folder_deleted:
                words += "; only that worker still has the pairing: restore a snapshot in its place"
            signals.append(Signal(FOLDER_LOST, Health.DEGRADED, words))
        return tuple(signal for signal in signals if signal is not None)

    def watch_hour(self, facts: Facts) -> None:
        """Learn the usual rate from each whole hour of one connection."""
        now_wall, came = time.time(), facts.counters.messages["in"]
        if facts.connected_since_wall is None:
            facts.hour_wall = 0.0
        elif now_wall - facts.hour_wall >= HOUR:
            if facts.hour_wall:
                seen = came - facts.hour_messages
                facts.inbound = note_hour(facts.inbound, facts.hour_wall, seen)
            facts.hour_wall, facts.hour_messages = now_wall, came

    def _note_readable(self, facts: Facts, detail: Mapping[str, Any], now: float) -> None:
        """A message that was read proves that the keys of its sender fit again."""
        policy, group = self.settings.config.crypto, _text(detail.get("group"))
        peers = _text(detail.get("peer")), _text(detail.get("alias"))
        facts.crypto = note_message(facts.crypto, policy, now, peers=peers, group=group)

    def _note_crypto(self, facts: Facts, happening: Happening, now: float) -> bool:
        text = _text(happening.detail.get("text"))
        finding = read_line(text, self.settings.config.crypto_patterns)
        if finding is None:
            facts.counters.errors["crypto_unknown"] += 1
            return False
        if finding.effect is Effect.BENIGN:
            return False  # no failure: neither counted nor logged
        finding = replace(
            finding,
            peer=_text(happening.detail.get("peer")) or finding.peer,
            group=_text(happening.detail.get("group")),
            message=_text(happening.detail.get("id"))[:64],
        )
        if happening.detail.get("stranger"):
            # No keys of ours are at fault: what that contact sends next brings its own.
            facts.counters.errors["crypto_stranger"] += 1
            return False
        facts.counters.errors["crypto"] += 1
        facts.crypto = note_error(facts.crypto, finding, self.settings.config.crypto, now)
        facts.crypto_log, show, hidden = facts.crypto_log.note(now)
        if show:
            more = f" ({hidden} more like it are not in the log)" if hidden else ""
            # The name of the pattern, never the line itself: it may carry keys.
            bound(Category.CRYPTO, facts.id).warning(
                "crypto error %s of %s%s",
                finding.name,
                mark_of(finding.peer) if finding.peer else "an unnamed peer",
                more,
            )
        return show

    def _memory(self, facts: Facts, now: float) -> Signal | None:
        if facts.run.memory_bytes is None:
            return None
        limit, policy = self.settings.memory_limit(facts), self.settings.config.memory
        return judge_memory(facts.run.memory_history, facts.run.memory_bytes, limit, policy, now)

    def _errors(self, facts: Facts, now: float) -> Signal | None:
        # Errors about keys have a judge of their own.
        counted = facts.counters.errors
        errors = counted.total() - sum(counted[kind] for kind in OF_KEYS)
        done = (
            facts.counters.probes + facts.counters.messages["in"] + facts.counters.messages["out"]
        )
        facts.counters.error_rate = facts.counters.error_rate.note(now, errors, done, ERROR_WINDOW)
        limit = self.settings.config.health.error_rate
        return facts.counters.error_rate.judge(errors, done, limit, LEAST_OPERATIONS)


WITH_TEXT = {
    "repair_step": Category.RECOVERY,
    "pack_ended": Category.SESSION,
    "key_unreadable": Category.CRYPTO,
    "scanned_again": Category.SESSION,
    "not_kept": Category.SESSION,
    "kept_again": Category.SESSION,
    "kept_aside": Category.SESSION,
}
"""Happenings whose text goes into the journal: what was done on a server within a repair's step,
how the pack of a session ended, which record of a session could not be read, a second scan, and
that what arrives cannot be kept, until it can, or was damaged."""


def _passing_entry(facts: Facts, happening: Happening) -> JournalEntry:
    """A message or an acknowledgement for the listeners, without text and peer."""
    passed_on = {key: _text(happening.detail.get(key))[:64] for key in _PASSED_ON}
    if happening.kind == "ack":
        sentence = f"a message is {passed_on['ack'] or 'acknowledged'}"
    else:
        sentence = "a message went out" if passed_on["direction"] == "out" else "a message came in"
    detail = {key: value for key, value in passed_on.items() if value}
    return JournalEntry(happening.kind, sentence, Category.SESSION, facts.id, time.time(), detail)


def _text(value: object) -> str:
    return value[:200] if isinstance(value, str) else ""
