"""Judges the crypto errors of one instance.

Errors of one peer ask for new keys with it; errors of many peers, or in a large share of all
messages, mean a corrupted session.
"""

from collections import Counter
from dataclasses import dataclass, replace

from agent.core.crypto_patterns import CryptoFinding, Effect, own_pattern
from agent.core.model import Health, Signal
from agent.core.setting import setting
from agent.core.words import counted


def _patterns_fault(entries: tuple[str, ...]) -> str:
    """Check patterns of the settings; ValueError names the entry that cannot be used."""
    for entry in entries:
        own_pattern(entry)
    return ""


@dataclass(frozen=True, slots=True)
class CryptoPolicy:
    window: float = setting(300.0, "seconds over which crypto errors are counted", low=1)
    errors: int = setting(
        5, "errors of several peers within the window that mean a corrupted session", low=1
    )
    answer: float = 30.0
    """Seconds within which a contact may send again what could not be read; only then its keys
    count as failing."""
    peer_errors: int = 3
    """Errors of one peer within the window after which its keys are regenerated."""
    few_peers: int = 3
    """Failing peers up to which errors mean bad keys of these; more mean a corrupted session."""
    share: float = 0.2
    """Share of messages with errors that means a corrupted session."""
    least_messages: int = 20
    """Messages within the window from which share applies."""
    regenerate_every: float = 600.0
    """Seconds between two regenerations of one peer's keys."""
    patterns: tuple[str, ...] = setting(
        (),
        'more log texts about keys: "counts: TEXT", "regenerates: TEXT" where only'
        ' new keys help, "benign: TEXT"; any case',
        restart=True,
        check=_patterns_fault,
    )
    round: float = 600.0
    """Seconds between two checks for sessions whose keys still fail."""


@dataclass(frozen=True, slots=True)
class CryptoWindow:
    """Errors, messages and renewed keys of the window; bounded at any rate of errors."""

    errors: tuple[tuple[float, CryptoFinding], ...] = ()
    """Errors that no readable message has answered yet, with the time of each."""
    messages: tuple[tuple[float, int], ...] = ()
    """Readable messages per stretch."""
    regenerated: tuple[tuple[str, float], ...] = ()
    """Peers whose keys were regenerated, with the time of each."""


_STRETCH = 10.0
_MOST_ERRORS = 1000
_MOST_STRETCHES = 300
_MOST_PEERS = 200
_SUMMARY_AFTER = 15.0
"""A summary line repeats an error of at most this number of seconds before."""


def note_error(
    window: CryptoWindow, finding: CryptoFinding, policy: CryptoPolicy, now: float
) -> CryptoWindow:
    window = forget_old(window, policy, now)
    if finding.effect is Effect.SUMMARY:
        for at, known in window.errors:
            same = not finding.peer or known.peer in (finding.peer, "")
            if same and at > now - _SUMMARY_AFTER and known.effect is not Effect.SUMMARY:
                return window  # the error that it repeats is counted
    return replace(window, errors=(*window.errors, (now, finding))[-_MOST_ERRORS:])


def note_message(
    window: CryptoWindow,
    policy: CryptoPolicy,
    now: float,
    *,
    peers: tuple[str, ...] = (),
    group: str = "",
) -> CryptoWindow:
    """Count a message that could be read; from a named peer it proves that its keys fit again.

    `peers`: the forms of the sender's address; `group`: where it wrote.
    """
    window = forget_old(window, policy, now)
    start = now - now % _STRETCH
    if (messages := window.messages) and messages[-1][0] == start:
        messages = (*messages[:-1], (start, messages[-1][1] + 1))
    else:
        messages = (*messages, (start, 1))
    named = frozenset(peers) - {""}
    errors = tuple(e for e in window.errors if e[1].peer not in named or e[1].group != group)
    return replace(window, messages=messages[-_MOST_STRETCHES:], errors=errors)


def note_regenerated(window: CryptoWindow, peers: tuple[str, ...], now: float) -> CryptoWindow:
    """Forget the errors of peers whose keys were regenerated."""
    kept = tuple(entry for entry in window.regenerated if entry[0] not in peers)
    entries = (*kept, *((peer, now) for peer in peers))
    errors = tuple(error for error in window.errors if error[1].peer not in peers)
    return replace(window, errors=errors, regenerated=entries[-_MOST_PEERS:])


def forget_old(window: CryptoWindow, policy: CryptoPolicy, now: float) -> CryptoWindow:
    """Drop what lies outside the window, also what a clock put into the future."""
    since = now - policy.window - _STRETCH
    if not window.errors and not window.messages:
        return window
    errors = tuple(error for error in window.errors if since < error[0] <= now)
    messages = tuple(entry for entry in window.messages if since < entry[0] <= now)
    return replace(window, errors=errors, messages=messages)


@dataclass(frozen=True, slots=True)
class CryptoState:
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
    if not window.errors:
        return CryptoState((), None)
    by_peer: Counter[str] = Counter()
    renewing: Counter[str] = Counter()
    """Peer → number of its errors that only new keys end."""
    stays: set[str] = set()
    """Peers with a message that stayed unreadable when it came again, or that nothing names. A
    contact whose message failed once may be away: its keys heal when it sends again."""
    seen: set[tuple[str, str]] = set()
    for at, finding in window.errors:
        peer, id, renews = finding.peer, finding.message, finding.effect is Effect.REGENERATES
        again = not id or (peer, id) in seen
        seen.add((peer, id))
        if id and now - at < policy.answer:
            continue  # it may still come again, readable
        by_peer[peer] += 1
        renewing[peer] += renews
        if again and not renews:
            stays.add(peer)
    errors = by_peer.total()
    readable = sum(count for _, count in window.messages)
    share = errors / max(errors + readable, 1)
    renewed = {peer for peer, at in window.regenerated if 0 <= now - at < policy.regenerate_every}
    failing = tuple(peer for peer, _ in by_peer.most_common() if peer and peer not in renewed)
    peers = tuple(it for it in failing if by_peer[it] >= policy.peer_errors or renewing[it] >= 2)
    if counts_messages:
        hard = {peer: count for peer, count in by_peer.items() if peer in stays}
        corrupted = _is_corrupted(hard, errors + readable, share, policy)
    else:
        # Nothing heals unseen, and what a step in this time did not heal the next would not either.
        corrupted = errors >= policy.errors and not by_peer.keys() <= renewed
    words = f"{counted(errors, 'crypto error')} in {policy.window / 60:.0f} min"
    words += f", {counted(len([peer for peer in by_peer if peer]), 'peer')}"
    words += f", {share:.0%} of messages" if counts_messages else ""
    signal = Signal("crypto_errors", Health.DEGRADED, words) if errors else None
    if corrupted:
        signal = Signal("crypto_corrupted", Health.CORRUPTED, words)
    elif peers:
        words += f": new keys for {counted(len(peers), 'peer')}"
        signal = Signal("crypto_peer", Health.DEGRADED, words)
    return CryptoState(peers, signal, failing)


def _is_corrupted(hard: dict[str, int], messages: int, share: float, policy: CryptoPolicy) -> bool:
    """True if the session is corrupted. `hard`: peer → errors whose messages stayed unreadable
    when they came again."""
    named, unnamed = len([peer for peer in hard if peer]), hard.get("", 0)
    if (named == 1 and not unnamed) or sum(hard.values()) < policy.errors:
        return False
    if share <= policy.share:
        return False
    return named > policy.few_peers or unnamed >= policy.errors or messages >= policy.least_messages
