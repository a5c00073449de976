"""Crypto errors in a sliding window, per instance and per peer, and what they add up to.

Errors of one peer ask for new keys with it; errors of many peers, or in a large share of all
messages, mean a corrupted session.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from agent.core.findings.crypto_patterns import CryptoFinding, Effect
from agent.core.model import Health, Signal
from agent.core.setting import setting


@dataclass(frozen=True, slots=True)
class CryptoPolicy:
    """The [crypto] table."""

    window: float = setting(300.0, "seconds over which crypto errors are counted", low=1)
    errors: int = setting(
        5, "errors of several peers within the window that mean a corrupted session", low=1
    )
    peer_errors: int = setting(
        3, "errors of one peer within the window after which its keys are regenerated", low=1
    )
    few_peers: int = setting(
        3,
        "failing peers up to which errors mean bad keys of these peers; more mean a"
        " corrupted session",
        low=0,
    )
    share: float = setting(
        0.2, "share of messages with errors that means a corrupted session", low=0.01, high=1
    )
    least_messages: int = setting(20, "messages within the window from which share applies", low=1)
    regenerate_every: float = setting(
        600.0, "seconds between two regenerations of one peer's keys", low=1
    )
    retries: int = setting(
        3, "tries of a crypto operation before it counts as failed", low=0, high=20
    )
    retry_base: float = setting(
        1.0, "seconds before the first retry of a crypto operation; doubles with each", low=0.01
    )
    patterns: tuple[str, ...] = setting(
        (),
        'more log texts about keys: "counts: TEXT", "regenerates: TEXT" where only'
        ' new keys help, "benign: TEXT"; any case',
        restart=True,
    )
    round: float = setting(
        600.0, "seconds between two checks for sessions whose keys still fail", low=1
    )


@dataclass(frozen=True, slots=True)
class CryptoSlot:
    """Errors of one peer in one short stretch of time."""

    at: float
    peer: str
    errors: int
    regenerates: int = 0


@dataclass(frozen=True, slots=True)
class CryptoWindow:
    """Errors, messages and renewed keys of the window; bounded at any rate of errors."""

    slots: tuple[CryptoSlot, ...] = ()
    messages: tuple[tuple[float, int], ...] = ()
    """Readable messages per stretch."""
    regenerated: tuple[tuple[str, float], ...] = ()
    """Peers whose keys were regenerated, and when."""


@dataclass(frozen=True, slots=True)
class CryptoState:
    errors: int
    share: float | None
    """Of all messages; None = unknown."""
    peers: tuple[str, ...]
    """Peers that need new keys now, worst first."""
    signal: Signal | None
    failing: tuple[str, ...] = ()
    """Each peer that failed and whose keys were not regenerated within the window."""


_STRETCH = 10.0
_MOST_SLOTS = 300
_MOST_PEERS = 50
_SUMMARY_AFTER = 5.0
"""A summary line repeats an error of so many seconds before."""


def note_error(
    window: CryptoWindow, finding: CryptoFinding, policy: CryptoPolicy, now: float
) -> CryptoWindow:
    if finding.effect is Effect.BENIGN:
        return window
    window = forget_old(window, policy, now)
    if finding.effect is Effect.SUMMARY and _is_counted(window, finding.peer, now):
        return window
    peer = finding.peer if _has_room(window, finding.peer) else ""
    regenerates = int(finding.effect is Effect.REGENERATES)
    start = now - now % _STRETCH
    for at, slot in enumerate(window.slots):
        if slot.at == start and slot.peer == peer:
            more = replace(slot, errors=slot.errors + 1, regenerates=slot.regenerates + regenerates)
            return replace(window, slots=(*window.slots[:at], more, *window.slots[at + 1 :]))
    slots = (*window.slots, CryptoSlot(start, peer, 1, regenerates))
    return replace(window, slots=slots[-_MOST_SLOTS:])


def note_message(
    window: CryptoWindow, policy: CryptoPolicy, now: float, *, peer: str = "", count: int = 1
) -> CryptoWindow:
    """Count messages that could be read; from a named peer they prove that its keys fit again."""
    window = forget_old(window, policy, now)
    start = now - now % _STRETCH
    messages = window.messages
    if messages and messages[-1][0] == start:
        messages = (*messages[:-1], (start, messages[-1][1] + count))
    else:
        messages = (*messages, (start, count))
    slots = tuple(slot for slot in window.slots if not peer or slot.peer != peer)
    return replace(window, messages=messages[-_MOST_SLOTS:], slots=slots)


def note_regenerated(window: CryptoWindow, peers: tuple[str, ...], now: float) -> CryptoWindow:
    """Forget the errors of peers whose keys were regenerated."""
    kept = tuple(entry for entry in window.regenerated if entry[0] not in peers)
    entries = (*kept, *((peer, now) for peer in peers))
    slots = tuple(slot for slot in window.slots if slot.peer not in peers)
    return replace(window, slots=slots, regenerated=entries[-_MOST_PEERS:])


def note_step(window: CryptoWindow) -> CryptoWindow:
    """Forget all errors: a repair step changed the whole session."""
    return replace(window, slots=(), messages=())


def forget_old(window: CryptoWindow, policy: CryptoPolicy, now: float) -> CryptoWindow:
    """Drop what lies outside the window, also what a clock put into the future."""
    since = now - policy.window
    if not window.slots and not window.messages:
        return window
    slots = tuple(slot for slot in window.slots if since < slot.at + _STRETCH and slot.at <= now)
    messages = tuple(
        entry for entry in window.messages if since < entry[0] + _STRETCH <= now + _STRETCH
    )
    return replace(window, slots=slots, messages=messages)


def judge_crypto(
    window: CryptoWindow, policy: CryptoPolicy, now: float, *, counts_messages: bool = True
) -> CryptoState:
    """`counts_messages`: False where the engine reports no readable messages; the share of errors
    is unknown then, and not 100 %."""
    window = forget_old(window, policy, now)
    if not window.slots:
        return CryptoState(0, 0.0 if counts_messages else None, (), None, ())
    by_peer: Counter[str] = Counter()
    renewing: Counter[str] = Counter()
    for slot in window.slots:
        by_peer[slot.peer] += slot.errors
        renewing[slot.peer] += slot.regenerates
    errors = by_peer.total()
    readable = sum(count for _, count in window.messages)
    share = (errors / (errors + readable) if errors else 0.0) if counts_messages else None
    peers = _need_keys(by_peer, renewing, window, policy, now)
    signal = _signal(by_peer, readable, share, peers, policy)
    renewed = _renewed(window, policy, now)
    failing = tuple(peer for peer, _ in by_peer.most_common() if peer and peer not in renewed)
    return CryptoState(errors, share, peers, signal, failing)


def crypto_retry_delay(tries: int, policy: CryptoPolicy) -> float | None:
    """Seconds before a crypto operation that failed `tries` times is tried again; None = failed."""
    return policy.retry_base * 2.0 ** (tries - 1) if 1 <= tries < policy.retries else None


@dataclass(frozen=True, slots=True)
class LogLimit:
    """A few lines per contact and minute: a flood of errors must not end the process by its log."""

    since: float = 0.0
    shown: int = 0
    hidden: int = 0

    def counts(self, now: float, per: float = 60.0) -> bool:
        """Whether its minute goes on."""
        return self.since <= now < self.since + per

    def note(self, now: float, most: int = 5, per: float = 60.0) -> "tuple[LogLimit, bool, int]":
        """Whether to show this line, and how many were hidden before it (once a minute)."""
        if not self.counts(now, per):
            return LogLimit(now, 1, 0), True, self.hidden
        if self.shown < most:
            return replace(self, shown=self.shown + 1), True, 0
        return replace(self, hidden=self.hidden + 1), False, 0


def limit_of(
    limits: Mapping[str, LogLimit], peer: str, now: float
) -> tuple[dict[str, LogLimit], str]:
    """The limit that holds for a line about this contact, and the limits without the old ones.
    Beyond so many contacts all others share one: a whole group out of step is a flood too."""
    if peer in limits:
        return dict(limits), peer
    kept = {contact: limit for contact, limit in limits.items() if limit.counts(now)}
    return kept, peer if len(kept) < _MOST_PEERS else ""


def _is_counted(window: CryptoWindow, peer: str, now: float) -> bool:
    near = (slot for slot in window.slots if slot.at + _STRETCH + _SUMMARY_AFTER > now)
    return any(not peer or slot.peer in (peer, "") for slot in near)


def _has_room(window: CryptoWindow, peer: str) -> bool:
    known = {slot.peer for slot in window.slots}
    return peer in known or len(known) < _MOST_PEERS


def _renewed(window: CryptoWindow, policy: CryptoPolicy, now: float) -> set[str]:
    """Peers whose keys were regenerated within `regenerate_every`."""
    return {peer for peer, at in window.regenerated if 0 <= now - at < policy.regenerate_every}


def _need_keys(
    by_peer: Counter[str],
    renewing: Counter[str],
    window: CryptoWindow,
    policy: CryptoPolicy,
    now: float,
) -> tuple[str, ...]:
    renewed = _renewed(window, policy, now)
    return tuple(
        peer
        for peer, errors in by_peer.most_common()
        if peer and peer not in renewed and (errors >= policy.peer_errors or renewing[peer] >= 2)
    )


def _signal(
    by_peer: Counter[str],
    readable: int,
    share: float | None,
    peers: tuple[str, ...],
    policy: CryptoPolicy,
) -> Signal | None:
    errors, named = by_peer.total(), len([peer for peer in by_peer if peer])
    if not errors:
        return None
    minutes = f"{policy.window / 60:.0f} min"
    words = f"{errors} crypto errors in {minutes}, {named} peers"
    words += f", {share:.0%} of messages" if share is not None else ""
    one_peer = named == 1 and not by_peer[""]
    enough = errors + readable >= policy.least_messages
    large_share = share is not None and share > policy.share and enough
    unnamed = by_peer[""] >= policy.errors
    many = errors >= policy.errors and (named > policy.few_peers or unnamed)
    if not one_peer and (many or (large_share and errors >= policy.errors)):
        return Signal("crypto_corrupted", Health.CORRUPTED, words)
    if peers:
        return Signal("crypto_peer", Health.DEGRADED, f"{words}: new keys for {len(peers)} peers")
    return Signal("crypto_errors", Health.DEGRADED, words)
