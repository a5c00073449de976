"""One machine with its sessions: what really happens, whatever anybody believes.

A way of supervising is told what could be seen (`changed`, `fell_silent`) and calls
`start`, `connect`, `stop` and the cures; it never reads a session's fate.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from scripts.simulation import faults
from scripts.simulation.faults import CHANGE, DAY, OUTAGES, SOCKET, WEB
from scripts.simulation.tally import Tally

SETTLING_IN = 600.0
"""What breaks in the last minutes of the day may come back after it; it is not counted."""

WAITING = frozenset({"down", "starting", "stuck"})
PERSON = frozenset({"logout", "banned", "foreign_owner", "damaged_for_good", "unpaired"})


@dataclass(slots=True, eq=False)
class Session:
    number: int
    engine: str
    state: str = "off"
    """off, starting, connected, dropped, asks (for a scan)"""
    since: float = 0.0
    turn: int = 0
    """Counts changes of `state`; what belongs to an earlier turn is void."""
    reason: str = ""
    until: float | None = None
    phase: str = ""
    silent_since: float | None = None
    """It says connected and does nothing."""
    keys: str = ""
    """peer or account: messages that cannot be read."""
    damaged: bool = False
    restorable: bool = False
    fate: str = ""
    """Why nothing but a person helps any more."""
    banned_until: float = 0.0
    condition: str = "down"
    condition_since: float = 0.0
    down_since: float | None = None
    """Begin of the present episode; None while it serves."""


class Supervising(Protocol):
    def boot(self, at: float) -> None: ...

    def changed(self, session: Session, at: float) -> None: ...

    def crashed(self, session: Session, at: float) -> None: ...

    def fell_silent(self, session: Session, at: float) -> None: ...

    def keys_failed(self, session: Session, at: float) -> None: ...


class Machine:
    """Plays one machine's day to one way of supervising."""

    def __init__(self, seed: str, size: int, tally: Tally) -> None:
        self.dice = random.Random(seed)
        self.tally = tally
        self.network = faults.network_spans(self.dice)
        away = (*self.network, *OUTAGES)
        self.away = {SOCKET: faults.merged(away), WEB: faults.merged((*away, CHANGE))}
        self.sessions = [self._session(number) for number in range(size)]
        self.starting = 0
        self.recent_logins: deque[float] = deque()
        self.supervising: Supervising
        self._queue: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = 0
        for session in self.sessions:
            for at, kind in faults.instance_faults(self.dice, session.engine):
                self.later(at, partial(self._fault, session, kind))
        for span in (*self.network, *OUTAGES):
            self.later(span.begin, self._network_gone)
        if self.dice.random() < faults.REBOOTS:
            self.later(faults.REBOOT_AT + self.dice.random() * 60, self._reboot)

    def _session(self, number: int) -> Session:
        engine = WEB if self.dice.random() < faults.WEB_SHARE else SOCKET
        return Session(number, engine, restorable=engine == WEB)

    def later(self, at: float, what: Callable[[float], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (at, self._count, what))

    def play(self) -> None:
        """The day, from the machine's boot at midnight."""
        self.supervising.boot(0.0)
        while self._queue and self._queue[0][0] < DAY:
            at, _, what = heapq.heappop(self._queue)
            what(at)
        for session in self.sessions:
            self._account(session, DAY)
            self.tally.needed_person += bool(session.fate)
            if session.down_since is not None and not self._excused(session, DAY):
                self.tally.episodes += 1
        self.tally.instances += len(self.sessions)

    # --- what a supervisor can do -----------------------------------------------------------

    def start(self, session: Session, at: float) -> None:
        """A new worker, whatever was there before."""
        self._begin(session, at, cold=True)

    def connect(self, session: Session, at: float) -> None:
        """The same worker connects anew; a page that hangs mostly hangs on."""
        if session.state == "starting" and session.phase:
            changed = session.phase == "injected" and CHANGE.holds(at)
            if changed or self.dice.random() < 0.7:
                return
        self._begin(session, at, cold=False)

    def renew_keys(self, session: Session, at: float) -> None:
        if session.keys and self.dice.random() < (0.95 if session.keys == "peer" else 0.7):
            session.keys = ""
            self._account(session, at)

    def restore(self, session: Session, at: float) -> None:
        session.damaged = False
        self.start(session, at)

    def begin_afresh(self, session: Session, at: float) -> None:
        """A cleanup: a person must scan now."""
        if not session.fate:
            self.tally.unpaired += 1
            session.fate = "unpaired"
        self._enter(session, "asks", at)

    # --- what happens -----------------------------------------------------------------------

    def _begin(self, session: Session, at: float, *, cold: bool) -> None:
        self._enter(session, "starting", at)
        self._count_login(session, at)
        dice = self.dice
        if cold and session.keys == "account" and dice.random() < 0.3:
            session.keys = ""
        changed = session.engine == WEB and cold and CHANGE.holds(at)
        if changed or (dice.random() < faults.STUCK_START and self._reachable(at)):
            phases = ("injected",) if changed else faults.STUCK_PHASES[session.engine]
            session.phase = dice.choice(phases)
            self._account(session, at)
            return
        longest = 25.0 if session.engine == WEB and cold else 6.0
        slow = max(1.0, self.starting / faults.CAPACITY)
        takes = (
            dice.uniform(longest / 3, longest) * slow
            if self._reachable(at)
            else dice.uniform(1, 10)
        )
        crowded = len(self.recent_logins) > faults.LOGINS_A_MINUTE and dice.random() < 0.5
        turn = session.turn
        self.later(at + takes, partial(self._login, session, turn, at, crowded))

    def _login(self, session: Session, turn: int, begun: float, crowded: bool, at: float) -> None:
        if session.turn != turn:
            return
        if not (self._reachable(begun) and self._reachable(at)):
            self._drop(session, "connection_lost", at)
        elif crowded:
            self._drop(session, "service_unavailable", at)
        elif session.damaged:
            self._drop(session, "session_damaged", at)
        elif session.fate in ("logout", "banned"):
            self._drop(session, session.fate, at)
        elif session.banned_until > at:
            self._drop(session, "temporary_ban", at, session.banned_until)
        else:
            self._enter(session, "connected", at)
            self.supervising.changed(session, at)
            if session.fate == "foreign_owner":
                turn = session.turn
                self.later(at + 20, partial(self._drop_if, session, turn, "conflict"))

    def _count_login(self, session: Session, at: float) -> None:
        self.tally.logins[int(at // 60)] += 1
        self.recent_logins.append(at)
        while self.recent_logins[0] < at - 60:
            self.recent_logins.popleft()
        self.tally.worst_minute = max(self.tally.worst_minute, len(self.recent_logins))
        if session.fate in ("logout", "banned") or session.banned_until > at:
            self.tally.hammered += 1

    def _reachable(self, at: float) -> bool:
        return not any(span.holds(at) for span in (*self.network, *OUTAGES))

    def _fault(self, session: Session, kind: str, at: float) -> None:
        if session.fate:
            return
        if kind == "damaged":
            session.damaged = True
            session.fate = "" if session.restorable else "damaged_for_good"
            kind = "crash"
        if kind in ("logout", "ban", "foreign_owner"):
            session.fate = "banned" if kind == "ban" else kind
            kind = {"ban": "banned", "foreign_owner": "conflict"}.get(kind, kind)
        if kind == "temporary_ban":
            session.banned_until = at + self.dice.uniform(1, 6) * 3600
        if session.state != "connected" and kind not in ("crash", "reload"):
            return
        if kind in ("crash", "reload"):
            if session.state != "off":
                self._enter(session, "off", at)
                self.supervising.crashed(session, at)
        elif kind == "zombie":
            session.silent_since = at
            self._account(session, at)
            self.supervising.fell_silent(session, at)
        elif kind.startswith("keys_"):
            session.keys = kind.removeprefix("keys_")
            self._account(session, at)
            self.supervising.keys_failed(session, at)
        elif kind == "temporary_ban":
            self._drop(session, kind, at, session.banned_until)
        else:
            self._drop(session, "connection_lost" if kind == "drop" else kind, at)

    def _network_gone(self, at: float) -> None:
        for session in self.sessions:
            if session.state == "connected" and session.silent_since is None:
                turn, seen = session.turn, at + self.dice.uniform(1, 20)
                self.later(seen, partial(self._drop_if, session, turn, "connection_lost"))

    def _reboot(self, at: float) -> None:
        for session in self.sessions:
            self._enter(session, "off", at)
        self.later(at + 45, self.supervising.boot)

    def _drop_if(self, session: Session, turn: int, reason: str, at: float) -> None:
        if session.turn == turn:
            self._drop(session, reason, at)

    def _drop(self, session: Session, reason: str, at: float, until: float | None = None) -> None:
        self._enter(session, "dropped", at)
        session.reason, session.until = reason, until
        self._account(session, at)
        self.supervising.changed(session, at)

    def _enter(self, session: Session, state: str, at: float) -> None:
        self.starting += (state == "starting") - (session.state == "starting")
        session.state, session.since = state, at
        session.turn += 1
        session.reason, session.until, session.phase, session.silent_since = "", None, "", None
        self._account(session, at)

    # --- accounts ---------------------------------------------------------------------------

    def _account(self, session: Session, at: float) -> None:
        """Book the time since the last change under the condition that held."""
        before, since = session.condition, session.condition_since
        away = self._away(session, since, at) if before in WAITING else 0.0
        self.tally.seconds[before] += at - since - away
        self.tally.seconds["out of reach"] += away
        if before in WAITING or before == "zombie":
            self.tally.down.add(since, at)
        session.condition, session.condition_since = self._condition(session, at), at
        serves = session.condition in ("serving", "keys failing")
        if serves and session.down_since is not None:
            if not self._excused(session, at):
                self.tally.episodes += 1
                self.tally.recovered += 1
                away = self._away(session, session.down_since, at)
                self.tally.back_after.append(at - session.down_since - away)
            session.down_since = None
        elif not serves and session.down_since is None:
            session.down_since = at

    def _away(self, session: Session, begin: float, end: float) -> float:
        """Seconds in which nobody at all could have brought this session back."""
        return sum(
            max(min(span.end, end) - max(span.begin, begin), 0.0)
            for span in self.away[session.engine]
        )

    def _condition(self, session: Session, at: float) -> str:
        if session.fate and session.state != "connected":
            return "needs a person"
        if session.silent_since is not None:
            return "zombie"
        if session.state == "connected":
            return "keys failing" if session.keys else "serving"
        if session.banned_until > at:
            return "banned for a time"
        if session.state == "starting":
            return "stuck" if session.phase else "starting"
        return "down"

    def _excused(self, session: Session, at: float) -> bool:
        """An end of the day, a person's case or a ban: nothing that supervising could cure."""
        late = session.down_since is not None and session.down_since > DAY - SETTLING_IN
        return late or session.fate in PERSON or session.banned_until > at
