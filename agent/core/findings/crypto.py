"""What the crypto errors of one instance add up to.

Errors of one peer ask for new keys with it; errors of many peers, or in a large share of all
messages, mean a corrupted session.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from agent.core.findings.crypto_patterns import CryptoFinding, Effect, own_pattern
from agent.core.model import Health, Signal
from agent.core.setting import setting

# Crypto errors and readable messages of one instance in a sliding window, per peer and chat.


@dataclass(frozen=True, slots=True)
class CryptoPolicy:
    """The [crypto] table."""

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
        check=lambda entries: [own_pattern(entry) for entry in entries] and "",
    )
    round: float = 600.0
    """Seconds between two checks for sessions whose keys still fail."""


@dataclass(frozen=True, slots=True)
class CryptoSlot:
    """Errors of one peer in one chat and one short stretch of time, which no readable message has
    answered yet."""

    at: float
    peer: str
    errors: int
    regenerates: int = 0
    group: str = ""
    """Messages to a group are read with other keys than those to this session alone."""
    again: int = 0
    """Of messages that were sent again, or that the engine does not name; not those that new keys
    with their peer alone can help."""
    ids: tuple[str, ...] = ()
    """Messages that could not be read, where the engine names them."""
    single: bool = False
    """True if one of them is no summary line."""


@dataclass(frozen=True, slots=True)
class CryptoWindow:
    """Errors, messages and renewed keys of the window; bounded at any rate of errors."""

    slots: tuple[CryptoSlot, ...] = ()
    messages: tuple[tuple[float, int], ...] = ()
    """Readable messages per stretch."""
    regenerated: tuple[tuple[str, float], ...] = ()
    """Peers whose keys were regenerated, and when."""
    renewed: int = 0
    """How often a peer's keys healed by themselves: a readable message came after its errors."""


_STRETCH = 10.0
_MOST_SLOTS = 300
_MOST_PEERS = 200
_MOST_IDS = 20
"""In one slot; a message beyond them counts as one that came for the first time."""
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
    slot = _slot_of(window, finding, now)
    for at, before in enumerate(window.slots):
        if (before.at, before.peer, before.group) == (slot.at, slot.peer, slot.group):
            slots = (*window.slots[:at], _added(before, slot), *window.slots[at + 1 :])
            return replace(window, slots=slots)
    return replace(window, slots=(*window.slots, slot)[-_MOST_SLOTS:])


def note_message(
    window: CryptoWindow,
    policy: CryptoPolicy,
    now: float,
    *,
    peers: tuple[str, ...] = (),
    group: str = "",
    count: int = 1,
) -> CryptoWindow:
    """Count messages that could be read; from a named peer they prove that its keys fit again.

    `peers`: the forms of the sender's address; `group`: where it wrote.
    """
    window = forget_old(window, policy, now)
    start = now - now % _STRETCH
    messages = window.messages
    if messages and messages[-1][0] == start:
        messages = (*messages[:-1], (start, messages[-1][1] + count))
    else:
        messages = (*messages, (start, count))
    named = frozenset(peers) - {""}
    slots = tuple(s for s in window.slots if s.peer not in named or s.group != group)
    renewed = window.renewed + (len(slots) < len(window.slots))
    return replace(window, messages=messages[-_MOST_SLOTS:], slots=slots, renewed=renewed)


def note_regenerated(window: CryptoWindow, peers: tuple[str, ...], now: float) -> CryptoWindow:
    """Forget the errors of peers whose keys were regenerated."""
    kept = tuple(entry for entry in window.regenerated if entry[0] not in peers)
    entries = (*kept, *((peer, now) for peer in peers))
    slots = tuple(slot for slot in window.slots if slot.peer not in peers)
    return replace(window, slots=slots, regenerated=entries[-_MOST_PEERS:])


def note_step(window: CryptoWindow) -> CryptoWindow:
    """Forget all errors: a repair step changed the whole session. What it read stays true."""
    return replace(window, slots=())


def forget_old(window: CryptoWindow, policy: CryptoPolicy, now: float) -> CryptoWindow:
    """Drop what lies outside the window, also what a clock put into the future."""
    since = now - policy.window - _STRETCH
    if not window.slots and not window.messages:
        return window
    slots = tuple(slot for slot in window.slots if since < slot.at <= now)
    messages = tuple(entry for entry in window.messages if since < entry[0] <= now)
    return replace(window, slots=slots, messages=messages)


def _is_counted(window: CryptoWindow, peer: str, now: float) -> bool:
    since = now - _STRETCH - _SUMMARY_AFTER
    near = (slot for slot in window.slots if slot.single and slot.at > since)
    return any(not peer or slot.peer in (peer, "") for slot in near)


def _slot_of(window: CryptoWindow, finding: CryptoFinding, now: float) -> CryptoSlot:
    """One error as a slot of its own."""
    known = {slot.peer for slot in window.slots}
    peer = finding.peer if finding.peer in known or len(known) < _MOST_PEERS else ""
    id = finding.message
    again = not id or any(slot.peer == peer and id in slot.ids for slot in window.slots)
    return CryptoSlot(
        now - now % _STRETCH,
        peer,
        1,
        int(finding.effect is Effect.REGENERATES),
        finding.group,
        int(again and finding.effect is not Effect.REGENERATES),
        (id,) if id else (),
        finding.effect is not Effect.SUMMARY,
    )


def _added(before: CryptoSlot, error: CryptoSlot) -> CryptoSlot:
    ids = before.ids if set(error.ids) <= set(before.ids) else (*before.ids, *error.ids)
    return replace(
        before,
        errors=before.errors + error.errors,
        regenerates=before.regenerates + error.regenerates,
        again=before.again + error.again,
        ids=ids[-_MOST_IDS:],
        single=before.single or error.single,
    )


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
