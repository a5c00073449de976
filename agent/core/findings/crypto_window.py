"""Crypto errors and readable messages of one instance in a sliding window, per peer and chat."""

from dataclasses import dataclass, replace

from agent.core.findings.crypto_patterns import CryptoFinding, Effect, own_pattern
from agent.core.setting import setting


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
    retries: int = 3
    """Tries of a crypto operation before it counts as failed."""
    retry_base: float = 1.0
    """Seconds before the first retry of a crypto operation; doubles with each."""
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
