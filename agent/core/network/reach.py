"""Whether the address that sessions need can be reached, and when to look at it again.

A session tries only after a good look at its address; all sessions that need it share the looks.
Looks are believed only where they work at all: the first time that they fail, one session tries all
the same. The caller does the looks and reports the results of the tries, all by one clock.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

UNREACHABLE = "unreachable"
"""The wait reason, and the reason code of a session, while its address is away."""

NETWORK_CODES = frozenset(
    {
        UNREACHABLE,
        "connection_lost",
        "connection_closed",
        "service_unavailable",
        "page_crashed",
        "injection_failed",
        "page_http_error",
        "page_silent",
        "page_elsewhere",
        "captive_portal",
        "certificate_error",
        "zombie",
        "start_stuck",
        "unknown",
    }
)
"""Reasons that a network which is away can cause, whatever the engine reported."""

REACHED_CODES = frozenset(
    {
        "restart_required",
        "conflict",
        "bad_session",
        "temporary_ban",
        "restricted",
        "client_outdated",
        "browser_unsupported",
        "proxy_block",
        "bad_client",
        "qr_idle",
        "passkey_required",
        "logout",
        "multidevice_mismatch",
        "account_locked",
        "tos_block",
        "banned",
    }
)
"""Reasons that only WhatsApp itself gives: it was reached."""

NEXT_BLIND = 3.0
"""Each try in spite of failed looks waits so many times longer than the one before."""
UNSEEN_FIRST, UNSEEN_LONGEST = 5.0, 60.0
"""Seconds between two such tries where no look was good yet: looks may not work here at all."""


@dataclass(frozen=True, slots=True)
class ReachPolicy:
    """How addresses are looked at; the first two are settings of [reconnect]. Seconds."""

    look_every: float
    """The longest time between two looks; 0 = addresses are never looked at."""
    look_timeout: float
    look_first: float = 1.0
    """From the first look that failed to the next."""
    fresh: float = 5.0
    """A good look, or a connection, stays valid for so long."""
    doubted: float = 10.0
    """The longest time between two tries that fail although the looks are good."""
    blind: float = 300.0
    """After so long one session tries although the looks fail."""
    growth: float = 1.5


@dataclass(frozen=True, slots=True)
class Reach:
    """The state of one address."""

    well_at: float | None = None
    """When a look or a connection last showed that it can be reached."""
    away_since: float | None = None
    """Since when the looks fail; None = they do not."""
    cause: str = ""
    """Why the last failed look failed."""
    looks: int = 0
    """Looks in a row that failed."""
    look_at: float = 0.0
    """No look before this moment."""
    back_at: float | None = None
    """When it could last be reached again."""
    seen: bool = False
    """A look was good once: looks work here."""
    blind: bool = False
    """A session connected although the looks failed: looks are ignored until one is good."""
    tries: int = 0
    """Tries in spite of failed looks, since it is away."""
    tried_at: float = 0.0
    alarms: int = 0
    """Tries in a row that failed although the looks were good."""
    try_at: float = 0.0
    """No try before this moment, because of those."""

    @property
    def away(self) -> bool:
        return self.away_since is not None and not self.blind


class May(StrEnum):
    """What a session that wants to try does now."""

    TRY = "try"
    LOOK = "look"
    WAIT = "wait"


def ask_reach(reach: Reach, policy: ReachPolicy, now: float) -> May:
    """WAIT lasts until the address's state changes, or until `next_moment`."""
    if policy.look_every <= 0:
        return May.TRY
    if reach.blind:
        return May.TRY
    if reach.away:
        return May.TRY if now >= _blind_at(reach, policy) else May.WAIT
    if now < reach.try_at:
        return May.WAIT
    fresh = reach.well_at is not None and 0 <= now - reach.well_at <= policy.fresh
    return May.TRY if fresh else May.LOOK


def next_moment(reach: Reach, policy: ReachPolicy) -> float:
    """When a session that waits may ask again at the latest."""
    return _blind_at(reach, policy) if reach.away else reach.try_at


def begin_try(reach: Reach, now: float) -> Reach:
    if not reach.away:
        return reach
    return replace(reach, tries=reach.tries + 1, tried_at=now)


def after_good_look(reach: Reach, now: float) -> Reach:
    """Waiting sessions may try at once."""
    was_away = reach.away_since is not None
    return replace(
        reach,
        well_at=now,
        away_since=None,
        cause="",
        looks=0,
        back_at=now if was_away else reach.back_at,
        seen=True,
        blind=False,
        tries=0,
        try_at=now if was_away else reach.try_at,
    )


def after_failed_look(
    reach: Reach, cause: str, policy: ReachPolicy, begun: float, jitter01: float
) -> Reach:
    """A look that began at `begun` failed: the next is due so long after `begun`."""
    wait = min(policy.look_first * policy.growth ** min(reach.looks, 32), policy.look_every)
    return replace(
        reach,
        away_since=begun if reach.away_since is None else reach.away_since,
        cause=cause,
        looks=reach.looks + 1,
        # 0.8 to 1 of it: looks at many addresses are spread, and none comes later.
        look_at=begun + wait * (0.8 + 0.2 * jitter01),
    )


def after_connection(reach: Reach, now: float) -> Reach:
    """A session that needs this address is connected."""
    if reach.away_since is not None:
        # The looks fail and the sessions connect: looks from here cannot see this address.
        return replace(reach, blind=True, back_at=now, well_at=now, alarms=0, tries=0)
    return replace(reach, well_at=now, alarms=0, try_at=0.0)


def after_failure(
    reach: Reach, code: str, policy: ReachPolicy, now: float, *, tried: bool
) -> Reach:
    """A session lost its connection, or a try of the agent (`tried`) failed, with this reason."""
    if code in REACHED_CODES:
        return after_connection(reach, now)
    if code not in NETWORK_CODES:
        return reach
    if reach.away_since is not None:
        # Looks and tries agree again, and the looks go on at once.
        return replace(reach, blind=False, well_at=None, look_at=now) if reach.blind else reach
    if not tried or now < reach.try_at:
        return replace(reach, well_at=None)
    alarms = reach.alarms + 1
    wait = min(2.0 ** min(alarms, 16), policy.doubted)
    return replace(reach, well_at=None, alarms=alarms, try_at=now + wait)


def after_route_change(reach: Reach, now: float) -> Reach:
    """The kernel changed its routes: an address that is away may be back at any moment."""
    if reach.away_since is None:
        return replace(reach, well_at=None)
    return replace(reach, look_at=now, looks=0)


def _blind_at(reach: Reach, policy: ReachPolicy) -> float:
    """When one session may try although the looks fail."""
    assert reach.away_since is not None
    if not reach.seen:
        wait = min(UNSEEN_FIRST * 2.0 ** min(reach.tries - 1, 16), UNSEEN_LONGEST)
        return reach.tried_at + wait if reach.tries else reach.away_since
    begun = reach.tried_at if reach.tries else reach.away_since
    return begun + policy.blind * NEXT_BLIND ** min(reach.tries, 16)
