"""Supervising with the agent's own core: the same functions as in production, in virtual time.

Only the edges differ: facts come from the simulated machine instead of systemd and the link.
"""

from collections import deque
from dataclasses import dataclass, field, replace
from functools import partial

from agent.core.admission import (
    Bucket,
    Candidate,
    Gate,
    StartPolicy,
    admit,
    for_reconnects,
    restore_order,
)
from agent.core.crypto import CryptoPolicy, CryptoWindow, judge_crypto, note_error
from agent.core.crypto_patterns import CryptoFinding, Effect
from agent.core.health import HealthPolicy, judge_health
from agent.core.incident import (
    Failure,
    Incident,
    IncidentPolicy,
    canary_failed,
    choose_canary,
    find_incident,
    hold_of,
    join_incident,
    next_turn,
    odd_one_out,
)
from agent.core.model import (
    ActionKind,
    Claim,
    ClaimFact,
    ConnectionStatus,
    Desired,
    Health,
    HealthVerdict,
    Instance,
    InstanceId,
    Observation,
    ProbeFact,
    SessionFiles,
    SessionRecord,
    Signal,
    UnitState,
    UnitStatus,
)
from agent.core.reconcile import next_deadline, plan_actions
from agent.core.reconnect import after_connected, after_drop, after_try, forgive, not_before
from agent.core.recovery import after_action, step_repair
from agent.core.repair import (
    Case,
    Circumstances,
    Goal,
    RecoveryKind,
    RecoveryPolicy,
    Repair,
    begin_repair,
    hurry_repair,
    needs_repair,
    wants_repair,
)
from scripts.simulation.faults import CAPACITY, WEB
from scripts.simulation.world import Machine, Session

WALL = 1_700_000_000.0
"""Virtual wall time at the day's midnight."""
PING = 30.0

# The slow tick looks again at what has not changed; here every change is told.
HEALTH = HealthPolicy(interval=1e9)
RECOVERY = RecoveryPolicy()
INCIDENT = IncidentPolicy()
STARTS = StartPolicy(parallel=CAPACITY)
RECONNECTS = for_reconnects(STARTS)
CRYPTO = CryptoPolicy()

ON = Desired(True)
PROBED = ProbeFact(True, 0.0, 0.1)
STATUS = {
    "starting": ConnectionStatus.LOADING,
    "connected": ConnectionStatus.CONNECTED,
    "dropped": ConnectionStatus.DISCONNECTED,
    "asks": ConnectionStatus.QR_REQUIRED,
}


@dataclass(slots=True, eq=False)
class Known:
    """What the agent keeps of one instance between its passes."""

    session: Session
    instance: Instance
    record: SessionRecord
    crypto: CryptoWindow = field(default_factory=CryptoWindow)
    repair: Repair | None = None
    seen_turn: int = -1
    failed_turn: int = -1
    """The turn for which a stuck verdict was already noted as a failure."""
    queued: ActionKind | None = None


class Agent:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._known = {
            InstanceId(f"i{session.number:03}"): Known(
                session,
                Instance(InstanceId(f"i{session.number:03}"), session.engine, True),
                SessionRecord(paired=True),
            )
            for session in machine.sessions
        }
        self._of = {known.session.number: known for known in self._known.values()}
        self._population = {
            engine: sum(known.instance.engine == engine for known in self._known.values())
            for engine in {known.instance.engine for known in self._known.values()}
        }
        self._gate = Gate(Bucket(STARTS.logins, 0.0))
        self._waiting: dict[InstanceId, Known] = {}
        self._admission_at = float("inf")
        self._failing: dict[str, dict[InstanceId, str]] = {
            engine: {} for engine in self._population
        }
        self._released: dict[str, float] = {}
        self._begun: dict[InstanceId, tuple[int, float]] = {}
        """Starts under way: the session's turn, and since when."""
        self._failures: deque[Failure] = deque()
        self._successes: dict[str, deque[float]] = {
            engine: deque(maxlen=100) for engine in self._population
        }
        self._incidents: dict[str, Incident] = {}

    # --- events wake ------------------------------------------------------------------------

    def boot(self, at: float) -> None:
        for instance in restore_order(Candidate(one) for one in self._known):
            self._pass(self._known[instance], at)

    def changed(self, session: Session, at: float) -> None:
        self._pass(self._of[session.number], at)

    def crashed(self, session: Session, at: float) -> None:
        """The host restarts a crashed worker by itself, at once; the agent sees a new run."""
        known, turn = self._of[session.number], session.turn

        def restart(now: float) -> None:
            if session.turn == turn:
                self._machine.start(session, now)
                self._pass(known, now)

        self._machine.later(at + 0.1, restart)

    def fell_silent(self, session: Session, at: float) -> None:
        """The pings go on at their own times; each that fails is looked at."""
        first = at + self._machine.dice.uniform(0, PING)
        for number in range(HEALTH.zombie_pings):
            self._look_again(self._of[session.number], session.turn, first + number * PING)

    def keys_failed(self, session: Session, at: float) -> None:
        """Messages that cannot be read keep coming until the keys fit."""
        known = self._of[session.number]
        for peer in ["491"] * 3 if session.keys == "peer" else [f"49{n}" for n in range(6)]:
            finding = CryptoFinding("bad_mac", Effect.COUNTS, peer)
            known.crypto = note_error(known.crypto, finding, CRYPTO, at)
        self._pass(known, at)

    def _look_again(self, known: Known, turn: int | None, at: float) -> None:
        def look(now: float) -> None:
            if turn is None or known.session.turn == turn:
                self._pass(known, now)

        self._machine.later(at, look)

    # --- one pass ---------------------------------------------------------------------------

    def _pass(self, known: Known, at: float) -> None:
        self._machine.tally.passes += 1
        observation = self._observe(known, at)
        verdict = judge_health(observation, HEALTH, at)
        if self._remember(known, verdict, at):
            observation = self._observe(known, at)
            verdict = judge_health(observation, HEALTH, at)
        self._note_failing(known, verdict)
        turn = known.session.turn
        wake = self._recover(known, observation, verdict, at)
        if known.session.turn == turn:
            self._plan(known, observation, verdict, at)
        later = next_deadline(observation, verdict, HEALTH, at)
        if verdict.healthy or later is None or later > at + 1e6:
            later = wake
        elif wake is not None:
            later = min(later, wake)
        if later is not None:
            self._look_again(known, known.session.turn if wake is None else None, later)

    def _observe(self, known: Known, at: float) -> Observation:
        session, record = known.session, known.record
        runs = session.state != "off"
        hold = self._hold(known)
        return Observation(
            known.instance,
            ON,
            record,
            UnitStatus(UnitState.ACTIVE if runs else UnitState.INACTIVE, since=session.since),
            at,
            session.since if runs else None,
            self._claim(session, at) if runs else None,
            self._probe(session, at) if runs else None,
            SessionFiles.WHOLE if not session.damaged else SessionFiles.DAMAGED,
            None,
            not_before(record, HEALTH.reconnect, at, WALL + at),
            WALL + at,
            self._signals(known, at),
            hold,
        )

    def _claim(self, session: Session, at: float) -> ClaimFact:
        silent = 0.0 if session.silent_since is None else at - session.silent_since
        claim = Claim(
            STATUS[session.state],
            session.reason,
            (session.phase or "sync") if session.state == "starting" else "",
            proof_age=silent,
            paired=session.state == "connected",
            until_wall=None if session.until is None else WALL + session.until,
        )
        return ClaimFact(claim, at, session.since, session.since)

    def _probe(self, session: Session, at: float) -> ProbeFact:
        if session.silent_since is None:
            return PROBED
        failures = int((at - session.silent_since) // PING) + 1
        return ProbeFact(False, at, 10.0, failures)

    def _signals(self, known: Known, at: float) -> tuple[Signal, ...]:
        """While the keys do not fit, the errors of the last minutes are as they were."""
        if not known.session.keys:
            return ()
        signal = judge_crypto(known.crypto, CRYPTO, known.crypto.slots[-1].at).signal
        return (signal,) if signal else ()

    def _note_failing(self, known: Known, verdict: HealthVerdict) -> None:
        failing = self._failing[known.instance.engine]
        if needs_repair(verdict):
            failing[known.instance.id] = verdict.reason
        elif verdict.healthy:
            failing.pop(known.instance.id, None)

    def _remember(self, known: Known, verdict: HealthVerdict, at: float) -> bool:
        """Take in a new claim or a new stuck verdict; True when the record changed."""
        session, wall = known.session, WALL + at
        if verdict.health is Health.STUCK and known.failed_turn != session.turn:
            known.failed_turn = session.turn
            self._failed(known, verdict.reason, at)
        if known.seen_turn == session.turn:
            return False
        known.seen_turn = session.turn
        if session.state == "connected":
            known.record = after_connected(known.record, wall)
            self._succeeded(known, at)
            return True
        if session.state == "dropped":
            jitter = self._machine.dice.random()
            until = None if session.until is None else WALL + session.until
            known.record = after_drop(
                known.record, session.reason, HEALTH.reconnect, wall, jitter, until_wall=until
            )
            self._failed(known, session.reason, at)
            return True
        return False

    def _recover(
        self, known: Known, observation: Observation, verdict: HealthVerdict, at: float
    ) -> float | None:
        """One step of the repair, if there is one; when to look again for its sake."""
        wall, engine = WALL + at, known.instance.engine
        if known.repair is None or known.repair.over:
            released = self._released.get(engine, 0.0)
            if not wants_repair(verdict, known.repair, RECOVERY, wall, released_wall=released):
                return None
            known.repair = begin_repair(verdict, Goal.HEAL, wall)
        peers = judge_crypto(known.crypto, CRYPTO, at).peers if known.session.keys else ()
        around = Circumstances(
            well=engine not in self._incidents,
            odd_one_out=odd_one_out(
                known.instance.id, self._failing[engine], self._population[engine], INCIDENT
            ),
            canary=not observation.hold,
            good_snapshot=known.session.restorable,
            may_roll_back=engine == WEB,
            peers=peers or (("account",) if known.session.keys else ()),
        )
        case = Case(observation, verdict, around, RECOVERY, wall)
        known.repair, action = step_repair(case, known.repair)
        if action.kind is RecoveryKind.WAIT:
            return action.not_before_wall - WALL
        if known.repair.over:
            return None
        self._carry_out(known, action.kind, at)
        known.repair = after_action(
            known.repair, action.kind, True, RECOVERY, wall, backup="snapshot"
        )
        return at + 0.01

    def _carry_out(self, known: Known, kind: RecoveryKind, at: float) -> None:
        session, machine = known.session, self._machine
        if kind in (RecoveryKind.RECONNECT, RecoveryKind.RESTART):
            (machine.connect if kind is RecoveryKind.RECONNECT else machine.start)(session, at)
        elif kind is RecoveryKind.REGENERATE_KEYS:
            machine.renew_keys(session, at)
        elif kind is RecoveryKind.RESTORE:
            known.record = forgive(known.record)
            machine.restore(session, at)
        elif kind is RecoveryKind.CLEANUP:
            known.record = replace(forgive(known.record), paired=False)
            machine.begin_afresh(session, at)

    def _plan(
        self, known: Known, observation: Observation, verdict: HealthVerdict, at: float
    ) -> None:
        actions = plan_actions(observation, verdict, HEALTH, at, ladder=True, repair=known.repair)
        for action in actions:
            if action.kind is ActionKind.STOP:
                continue
            connects = action.kind is ActionKind.CONNECT
            known.queued = ActionKind.CONNECT if connects else ActionKind.START
            self._waiting.setdefault(known.instance.id, known)
        if actions:
            self._admit(at)

    # --- starts, spread over time -------------------------------------------------------------

    def _admit(self, at: float) -> None:
        again = at + STARTS.stagger
        for kind, policy in ((ActionKind.CONNECT, RECONNECTS), (ActionKind.START, STARTS)):
            waiting = [one for one, known in self._waiting.items() if known.queued is kind]
            if not waiting:
                continue
            under_way = self._under_way(at)
            gate = replace(self._gate, under_way=under_way)
            outcome = admit(waiting, gate, policy, at, idle=under_way == 0)
            self._gate = outcome.gate
            again = min(again, outcome.ask_again or again)
            for instance in outcome.admitted:
                self._begin(self._waiting.pop(instance), at)
        if self._waiting:
            self._ask_again(again, at)

    def _under_way(self, at: float) -> int:
        """Starts that have come to nothing yet; a stuck one does not hold the others for ever."""
        self._begun = {
            one: (turn, since)
            for one, (turn, since) in self._begun.items()
            if self._known[one].session.turn == turn and at - since < 60.0
        }
        return len(self._begun)

    def _ask_again(self, when: float, at: float) -> None:
        if at < self._admission_at <= when:
            return
        self._admission_at = when = max(when, at + 0.05)

        def ask(now: float) -> None:
            if now >= self._admission_at:
                self._admission_at = float("inf")
                self._admit(now)

        self._machine.later(when, ask)

    def _begin(self, known: Known, at: float) -> None:
        """Its turn has come; what was true when it was queued need not be true any more."""
        observation = self._observe(known, at)
        verdict = judge_health(observation, HEALTH, at)
        kinds = [
            action.kind
            for action in plan_actions(
                observation, verdict, HEALTH, at, ladder=True, repair=known.repair
            )
        ]
        if not kinds:
            return
        jitter = self._machine.dice.random()
        known.record = after_try(known.record, HEALTH.reconnect, WALL + at, jitter)
        if kinds[-1] is ActionKind.CONNECT:
            self._machine.connect(known.session, at)
        else:
            self._machine.start(known.session, at)
        self._begun[known.instance.id] = (known.session.turn, at)
        self._pass(known, at)

    # --- what many share ------------------------------------------------------------------------

    def _hold(self, known: Known) -> str:
        engine = known.instance.engine
        fresh = known.session.state in ("off", "starting")
        return hold_of(self._incidents.get(engine), known.instance.id, engine, fresh=fresh)

    def _failed(self, known: Known, code: str, at: float) -> None:
        engine = known.instance.engine
        failure = Failure(known.instance.id, engine, code, at)
        incident = self._incidents.get(engine)
        if incident is not None:
            incident = join_incident(incident, failure)
            if failure.instance == incident.canary:
                incident = canary_failed(incident, INCIDENT, at)
            self._incidents[engine] = incident
            self._turn_later(engine, at)
            return
        self._failures.append(failure)
        while self._failures[0].at < at - INCIDENT.window:
            self._failures.popleft()
        found = find_incident(self._failures, self._population, self._successes, INCIDENT, at)
        if found is not None:
            self._incidents[found.group] = found
            self._turn_later(found.group, at)

    def _turn_later(self, engine: str, at: float) -> None:
        when = next_turn(self._incidents[engine], INCIDENT, at)
        self._machine.later(max(when, at + 0.05), partial(self._give_turn, engine))

    def _give_turn(self, engine: str, at: float) -> None:
        before = self._incidents.get(engine)
        if before is None or at < next_turn(before, INCIDENT, at):
            return
        down = [one for one in before.members if self._known[one].session.state != "connected"]
        if not down:
            self._release(engine, at)
            return
        self._incidents[engine] = incident = choose_canary(before, down, INCIDENT, at)
        self._turn_later(engine, at)
        if incident.canary is not None:
            canary = self._known[incident.canary]
            # It tries for all: its own delays and rounds may wait no longer.
            canary.record = replace(canary.record, not_before_wall=0.0)
            if canary.repair is not None and not canary.repair.over:
                canary.repair = hurry_repair(canary.repair)
            self._pass(canary, at)

    def _succeeded(self, known: Known, at: float) -> None:
        engine = known.instance.engine
        incident = self._incidents.get(engine)
        if incident is None:
            self._successes[engine].append(at)
        elif incident.canary == known.instance.id:
            self._release(engine, at)

    def _release(self, engine: str, at: float) -> None:
        del self._incidents[engine]
        self._released[engine] = WALL + at
        self._failures = deque(one for one in self._failures if one.group != engine)
        for known in self._known.values():
            if known.instance.engine == engine and known.session.state != "connected":
                if known.repair is not None:
                    known.repair = hurry_repair(known.repair)
                self._look_again(known, None, at + 0.05)
