"""When a session is probed next: the usual time later, sooner on its way, spread after a halt."""

from zlib import crc32

from agent.clock import boot_now
from agent.core.model import ConnectionStatus, InstanceId
from agent.supervise.facts import Facts

ON_ITS_WAY = (ConnectionStatus.INITIALIZING, ConnectionStatus.LOADING)
SOONEST = 1.0
"""Seconds to the first probe of a session that its server connects."""
HELD_UP = 2.0
"""So late a look was held up, and with it those of many others."""


def next_look(id: InstanceId, due: float, now: float, interval: float) -> float:
    """The usual time later; after a hold-up sooner, each session at a moment of its own.

    Else all that were held up together would be asked in the same second from then on.
    """
    if due <= 0 or now - due < HELD_UP:
        return now + interval
    return now + interval * (0.5 + share_of(id) / 2)


def probe_interval(facts: Facts, now: float, usual: float) -> float:
    """A server need not tell what becomes of a session on its way: it is asked, ever less often."""
    fact = facts.run.claim
    if not facts.instance.backend or fact is None or fact.claim.status not in ON_ITS_WAY:
        return usual
    return min(max((now - fact.since) / 2, SOONEST), usual)


def ask_soon(facts: Facts) -> None:
    now = boot_now()
    facts.next_probe = min(facts.next_probe, now + probe_interval(facts, now, float("inf")))


def share_of(id: InstanceId) -> float:
    """From 0 to 1, the same for a session each time."""
    return crc32(id.encode()) / 2**32
