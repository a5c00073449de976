"""What the crypto errors of one instance add up to.

Errors of one peer ask for new keys with it; errors of many peers, or in a large share of all
messages, mean a corrupted session.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from agent.core.findings.crypto_window import CryptoPolicy, CryptoSlot, CryptoWindow, forget_old
from agent.core.model import Health, Signal


@dataclass(frozen=True, slots=True)
class CryptoState:
    errors: int
    """Those that wait for an answer, too."""
    share: float | None
    """Of all messages; None = unknown."""
    peers: tuple[str, ...]
    """Peers that need new keys now, worst first."""
    signal: Signal | None
    failing: tuple[str, ...] = ()
    """Each peer that failed and whose keys were not regenerated within the window."""


def judge_crypto(
    window: CryptoWindow, policy: CryptoPolicy, now: float, *, counts_messages: bool = True
) -> CryptoState:
    """`counts_messages`: False where the errors come from a server's log, which shows no readable
    messages and none that comes again: the share of errors is unknown, and not 100 %."""
    window = forget_old(window, policy, now)
    if not window.slots:
        return CryptoState(0, 0.0 if counts_messages else None, (), None, ())
    counted = [slot for slot in window.slots if not _awaits(slot, policy, now)]
    by_peer, renewing, again = _sum(counted)
    errors = by_peer.total()
    readable = sum(count for _, count in window.messages)
    share = (errors / (errors + readable) if errors else 0.0) if counts_messages else None
    renewed = _renewed(window, policy, now)
    peers = _need_keys(by_peer, renewing, renewed, policy)
    # A contact whose message failed once may be away: its keys heal when it sends again.
    hard = {peer: errors for peer, errors in by_peer.items() if again[peer]}
    if counts_messages:
        corrupted = _is_corrupted(hard, errors + readable, share, policy)
    else:
        # Nothing heals unseen, and what a step in this time did not heal the next would not either.
        corrupted = errors >= policy.errors and not by_peer.keys() <= renewed
    signal = _signal(by_peer, share, peers, policy, corrupted=corrupted)
    failing = tuple(peer for peer, _ in by_peer.most_common() if peer and peer not in renewed)
    return CryptoState(sum(slot.errors for slot in window.slots), share, peers, signal, failing)


def crypto_retry_delay(tries: int, policy: CryptoPolicy) -> float | None:
    """Seconds before a crypto operation that failed `tries` times is tried again; None = failed."""
    return policy.retry_base * 2.0 ** (tries - 1) if 1 <= tries < policy.retries else None


def _awaits(slot: CryptoSlot, policy: CryptoPolicy, now: float) -> bool:
    """Whether its messages may still come again, readable. An engine that does not name them hears
    of no such answer."""
    return bool(slot.ids) and now - slot.at < policy.answer


def _sum(slots: list[CryptoSlot]) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """By peer: all errors, those that only new keys help, those of messages sent again."""
    by_peer: Counter[str] = Counter()
    renewing: Counter[str] = Counter()
    again: Counter[str] = Counter()
    for slot in slots:
        by_peer[slot.peer] += slot.errors
        renewing[slot.peer] += slot.regenerates
        again[slot.peer] += slot.again
    return by_peer, renewing, again


def _renewed(window: CryptoWindow, policy: CryptoPolicy, now: float) -> set[str]:
    """Peers whose keys were regenerated within `regenerate_every`."""
    return {peer for peer, at in window.regenerated if 0 <= now - at < policy.regenerate_every}


def _need_keys(
    by_peer: Counter[str], renewing: Counter[str], renewed: set[str], policy: CryptoPolicy
) -> tuple[str, ...]:
    return tuple(
        peer
        for peer, errors in by_peer.most_common()
        if peer and peer not in renewed and (errors >= policy.peer_errors or renewing[peer] >= 2)
    )


def _signal(
    by_peer: Counter[str],
    share: float | None,
    peers: tuple[str, ...],
    policy: CryptoPolicy,
    *,
    corrupted: bool,
) -> Signal | None:
    errors, named = by_peer.total(), len([peer for peer in by_peer if peer])
    if not errors:
        return None
    words = f"{errors} crypto {_plural('error', errors)} in {policy.window / 60:.0f} min"
    words += f", {named} {_plural('peer', named)}"
    words += f", {share:.0%} of messages" if share is not None else ""
    if corrupted:
        return Signal("crypto_corrupted", Health.CORRUPTED, words)
    if peers:
        many = f"{len(peers)} {_plural('peer', len(peers))}"
        return Signal("crypto_peer", Health.DEGRADED, f"{words}: new keys for {many}")
    return Signal("crypto_errors", Health.DEGRADED, words)


def _is_corrupted(
    hard: Mapping[str, int], messages: int, share: float | None, policy: CryptoPolicy
) -> bool:
    """`hard`: errors by peer, of those whose messages stayed unreadable when they came again."""
    named, unnamed = len([peer for peer in hard if peer]), hard.get("", 0)
    one_peer = named == 1 and not unnamed
    if one_peer or sum(hard.values()) < policy.errors:
        return False
    if share is not None and share <= policy.share:
        return False
    enough = share is not None and messages >= policy.least_messages
    return enough or named > policy.few_peers or unnamed >= policy.errors


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
