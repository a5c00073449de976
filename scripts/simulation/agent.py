"""Supervising with the agent's own core: the same functions as in production, in virtual time.

Only the edges differ: facts come from the simulated machine instead of systemd and the link.
"""

from dataclasses import replace

from agent.core.admission import Candidate, restore_order
from agent.core.findings.crypto import judge_crypto
from agent.core.findings.crypto_patterns import CryptoFinding, Effect
from agent.core.findings.crypto_window import CryptoPolicy, note_error
from agent.core.health.judge import judge_health
from agent.core.health.policy import HealthPolicy
from agent.core.model import (
    Claim,
    ClaimFact,
    ConnectionStatus,
    Desired,
    Health,
    HealthVerdict,
    InstanceId,
    Observation,
    ProbeFact,
    SessionFiles,
    SessionRecord,
    Signal,
    UnitState,
    UnitStatus,
)
from agent.core.network.reach import UNREACHABLE
from agent.core.phases import is_light
from agent.core.plan import ActionKind
from agent.core.reconcile import next_deadline, plan_actions
from agent.core.reconnect import (
    after_connected,
    after_drop,
    after_try,
    forgive,
    not_before,
    spare_unreached,
)
from agent.core.recovery.beginning import begin_repair, wants_repair
from agent.core.recovery.policy import RecoveryPolicy
from agent.core.recovery.repair import Case, Circumstances, Goal, RecoveryKind
from agent.core.recovery.steps import after_action, step_repair
from agent.core.waiting import AWAY
from scripts.simulation.backends import Backends
from scripts.simulation.crowd import Crowd
from scripts.simulation.faults import REMOTE, WEB
from scripts.simulation.known import WALL, Known
from scripts.simulation.lanes import ELSEWHERE, STARTS, Lane
from scripts.simulation.places import Place
from scripts.simulation.reaches import Reaches
from scripts.simulation.session import Session
from scripts.simulation.world import Machine

PING = 30.0
"""Seconds between two pings: [health] interval."""
LOGS_IN = frozenset(
    {
        RecoveryKind.RECONNECT,
        RecoveryKind.RESTART,
        RecoveryKind.RESTORE,
        RecoveryKind.LOGOUT_RESTART,
        RecoveryKind.CLEANUP,
    }
)

# The slow tick looks again at unchanged sessions; here every change wakes a pass.
HEALTH = HealthPolicy(interval=1e9)
RECOVERY = RecoveryPolicy()
CRYPTO = CryptoPolicy()

ON = Desired(True)
PROBED = ProbeFact(True, 0.0, 0.1)
STATUS = {
    "starting": ConnectionStatus.LOADING,
    "connected": ConnectionStatus.CONNECTED,
    "dropped": ConnectionStatus.DISCONNECTED,
    "asks": ConnectionStatus.QR_REQUIRED,
}


_DROPPED = ConnectionStatus.DISCONNECTED


class Agent:
    starts = STARTS
    ping = PING

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        every = [Known.of(session) for session in machine.sessions]
        self._known = {known.instance.id: known for known in every}
        self._of = {known.session.number: known for known in every}
        self._reaches = Reaches(machine, self._pass, self._reach_changed)
        self._crowd = Crowd(machine, self._known, self._pass, self._look_again, self._reaches.away)
        sessions = {known.instance.id: known.session for known in every}
        policies = {"": self.starts} | {backend.name: ELSEWHERE for backend in machine.backends}
        self._lanes = {
            name: Lane(machine, policy, sessions, self._begin) for name, policy in policies.items()
        }
        self._backends = Backends(machine, every, self._pass)

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
        first = at + self._machine.dice.uniform(0, self.ping)
        for number in range(HEALTH.zombie_pings):
            self._look_again(self._of[session.number], session.turn, first + number * self.ping)

    def keys_failed(self, session: Session, at: float) -> None:
        """Messages that cannot be read keep coming until the keys fit."""
        known = self._of[session.number]
        for peer in ["491"] * 3 if session.keys == "peer" else [f"49{n}" for n in range(6)]:
            finding = CryptoFinding("bad_mac", Effect.COUNTS, peer)
            known.crypto = note_error(known.crypto, finding, CRYPTO, at)
        self._pass(known, at)

    def backend_gone(self, backend: Place, at: float) -> None:
        self._backends.gone(backend, at)

    def backend_back(self, backend: Place, at: float) -> None:
        self._backends.back(backend, at)

    def _reach_changed(self, sessions: list[Known], back: bool, at: float) -> None:
        self._crowd.reach_changed(sessions, back, at)

    def _look_again(self, known: Known, turn: int | None, at: float) -> None:
        def look(now: float) -> None:
            if turn is None or known.session.turn == turn:
                self._pass(known, now)

        self._machine.later(at, look)

    # --- one pass ---------------------------------------------------------------------------

    def _pass(self, known: Known, at: float) -> None:
        self._machine.tally.passes += 1
        if self._backends.say_nothing(known):
            return
        observation = self._observe(known, at)
        verdict = judge_health(observation, HEALTH, at)
        if observation.wait_reason not in AWAY and self._remember(known, observation, verdict, at):
            observation = self._observe(known, at)
            verdict = judge_health(observation, HEALTH, at)
            self._lanes[known.session.place.name].settled(known.instance.id, at)
        if observation.claim is not None and is_light(observation.claim.claim):
            self._lanes[known.session.place.name].is_light(known.instance.id, at)
        self._crowd.judged(known, verdict, at)
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
            self._look_by(known, later, at)

    def _look_by(self, known: Known, when: float, at: float) -> None:
        """As the agent's loop: one moment for each session at which it is due, the nearest."""
        if at < known.due <= when:
            return
        known.due = when

        def look(now: float) -> None:
            if known.due == when:
                known.due = 0.0
                self._pass(known, now)

        self._machine.later(when, look)

    def _observe(self, known: Known, at: float) -> Observation:
        session, record = known.session, known.record
        runs = session.state != "off"
        wait_reason = self._backends.wait_reason(known, at) or self._reaches.wait_reason(known, at)
        wait_reason = wait_reason or self._crowd.wait_reason(known)
        if wait_reason == UNREACHABLE:
            record = spare_unreached(record, HEALTH.reconnect, WALL + at)
            known.record = record
        return Observation(
            known.instance,
            ON,
            record,
            UnitStatus(UnitState.ACTIVE if runs else UnitState.INACTIVE, since=session.since),
            at,
            session.since if runs else None,
            self._claim(session, at) if runs else None,
            self._probe(session, at) if runs else None,
            self._files(session, record),
            None,
            at if known.at_once else not_before(record, HEALTH.reconnect, at, WALL + at),
            WALL + at,
            self._signals(known, at),
            wait_reason,
            back_at=self._reaches.back_at(known),
        )

    def _files(self, session: Session, record: SessionRecord) -> SessionFiles:
        if session.damaged:
            return SessionFiles.DAMAGED
        # A server's files are not here: what is recorded is all that is known of them.
        whole = session.engine != REMOTE or record.paired
        return SessionFiles.WHOLE if whole else SessionFiles.UNPAIRED

    def _claim(self, session: Session, at: float) -> ClaimFact:
        silent = 0.0 if session.silent_since is None else at - session.silent_since
        status, phase = STATUS[session.state], ""
        if session.state == "starting":
            phase = session.phase or ("loaded" if session.heavy else "sync")
            if session.engine == REMOTE:  # a server tells no phases
                status, phase = ConnectionStatus.INITIALIZING, ""
        claim = Claim(
            status,
            session.reason,
            phase,
            proof_age=silent,
            paired=session.state == "connected",
            until_wall=None if session.until is None else WALL + session.until,
            useless=("reconnect",) if session.engine == REMOTE and status is not _DROPPED else (),
        )
        return ClaimFact(claim, at, session.since, session.since)

    def _probe(self, session: Session, at: float) -> ProbeFact:
        if session.silent_since is None:
            return PROBED
        failures = int((at - session.silent_since) // self.ping) + 1
        return ProbeFact(False, at, 10.0, failures)

    def _signals(self, known: Known, at: float) -> tuple[Signal, ...]:
        """While the keys do not fit, the errors of the last minutes are as they were."""
        if not known.session.keys:
            return ()
        signal = judge_crypto(known.crypto, CRYPTO, known.crypto.slots[-1].at).signal
        return (signal,) if signal else ()

    def _remember(
        self, known: Known, observation: Observation, verdict: HealthVerdict, at: float
    ) -> bool:
        """Take in a new claim or a new stuck verdict; True when the record changed."""
        session, wall = known.session, WALL + at
        if verdict.health is Health.STUCK and known.failed_turn != session.turn:
            known.failed_turn = session.turn
            self._reaches.failed(known, "start_stuck", at)
            self._crowd.failed(known, verdict.reason, at)
        if known.seen_turn == session.turn:
            return False
        known.seen_turn = session.turn
        if session.state == "connected":
            known.record, known.at_once = after_connected(known.record, wall), False
            self._reaches.succeeded(known, at)
            self._crowd.succeeded(known, at)
            return True
        if session.state == "dropped":
            jitter = self._machine.dice.random()
            until = None if session.until is None else WALL + session.until
            known.record = after_drop(
                known.record,
                session.reason,
                HEALTH.reconnect,
                wall,
                jitter,
                until_wall=until,
                ours=not observation.wait_reason
                or known.record.status is ConnectionStatus.CONNECTED,
            )
            self._reaches.failed(known, session.reason, at)
            self._crowd.failed(known, session.reason, at)
            return True
        return False

    def _recover(
        self, known: Known, observation: Observation, verdict: HealthVerdict, at: float
    ) -> float | None:
        """One step of the repair, if there is one; when to look again for its sake."""
        wall = WALL + at
        if known.repair is None or known.repair.over:
            released = self._crowd.released_wall(known)
            if not wants_repair(verdict, known.repair, RECOVERY, wall, released_wall=released):
                return None
            known.repair = begin_repair(verdict, Goal.HEAL, wall)
        peers = judge_crypto(known.crypto, CRYPTO, at).peers if known.session.keys else ()
        around = Circumstances(
            well=self._crowd.well(known) and observation.wait_reason not in {*AWAY, UNREACHABLE},
            odd_one_out=self._crowd.odd_one_out(known, at),
            another_connected=self._crowd.another_connected(known),
            canary=not observation.wait_reason,
            can_log_out=bool(known.instance.backend),
            good_snapshot=known.session.restorable,
            may_roll_back=known.instance.engine == WEB,
            peers=peers or (("account",) if known.session.keys else ()),
        )
        case = Case(observation, verdict, around, RECOVERY, wall)
        repair, action = step_repair(case, known.repair)
        if action.idle:
            self._crowd.nothing_to_try(known, at)
        if action.kind in LOGS_IN and (wait := self._ask_for_step(known, action.kind, at)):
            known.repair = replace(known.repair, calm=repair.calm)
            return wait
        known.repair = repair
        if action.kind is RecoveryKind.WAIT:
            return action.not_before_wall - WALL
        if known.repair.over:
            return None
        ok = self._carry_out(known, action.kind, at)
        if not ok:
            self._backends.called_in_vain(known, at)
        known.repair = after_action(
            known.repair, action.kind, ok, RECOVERY, wall, backup="snapshot"
        )
        return at + 0.01

    def _ask_for_step(self, known: Known, kind: RecoveryKind, at: float) -> float | None:
        """The same for a step of a repair, which also waits for its turn."""
        if (wait := self._ask(known, at)) is not None:
            return wait
        if known.has_turn:
            known.has_turn = False
            return None
        reconnects = kind is RecoveryKind.RECONNECT
        lane = self._lanes[known.session.place.name]
        lane.wait(known.instance.id, ActionKind.CONNECT if reconnects else ActionKind.START, at)
        self._machine.later(at, lane.admit)
        return at + 5.0

    def _ask(self, known: Known, at: float) -> float | None:
        """None: what it needs can be reached. A time: ask again then, or when it is woken."""
        wait = self._reaches.ask(known, at)
        return self._backends.ask(known, at) if wait is None else wait

    def _carry_out(self, known: Known, kind: RecoveryKind, at: float) -> bool:
        """Whether it could be done; whether it helped shows later."""
        session, machine = known.session, self._machine
        if kind is RecoveryKind.RECONNECT:
            return machine.connect(session, at)
        if kind is RecoveryKind.RESTART:
            return machine.start(session, at)
        if kind is RecoveryKind.REGENERATE_KEYS:
            return machine.renew_keys(session, at)
        if kind is RecoveryKind.RESTORE:
            known.record = forgive(known.record)
            return machine.restore(session, at)
        if kind in (RecoveryKind.CLEANUP, RecoveryKind.LOGOUT_RESTART):
            done = machine.begin_afresh(session, at)
            if done:
                known.record = replace(forgive(known.record), paired=False)
            return done
        return True

    def _plan(
        self, known: Known, observation: Observation, verdict: HealthVerdict, at: float
    ) -> None:
        plan = plan_actions(observation, verdict, HEALTH, at, repair=known.repair)
        if plan is None or not plan.tries:
            return
        if (wait := self._ask(known, at)) is not None:
            self._look_by(known, wait, at)
            return
        lane = self._lanes[known.session.place.name]
        lane.wait(known.instance.id, ActionKind.START if plan.starts else ActionKind.CONNECT, at)
        lane.admit(at)

    def _begin(self, instance: InstanceId, at: float) -> None:
        """Its turn has come; what was true when it was queued need not be true any more."""
        known = self._known[instance]
        if self._backends.say_nothing(known):
            return
        observation = self._observe(known, at)
        verdict = judge_health(observation, HEALTH, at)
        plan = plan_actions(observation, verdict, HEALTH, at, repair=known.repair)
        if plan is None or not plan.tries:
            self._give_turn(known, at)
            return
        if (wait := self._backends.ask(known, at)) is not None:
            self._look_by(known, wait, at)
            return
        jitter, known.at_once = self._machine.dice.random(), False
        known.record = after_try(known.record, HEALTH.reconnect, WALL + at, jitter)
        begin = self._machine.start if plan.starts else self._machine.connect
        if not begin(known.session, at):
            self._backends.called_in_vain(known, at)
        self._lanes[known.session.place.name].begun(instance, at)
        self._pass(known, at)

    def _give_turn(self, known: Known, at: float) -> None:
        """To the step of its repair, which begins in this pass if it is still to be done."""
        turn, known.has_turn = known.session.turn, True
        self._pass(known, at)
        if known.session.turn != turn:
            self._lanes[known.session.place.name].begun(known.instance.id, at)
        known.has_turn = False
