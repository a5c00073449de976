"""When a session is next probed: after its interval, sooner while it connects."""

from zlib import crc32

from agent.clock import boot_now
from agent.core.model import ConnectionStatus, InstanceId
from agent.supervise.facts import Facts

ON_ITS_WAY = (ConnectionStatus.INITIALIZING, ConnectionStatus.LOADING)
SOONEST = 1.0
"""Seconds to the first probe of a session that its server connects."""
HELD_UP = 2.0
"""A look that is this late was delayed together with many others."""


def next_look(id: InstanceId, due: float, now: float, interval: float) -> float:
    """After its interval; after a delay sooner and at its own moment, or the agent would probe all
    delayed sessions in the same second from then on."""
    if due <= 0 or now - due < HELD_UP:
        return now + interval
    return now + interval * (0.5 + share_of(id) / 2)


def probe_interval(facts: Facts, now: float, usual: float) -> float:
    """A server need not report what becomes of a session that it connects: ask, ever less often."""
    fact = facts.run.claim
    if not facts.instance.backend or fact is None or fact.claim.status not in ON_ITS_WAY:
        return usual
    return min(max((now - fact.since) / 2, SOONEST), usual)


def ask_soon(facts: Facts) -> None:
    now = boot_now()
    facts.next_probe = min(facts.next_probe, now + probe_interval(facts, now, float("inf")))


def share_of(id: InstanceId) -> float:
    """From 0 to 1, always the same for one session."""
    return crc32(id.encode()) / 2**32
