"""When to try again, and when to stop trying: backoff, attempts, circuit breaker.

Stored times are wall times, so a wait must survive a clock that jumps: no wait is longer than its
policy says, whatever the stored times claim.
"""

from dataclasses import dataclass, replace

from agent.core.breaker import CLOSED, BreakerPolicy, remaining
from agent.core.model import ConnectionStatus, SessionRecord
from agent.core.reasons import NETWORK_CODES, UNREACHABLE, Permanence, Reason, reason_of
from agent.core.setting import setting
from agent.core.words import Claim

LOCAL_LONGEST = 60.0
"""Seconds that a pause may reach whose cause is on this machine."""
LASTING = 60.0
"""Seconds that a connection must last before the attempts that led to it no longer count."""


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    base: float = setting(
        2.0, "seconds before the first attempt, where the reason has no delay of its own", low=0.1
    )
    max: float = setting(
        300.0, "seconds that a delay may reach, where the reason has no limit of its own", low=0.1
    )
    factor: float = setting(1.5, "each delay is this many times the previous one", low=1, high=10)
    jitter: float = setting(1.0, "random seconds, at most, added to each delay", low=0)
    attempts: int = setting(20, "attempts before an instance stays disconnected", low=1)
    stable: float = 300.0
    """Seconds a connection must last before its drop counts as the first."""
    breaker_failures: int = setting(
        5, "failures in a row, with the address reachable, that open the circuit", low=1
    )
    breaker_pause: float = setting(600.0, "seconds until an open circuit allows one trial", low=1)

    @property
    def breaker(self) -> BreakerPolicy:
        return BreakerPolicy(self.breaker_failures, self.breaker_pause)

    def bounds(self, reason: Reason) -> tuple[float, float]:
        """Return first and longest delay for this reason."""
        usual = min(self.max, LOCAL_LONGEST) if reason.local else self.max
        base = self.base if reason.base is None else reason.base
        return base, usual if reason.max is None else reason.max


def delay_for(reason: Reason, tries: int, policy: ReconnectPolicy, jitter01: float) -> float:
    """The delay before the next try after `tries` that failed for this reason:
    `min(base * factor^tries, longest) + jitter`; `jitter01` is a random 0 to 1."""
    base, longest = policy.bounds(reason)
    if reason.local:
        jitter01 = 0.0  # it spreads logins of many machines; here the queue of starts does
    if reason.permanence is Permanence.AT_ONCE and tries == 0:
        return base
    # 2.0 ** 64 seconds is longer than any policy's wait; larger powers overflow.
    power = policy.factor ** min(max(tries, 0), 64)
    # A reason without delay gets one from the second time on: no storm.
    return min((base or policy.base) * power, longest) + policy.jitter * jitter01


def not_before(
    record: SessionRecord, policy: ReconnectPolicy, now: float, now_wall: float
) -> float:
    """Return `record.not_before_wall` as a boot time, for Session.not_before."""
    reason = reason_of(record.reason)
    ban = reason.permanence is Permanence.AT_TIME  # which has an end of its own
    longest = float("inf") if ban else max(policy.max, policy.bounds(reason)[1]) + policy.jitter
    return now + remaining(record.not_before_wall, now_wall, longest)


def after_drop(
    record: SessionRecord,
    code: str,
    policy: ReconnectPolicy,
    now_wall: float,
    jitter01: float,
    *,
    until_wall: float | None = None,
    ours: bool = True,
) -> SessionRecord:
    """A session ended, or a try failed: note why and when the next try may come. Call it once per
    drop: when a claim turns DISCONNECTED or AUTH_FAILURE, a worker failed past its host's burst
    limit, or a verdict turned stuck.

    `ours`: False where this session waited, so that its server made the try: no login by the agent.
    """
    if not ours and record.reason == UNREACHABLE and code in NETWORK_CODES:
        code = UNREACHABLE  # again after `uncounted`: no second failure to take back
    reason = reason_of(code)
    held = record.status is ConnectionStatus.CONNECTED
    record = after_lasting(record, now_wall)
    lasted = held and now_wall - record.status_since_wall >= policy.stable
    flaps = 0 if lasted else record.flaps + (1 if held else 0)
    strikes = (0 if lasted else record.strikes) + (1 if reason.tries is not None else 0)
    if reason.permanence is Permanence.AT_TIME and (until_wall or 0.0) > now_wall:
        wait = (until_wall or 0.0) - now_wall
    else:
        # An end that is past is none; and this drop is no flap before itself.
        earlier = 0 if lasted else min(record.flaps, policy.attempts // 2)
        wait = delay_for(reason, earlier if held else record.attempts + earlier, policy, jitter01)
    record = replace(record, status=reason.status, status_since_wall=now_wall, reason=code)
    record = replace(record, flaps=flaps, strikes=strikes, not_before_wall=now_wall + wait)
    if reason.counts_as_failure and ours:
        record = replace(record, breaker=record.breaker.after_failure(now_wall, policy.breaker))
    return record


def after_try(
    record: SessionRecord, policy: ReconnectPolicy, now_wall: float, jitter01: float
) -> SessionRecord:
    """Count a try, which the agent is about to make, and space the next one."""
    if record.reason == "temporary_ban":
        record = replace(record, reason="")  # it is over: a worker that begins now may log in
    # Without its address it is tried in spite of the looks, which no session may pay for.
    attempts = record.attempts + (record.reason != UNREACHABLE)
    wait = delay_for(reason_of(record.reason), attempts, policy, jitter01)
    breaker = record.breaker.after_try(now_wall, policy.breaker)
    return replace(record, attempts=attempts, not_before_wall=now_wall + wait, breaker=breaker)


def spare_unreached(
    record: SessionRecord, policy: ReconnectPolicy, now_wall: float
) -> SessionRecord:
    """The address is away: the last counted try was no login, and costs no attempt. Once per drop;
    when the address is back the next try is due, except for a session that flaps."""
    others = NETWORK_CODES - {UNREACHABLE}
    if record.status is ConnectionStatus.CONNECTED or record.reason not in others:
        return record
    flaps = min(max(record.flaps - 1, 0), policy.attempts // 2)
    wait = delay_for(reason_of(UNREACHABLE), flaps, policy, 0.0)
    due_wall = min(record.not_before_wall, record.status_since_wall + wait)
    record = replace(record, reason=UNREACHABLE, not_before_wall=due_wall)
    return uncounted(record, policy, now_wall)


def uncounted(record: SessionRecord, policy: ReconnectPolicy, now_wall: float) -> SessionRecord:
    """Take the last failure back: it proves nothing about this session, such as a canary's that met
    the common failure."""
    breaker = record.breaker.without_last_failure(now_wall, policy.breaker)
    return replace(record, attempts=max(record.attempts - 1, 0), breaker=breaker)


NOT_REACHED = frozenset({"backend_down", "circuit_open", "busy", "not_supported", "stopping"})
"""Codes of refusals by neither the session nor its server: no login came of the try."""


def after_refusal(
    record: SessionRecord, code: str, policy: ReconnectPolicy, now_wall: float
) -> SessionRecord:
    """Count a refused try of the agent: `breaker_failures` in a row open the circuit."""
    if not code or code in NOT_REACHED:
        return record
    return replace(record, breaker=record.breaker.after_failure(now_wall, policy.breaker))


def after_connected(record: SessionRecord, wall: float, policy: ReconnectPolicy) -> SessionRecord:
    """A success: the breaker begins at 0 (attempts, `flaps` and `strikes` need it to last). A short
    connection ends no attempts, but shows that a try can succeed, however often the agent itself
    starts."""
    attempts = min(record.attempts, policy.attempts // 2)
    record = replace(record, status=ConnectionStatus.CONNECTED, status_since_wall=wall, reason="")
    return replace(record, attempts=attempts, not_before_wall=0.0, past_looks=False, breaker=CLOSED)


def after_lasting(record: SessionRecord, now_wall: float) -> SessionRecord:
    """End the count of attempts: a connection has lasted LASTING seconds."""
    lasted = now_wall - record.status_since_wall >= LASTING
    if record.status is not ConnectionStatus.CONNECTED or not lasted or not record.attempts:
        return record
    return replace(record, attempts=0)


def forgive(record: SessionRecord, *, ban: bool = True) -> SessionRecord:
    """An operator's order: try now, whatever happened before; after a ban for a time, too, or with
    `ban` False at its end."""
    kept = SessionRecord() if ban or record.reason != "temporary_ban" else record
    record = replace(record, reason=kept.reason, not_before_wall=kept.not_before_wall)
    return replace(record, breaker=CLOSED, attempts=0, flaps=0, strikes=0)


BEGINS_AGAIN = ("remote_missing", "qr_idle")
"""Reasons for which a session without a pairing is renewed, or its code shown again."""


def needs_connect(claim: Claim, *, paired: bool, adopted: bool = False) -> bool:
    """True if the agent must tell the server to connect a session; a connected one is left alone.
    `adopted`: the agent did not make it, so it makes none in its place."""
    if adopted and claim.reason == "remote_missing":
        return False
    if not claim.down:
        # Missing at one look: where no pairing is recorded it is made, and that ends nothing.
        return claim.raw == "missing" and not paired and not adopted
    reason = reason_of(claim.reason or "unknown")
    # Where no pairing is recorded a connect can only make a session, or offer a code.
    again = reason.scan_again or reason.code in BEGINS_AGAIN
    return not reason.hopeless or (again and not paired)
