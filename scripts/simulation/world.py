"""One machine with its sessions: what really happens, whatever anybody believes.

A way of supervising hears what could be seen (`changed`, `fell_silent`) and calls `start`,
`connect` and the cures; it never reads a session's fate. Of a session on a backend it hears
nothing while that cannot be asked, and whatever it calls comes to nothing.
"""

import heapq
import random
from collections.abc import Callable
from functools import partial

from scripts.simulation import faults
from scripts.simulation.faults import CHANGE, DAY, OUTAGES, REMOTE, SOCKET, WEB, Span
from scripts.simulation.places import Place, make_places
from scripts.simulation.session import Session, Supervising
from scripts.simulation.tally import Tally

SETTLING_IN = 600.0
"""What breaks in the last minutes of the day may come back after it; it is not counted."""

WAITING = frozenset({"down", "starting", "stuck"})
BY_ITSELF = frozenset({"connection_lost", "restart_required", "service_unavailable"})
"""After these a backend mostly connects again before an agent asks."""
PERSON = frozenset({"logout", "banned", "foreign_owner", "damaged_for_good", "unpaired"})


class Machine:
    """Plays one machine's day to one way of supervising."""

    stuck_share = faults.STUCK_START
    by_itself = faults.RECONNECTS_ITSELF
    capacity = faults.CAPACITY
    logins_a_minute = faults.LOGINS_A_MINUTE

    def __init__(self, seed: str, size: int, tally: Tally) -> None:
        self.dice = random.Random(seed)
        self.tally = tally
        self.here, self.backends = make_places(self.dice)
        self.sessions = [self._session(number) for number in range(size)]
        self.supervising: Supervising
        self._queue: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = 0
        for session in self.sessions:
            for at, kind in faults.instance_faults(self.dice, session.engine):
                self.later(at, partial(self._fault, session, kind))
        for place in (self.here, *self.backends):
            for span in (*place.cut.spans, *OUTAGES):
                self.later(span.begin, partial(self._network_gone, place))
            for span in place.unseen.spans:
                self.later(span.begin + self.dice.uniform(1, 10), self._notice(place, span))
                self.later(span.end + self.dice.uniform(1, 10), partial(self._is_back, place))
            for span in place.cut.spans if place.name else ():
                self.later(span.end, partial(self._server_starts, place))
        if self.dice.random() < faults.REBOOTS:
            self.later(faults.REBOOT_AT + self.dice.random() * 60, self._reboot)

    def _session(self, number: int) -> Session:
        chosen = self.dice.random()
        if chosen < faults.REMOTE_SHARE:
            place = self.backends[number % len(self.backends)]
            return Session(number, REMOTE, place, "dropped", reason="connection_lost")
        web = chosen < faults.REMOTE_SHARE + faults.WEB_SHARE
        return Session(number, WEB if web else SOCKET, self.here, restorable=web)

    def later(self, at: float, what: Callable[[float], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (at, self._count, what))

    def play(self) -> None:
        """The day, from the boot of the machine and of the backends at midnight."""
        for backend in self.backends:
            self._server_starts(backend, 0.0)
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

    # Each answers whether it could be asked at all.

    def start(self, session: Session, at: float) -> bool:
        """A new worker, whatever was there before; elsewhere, a restart over there."""
        if not self._asked(session, at):
            return False
        self.tally.restarts[int(at // 60)] += 1
        self._begin(session, at, cold=session.place is self.here)
        return True

    def connect(self, session: Session, at: float) -> bool:
        """The same worker connects again; a page that hangs mostly hangs on."""
        if not self._asked(session, at):
            return False
        if session.state == "starting" and session.phase:
            changed = session.phase == "injected" and CHANGE.holds(at)
            if changed or self.dice.random() < 0.7:
                return True
        self._begin(session, at, cold=False)
        return True

    def renew_keys(self, session: Session, at: float) -> bool:
        if not self._asked(session, at):
            return False
        if session.keys and self.dice.random() < (0.95 if session.keys == "peer" else 0.7):
            session.keys = ""
            self._account(session, at)
        return True

    def restore(self, session: Session, at: float) -> bool:
        session.damaged = False
        return self.start(session, at)

    def begin_afresh(self, session: Session, at: float) -> bool:
        """A cleanup: a person must scan now."""
        if not self._asked(session, at):
            return False
        if not session.fate:
            self.tally.unpaired += 1
            begun = at if session.down_since is None else session.down_since
            self.tally.unpaired_by_outage += bool(session.place.unseen.within(begun, at))
            session.fate = "unpaired"
        session.damaged, session.keys = False, ""
        self._enter(session, "asks", at)
        return True

    def _asked(self, session: Session, at: float) -> bool:
        asked = session.place.can_be_asked(at)
        self.tally.in_vain += not asked
        return asked

    # --- what happens -----------------------------------------------------------------------

    def _begin(self, session: Session, at: float, *, cold: bool) -> None:
        self._enter(session, "starting", at)
        self._count_login(session, at)
        dice = self.dice
        if cold and session.keys == "account" and dice.random() < 0.3:
            session.keys = ""
        changed = session.engine == WEB and cold and CHANGE.holds(at)
        place = session.place
        if changed or (dice.random() < self.stuck_share and place.reaches_whatsapp(at)):
            phases = ("injected",) if changed else faults.STUCK_PHASES[session.engine]
            session.phase = dice.choice(phases)
            self._load(session, session.phase in faults.HEAVY_PHASES)
            self._account(session, at)
            return
        longest = 25.0 if session.engine == WEB and cold else 6.0
        # Elsewhere all of a start loads the server.
        share = 1.0 if place is not self.here else faults.HEAVY[session.engine] if cold else 0.0
        self._load(session, share > 0)
        if place.reaches_whatsapp(at):
            takes, slow = dice.uniform(longest / 3, longest), place.starting / self.capacity
        else:
            takes, slow = dice.uniform(1, 10), 1.0
        heavy = takes * share * max(1.0, slow)
        takes = heavy + takes * (1 - share)
        crowded = len(place.recent_logins) > self.logins_a_minute and dice.random() < 0.5
        turn = session.turn
        if 0 < share < 1:
            self.later(at + heavy, partial(self._waits_for_whatsapp, session, turn))
        self.later(at + takes, partial(self._login, session, turn, at, crowded))

    def _load(self, session: Session, heavy: bool) -> None:
        session.place.starting += heavy - session.heavy
        session.heavy = heavy

    def _waits_for_whatsapp(self, session: Session, turn: int, at: float) -> None:
        if session.turn == turn:
            self._load(session, heavy=False)
            self._tell(session, at)

    def _login(self, session: Session, turn: int, begun: float, crowded: bool, at: float) -> None:
        if session.turn != turn:
            return
        if not (session.place.reaches_whatsapp(begun) and session.place.reaches_whatsapp(at)):
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
            self._tell(session, at)
            if session.fate == "foreign_owner":
                turn = session.turn
                self.later(at + 20, partial(self._drop_if, session, turn, "conflict"))

    def _count_login(self, session: Session, at: float) -> None:
        self.tally.logins[int(at // 60)] += 1
        recent = session.place.count_login(at)
        self.tally.worst_minute = max(self.tally.worst_minute, recent)
        if session.fate in ("logout", "banned") or session.banned_until > at:
            self.tally.hammered += 1

    def _tell(self, session: Session, at: float) -> None:
        if session.place.can_be_asked(at):
            self.supervising.changed(session, at)

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

    def _network_gone(self, place: Place, at: float) -> None:
        for session in self.sessions:
            connected = session.state == "connected" and session.silent_since is None
            if session.place is place and connected:
                turn, seen = session.turn, at + self.dice.uniform(1, 20)
                self.later(seen, partial(self._drop_if, session, turn, "connection_lost"))

    def _notice(self, place: Place, span: Span) -> Callable[[float], None]:
        def look(at: float) -> None:
            if at < span.end:
                self.supervising.backend_gone(place, at)

        return look

    def _is_back(self, place: Place, at: float) -> None:
        if place.can_be_asked(at):
            self.supervising.backend_back(place, at)

    def _server_starts(self, place: Place, at: float) -> None:
        """A backend begins the sessions that it had, by itself."""
        for session in self.sessions:
            if session.place is place and not session.fate and session.state != "connected":
                self._by_itself(session, at + self.dice.uniform(1, 30))

    def _by_itself(self, session: Session, when: float) -> None:
        turn = session.turn

        def begin(at: float) -> None:
            if session.turn == turn:
                self._begin(session, at, cold=False)
                self._tell(session, at)

        if self.dice.random() < self.by_itself:
            self.later(when, begin)

    def _reboot(self, at: float) -> None:
        for session in self.sessions:
            if session.place is self.here:
                self._enter(session, "off", at)
        self.later(at + 45, self.supervising.boot)

    def _drop_if(self, session: Session, turn: int, reason: str, at: float) -> None:
        if session.turn == turn:
            self._drop(session, reason, at)

    def _drop(self, session: Session, reason: str, at: float, until: float | None = None) -> None:
        self._enter(session, "dropped", at)
        session.reason, session.until = reason, until
        self._account(session, at)
        self._tell(session, at)
        elsewhere = session.place is not self.here and session.place.reaches_whatsapp(at)
        if elsewhere and reason in BY_ITSELF:
            self._by_itself(session, at + self.dice.uniform(1, 5))

    def _enter(self, session: Session, state: str, at: float) -> None:
        self._load(session, heavy=False)
        session.state, session.since = state, at
        session.turn += 1
        session.reason, session.until, session.phase, session.silent_since = "", None, "", None
        self._account(session, at)

    # --- accounts ---------------------------------------------------------------------------

    def _account(self, session: Session, at: float) -> None:
        """Book the time since the last change under the condition that held."""
        before, since = session.condition, session.condition_since
        away = self._away(session, since, at) if before in WAITING else ()
        self.tally.book(before, since, at, away)
        session.condition, session.condition_since = self._condition(session, at), at
        serves = session.condition in ("serving", "keys failing")
        if serves and session.down_since is not None:
            if not self._excused(session, at):
                self.tally.episodes += 1
                self.tally.recovered += 1
                spans = self._away(session, session.down_since, at)
                out_of_reach = sum(span.end - span.begin for span in spans)
                self.tally.back_after.append(at - session.down_since - out_of_reach)
            session.down_since = None
        elif not serves and session.down_since is None:
            session.down_since = at

    def _away(self, session: Session, begin: float, end: float) -> list[Span]:
        """The times in which no agent could have brought this session back."""
        return session.place.away[session.engine].within(begin, end)

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
