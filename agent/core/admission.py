"""Who may start now: order, spacing, parallel starts, the machine's login budget, the queue. Below:
incidents, in which sessions that fail alike wait for one of them."""

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from agent.core import breaker, reasons
from agent.core.setting import setting
from agent.core.words import NO_LEASE, SUSPECT, InstanceId

ASK_AGAIN = 5.0
"""Seconds after which a waiting instance asks again, unless it is woken."""
ABSENT = 3 * ASK_AGAIN
"""Seconds without asking after which the queue skips an instance."""


@dataclass(frozen=True, slots=True)
class StartPolicy:
    """The [start] table; a policy in force has the real number as `parallel`."""

    stagger: float = setting(
        2.0,
        "seconds between the starts of two instances, at most, while half of `parallel` are under"
        " way: the next one begins as soon as one logs in",
        low=0,
    )
    parallel: int = setting(
        0, "simultaneous starts of workers, each until it logs in; 0 = twice the cores", low=0
    )
    logins: int = setting(
        30,
        "logins that may begin in one burst, on this machine and on all backends together; as many"
        " may be under way here at once",
        low=1,
    )
    login_every: float = setting(
        0.1, "seconds until the budget of logins regains one; 0 = no budget", low=0
    )
    disk_free: int = setting(
        200 << 20,
        "bytes that must be free on the disk of the sessions before a worker starts; 0 = no check",
        low=0,
    )
    first_check: float = setting(
        15.0, "seconds from the agent's start to the first check", low=0, restart=True
    )


class LoginBudget:
    """The logins of the whole machine, of its own sessions and of those on backends: a bucket that
    regains one each `login_every` seconds. It is full at first."""

    def __init__(self) -> None:
        self._level, self._at = math.inf, 0.0

    def take(self, policy: StartPolicy, now: float) -> float | None:
        """Take a login. None: it is taken. A time: boot time at which the next one can be."""
        if policy.login_every <= 0:
            return None
        gained = max(now - self._at, 0.0) / policy.login_every
        self._level, self._at = min(self._level + gained, policy.logins), now
        if self._level < 0.999:  # at the time that it told, a rounding is lacking
            return now + (1 - self._level) * policy.login_every
        self._level -= 1
        return None

    def give_back(self) -> None:
        """Put back a login that was taken and not needed."""
        self._level += 1


@dataclass(slots=True, eq=False)
class _Lane:
    """Sessions of this machine, or of one backend, that wait for a turn to log in or have it."""

    queue: dict[InstanceId, float] = field(default_factory=dict)
    """Waiting sessions, in order, and when each asked last, or is to ask again; -inf: it waits for
    more than its turn."""
    under_way: dict[InstanceId, bool] = field(default_factory=dict)
    """Session → True if it only waits for WhatsApp, and needs the machine no more."""
    last: tuple[InstanceId, float] | None = None
    """The last start, and its boot time; None: the heavy part of it is over."""

    def earliest(self, policy: StartPolicy, now: float, *, reconnects: bool) -> float:
        """Boot time at which the next one may begin, or asks again since no place is free."""
        heavy, parallel = list(self.under_way.values()).count(False), policy.parallel
        if heavy >= parallel or len(self.under_way) >= max(parallel, policy.logins):
            return now + ASK_AGAIN
        if reconnects or heavy < parallel // 2 or self.last is None or policy.stagger <= 0:
            return now
        # A clock that was set back must not stop the queue.
        return min(self.last[1], now) + policy.stagger

    def is_next(self, instance: InstanceId, now: float) -> bool:
        """True if no session that still asks is before it."""
        for waiting, asked in self.queue.items():
            if waiting == instance or now - asked < ABSENT:
                return waiting == instance
        return True

    def release(self, instance: InstanceId) -> bool:
        """Release the next start. True if this session's was the last one, for which that waits."""
        if self.last is None or self.last[0] != instance:
            return False
        self.last = None
        return True


class Queues:
    """One queue for this machine's sessions, and one per backend: many sessions never come back in
    one burst. All share the machine's budget of logins.

    Half of the places are given at once: a processor for each, by default. Beyond them a start
    waits until the one before is light or has ended, `stagger` seconds at most. A reconnect begins
    no worker, so it waits for no stagger, and goes before the starts. What is light leaves its
    place to the next: how long WhatsApp takes for a login is no load of this machine.
    """

    def __init__(self, wake: Callable[[InstanceId], None]) -> None:
        self._wake = wake
        self._budget = LoginBudget()
        self._lanes = {"": _Lane()}
        self._lane_of: dict[InstanceId, str] = {}
        self._asked: set[InstanceId] = set()

    def ask(
        self,
        instance: InstanceId,
        policy: StartPolicy,
        now: float,
        *,
        reconnects: bool = False,
        lane: str = "",
        ready: Callable[[], float | None],
    ) -> float | None:
        """None: go now, and call `try_ended` when its try has ended. A time: ask again then.
        `ready` is asked once its turn has come, so that what it waits for costs it no place."""
        self._asked.add(instance)
        self._lane_of[instance] = lane
        own = self._lanes.setdefault(lane, _Lane())
        if instance in own.under_way:
            return ready()
        if reconnects and instance not in own.queue:
            own.queue = {instance: now, **own.queue}
        own.queue[instance] = now
        if not own.is_next(instance, now):
            return now + ASK_AGAIN
        at = own.earliest(policy, now, reconnects=reconnects)
        if at <= now:
            at = self._budget.take(policy, now) or now
        if at > now:
            own.queue[instance] = at  # until then it is not absent
            return at
        if (wait := ready()) is None:
            if not reconnects:
                own.last = instance, now
            own.under_way[instance] = False
            own.queue.pop(instance)
        else:
            self._budget.give_back()
            own.queue[instance] = -math.inf  # it keeps its place, and the next ones go
        self._wake_next(own)
        return wait

    def no_login(self) -> None:
        """Note that the session was connected already: its turn cost no login."""
        self._budget.give_back()

    def before(self, instance: InstanceId) -> int | None:
        """Number of sessions before this one; None: it waits for no turn."""
        queue = list(self._of(instance).queue)
        return queue.index(instance) if instance in queue else None

    def free_place(self, instance: InstanceId) -> None:
        """Note that the heavy part of a start is over: the next session may have its place."""
        lane = self._of(instance)
        released = lane.release(instance)
        if lane.under_way.get(instance) is False:
            lane.under_way[instance] = released = True
        if released:
            self._wake_next(lane)

    def try_ended(self, instance: InstanceId) -> None:
        """A session's try has ended, and its turn with it: it is connected, waits for a scan,
        failed or is stuck."""
        lane = self._of(instance)
        if lane.under_way.pop(instance, None) is not None:
            lane.release(instance)
            self._wake_next(lane)

    def leave(self, instance: InstanceId) -> None:
        """Note the end of a pass: a session that did not ask in it waits for no turn."""
        lane = self._of(instance)
        if instance in self._asked:
            self._asked.discard(instance)
        elif lane.queue.pop(instance, None) is not None:
            self._wake_next(lane)

    def withdraw(self, instance: InstanceId) -> None:
        """Forget a deleted instance: it is neither under way nor waiting."""
        self.try_ended(instance)
        self._asked.discard(instance)
        self.leave(instance)
        self._lane_of.pop(instance, None)

    def _of(self, instance: InstanceId) -> _Lane:
        return self._lanes[self._lane_of.get(instance, "")]

    def _wake_next(self, lane: _Lane) -> None:
        for instance, asked in lane.queue.items():
            if asked > -math.inf:
                self._wake(instance)
                break


# Incidents: sessions of one group that fail alike wait, and one of them, the canary, tries first.
# The canary's success ends the incident, and so do as many sessions that connect as have failed. A
# group is an engine, or an engine on one backend. A session that has not failed does not wait; it
# joins when it fails alike.


@dataclass(frozen=True, slots=True)
class IncidentPolicy:
    window: float = 900.0
    """Seconds within which failures of the same kind are one incident."""
    instances: int = setting(
        3, "instances of one engine that must fail the same way for an incident", low=2
    )
    noise: float = 0.01
    """Share of an engine's instances below which failures are no incident."""
    outage_window: float = 60.0
    """Seconds within which lost connections are one network outage."""
    outage_share: float = 0.3
    """Share of the connections that must be lost for an outage."""
    canary_first: float = setting(
        5.0,
        "seconds until the first canary instance tries; doubles with each canary that fails",
        low=0.1,
    )
    canary_longest: float = 180.0
    """Seconds that the wait for the next canary may reach in an incident."""
    outage_longest: float = 20.0
    """Seconds that the wait for the next canary may reach in a network outage."""
    canary_time: float = 400.0
    """Seconds in which a canary must connect."""
    probe_first: float = 120.0
    probe_longest: float = 900.0
    """Seconds until the first canary, and between two, where WhatsApp refuses the client itself."""


LOST = "connection_lost"
OUTAGE_CODES = frozenset({LOST, "service_unavailable", "unreachable"})
"""Codes that are several words for one dead network."""

# Failures of each instance alone, however many there are: a canary would prove nothing about the
# others.
OWN_AFFAIR = {
    *("", "starting", "qr_idle", "passkey_required", "passkey_suspected", "restart_required"),
    *("conflict", "temporary_ban", "restricted", "waiting_for_scan", "zombie", "proof_old"),
    # It stayed connected, or its machine lacks a lease: as a canary it would prove nothing.
    *("crypto_corrupted", "crypto_peer", NO_LEASE),
}


@dataclass(slots=True)
class Incident:
    group: str
    code: str
    since: float
    members: list[InstanceId]
    canary: InstanceId | None = None
    """The member that may try now."""
    turn_at: float = 0.0
    """Boot time at which the canary got its turn; without one, at which the next may have it."""
    tries: int = 0
    """Canaries so far."""
    idle: set[InstanceId] = field(default_factory=set)
    """Members that had nothing to try in their turn."""

    @property
    def is_outage(self) -> bool:
        return self.code == LOST

    @property
    def kind(self) -> str:
        return "outage" if self.is_outage else "change"

    @property
    def wait_reason(self) -> str:
        """The word for Session.wait."""
        return "network_down" if self.is_outage else "incident"

    @property
    def sentence(self) -> str:
        meaning = f" ({reasons.REASONS[self.code].title})" if self.code in reasons.REASONS else ""
        return f"{self.code} on {len(self.members)} instances of {self.group}{meaning}"

    def join(self, id: InstanceId, code: str) -> None:
        """Take a session in that fails alike; another one would prove nothing as a canary."""
        if common_code(code) == self.code and id not in self.members:
            self.members.insert(0, id)  # it has had no turn yet

    def next_turn(self, policy: IncidentPolicy, now: float) -> float:
        """Boot time at which give_turn must be asked again; a clock set back does not delay it."""
        if self.canary is not None:
            most = policy.canary_time
            return now + breaker.remaining(self.turn_at + most, now, most)
        return now + breaker.remaining(self.turn_at, now, max(_pace(self.code, policy)))

    def give_turn(
        self, able: Collection[InstanceId], policy: IncidentPolicy, now: float
    ) -> InstanceId | None:
        """The member that begins its turn. A canary that fell silent has failed, and where none
        is able to try, all are asked again after the wait for a failed one."""
        able = [id for id in self.members if id in able and id not in self.idle]
        if self.canary is not None or not able:
            if self.idle:
                self.tries += 1
            self.end_turn(policy, now)
            return None
        self.canary, self.turn_at, self.tries = able[0], now, self.tries + 1
        self.members.remove(able[0])  # it goes to the end, so that each of them has its turn
        self.members.append(able[0])
        return self.canary

    def end_turn(self, policy: IncidentPolicy, now: float) -> None:
        """End a turn in which the canary failed."""
        first, longest = _pace(self.code, policy)
        self.canary, self.turn_at = None, now + min(first * 2.0 ** min(self.tries, 16), longest)
        self.idle.clear()

    def pass_turn(self, now: float) -> None:
        """Pass on a turn that proves nothing: the next one is due now, and no try was made."""
        if self.canary is not None:
            self.tries -= 1
        self.canary, self.turn_at = None, now


def is_shared(code: str) -> bool:
    """True if a try of one session can prove anything for others with this code. A banned or
    logged-out session makes no try, so the others would wait for ever. Processes of this machine
    that ended, or what it lacks, prove nothing about WhatsApp. Many that come up unpaired may be a
    page that changed.
    """
    if code in OWN_AFFAIR:
        return False
    if code == SUSPECT:
        return True
    row = reasons.REASONS.get(code)
    return row is None or not (row.hopeless or row.unpairs or row.local)


def common_code(code: str) -> str:
    return LOST if code in OUTAGE_CODES else code


def find_incident(
    group: str,
    failures: Mapping[InstanceId, Mapping[str, float]],
    successes: Mapping[InstanceId, float],
    policy: IncidentPolicy,
    now: float,
) -> Incident | None:
    """The largest incident that the failures of a group show: more of its instances failed since
    some moment than connected. For each instance, when it last failed with a phase (`phase_login`)
    or a reason's code, and when it last connected (-inf: never)."""
    alike: dict[str, dict[InstanceId, float]] = {}
    well = sorted(successes.values())
    for id, last in failures.items():
        for code, at in last.items():
            window = policy.outage_window if code in OUTAGE_CODES else policy.window
            if is_shared(code) and at > successes[id] and 0 <= now - at < window:
                alike.setdefault(common_code(code), {})[id] = at
    for code, members in sorted(alike.items(), key=lambda row: len(row[1]), reverse=True):
        share = policy.outage_share if code == LOST else policy.noise
        least = max(policy.instances, len(successes) * share)
        in_order = sorted(members, key=members.__getitem__)
        for number, id in enumerate(in_order):
            failed = len(in_order) - number
            if failed >= least and failed > len(well) - bisect_left(well, members[id]):
                due = now + _pace(code, policy)[0]
                return Incident(group, code, now, sorted(in_order[number:]), turn_at=due)
    return None


def _pace(code: str, policy: IncidentPolicy) -> tuple[float, float]:
    """Seconds to the first canary's try, and at most from one to the next."""
    if code in reasons.REASONS and reasons.REASONS[code].slow:
        return policy.probe_first, policy.probe_longest
    return policy.canary_first, policy.outage_longest if code == LOST else policy.canary_longest
