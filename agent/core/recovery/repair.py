"""What a repair is: a value that says what it is for and how far it has come. The store keeps it,
so a repair outlives the agent that began it."""

from dataclasses import dataclass, replace
from enum import StrEnum

from agent.core.breaker import remaining
from agent.core.model import Health, HealthVerdict, Observation
from agent.core.recovery.policy import RecoveryPolicy
from agent.core.recovery.proof import Consent, Proof


class Goal(StrEnum):
    """Why a repair runs, from the least to the most that it may do."""

    HEAL = "heal"
    """By the agent itself: several rounds, a live pairing given up last if at all."""
    RECOVER = "recover"
    """Asked for: one round of what keeps the pairing."""
    WORKING_QR = "working_qr"
    """Asked for: one round, down to a new pairing."""
    CLEANUP = "cleanup"
    """Asked for: a clean-up at once."""


class Trouble(StrEnum):
    CONNECTION = "connection"
    KEYS = "keys"
    FILES = "files"
    SUSPECT = "suspect"


class RecoveryKind(StrEnum):
    """RESTART and each harsher step ends with a new worker. RESTORE, LOGOUT_RESTART and CLEANUP
    also forgive the record (reconnect.forgive), the last two with `paired` false. Each can be
    repeated.
    """

    NONE = "none"
    WAIT = "wait"
    RECONNECT = "reconnect"
    RESTART = "restart"
    REGENERATE_KEYS = "regenerate_keys"
    BACK_UP = "back_up"
    RESTORE = "restore"
    LOGOUT_RESTART = "logout_restart"
    CLEANUP = "cleanup"
    GIVE_UP = "give_up"


class Stage(StrEnum):
    DUE = "due"
    """The next try comes at `not_before_wall`."""
    ACTING = "acting"
    """A step was begun and has not reported."""
    SETTLING = "settling"
    """A step was done; its effect must show."""


class Ending(StrEnum):
    NOT_YET = ""
    RECOVERED = "recovered"
    CLEANED = "cleaned"
    NEEDS_SCAN = "needs_scan"
    """No try brought a suspect back: publish that it needs a scan, with the evidence."""
    NEEDS_PERSON = "needs_person"
    GAVE_UP = "gave_up"
    NOT_WANTED = "not_wanted"


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What deciding needs beside the instance itself."""

    well: bool = True
    """Its backend and the network are well and its engine is in no incident."""
    odd_one_out: bool = True
    """No other instance of its engine fails alike, nor of those with its proxy
    (incident.odd_one_out)."""
    another_connected: bool = True
    """Another instance of its engine is connected: on its backend, and by its proxy or none."""
    canary: bool = False
    """In an incident it is the canary: it tries for the others, gently as ever."""
    can_log_out: bool = False
    """The engine supports logging out and starting again (remote ones)."""
    good_snapshot: bool = False
    may_roll_back: bool = False
    """The engine's session survives going back in time (a browser profile, not key files)."""
    peers: tuple[str, ...] = ()
    finds_records: bool = False
    """The engine can find a session's damaged records by reading them, where no peer is named."""
    reads: bool = False
    """It read messages since its keys began to fail, or its engine does not tell."""


@dataclass(frozen=True, slots=True)
class Repair:
    """One repair of one instance: what it is for and how far it has come."""

    trouble: Trouble
    reason: str
    """The verdict's reason that began it."""
    goal: Goal
    started_wall: float
    consent: Consent = Consent.NONE
    """What the person who asked for it confirmed."""
    step: RecoveryKind = RecoveryKind.NONE
    tries: int = 0
    """Tries of `step` so far, the one under way included."""
    done: bool = False
    """The last try of `step` was carried out, with or without an effect."""
    round: int = 1
    calm: bool = True
    """All through this round the cause could only be its own (ladder.is_calm)."""
    stage: Stage = Stage.DUE
    not_before_wall: float = 0.0
    stage_wall: float = 0.0
    """When the present stage began."""
    backup: str = ""
    """The name of the confirmed backup of before this round's first destructive step."""
    backup_tries: int = 0
    cleaned: bool = False
    unpaired: bool = False
    """A step of this repair ended the pairing: the repair goes on until a code is shown."""
    had_pairing: bool = False
    """A step that ends a pairing began while there was one: the repair owes a code."""
    nothing_tried: bool = False
    """The last round had no step to try: one that comes up since waits for no pause."""
    restarted: bool = False
    """A restart was carried out, in any round."""
    regenerated: bool = False
    """New keys were tried in this round."""
    acts: int = 0
    resumed: int = 0
    joined: int = 0
    own: bool = False
    """The agent began it by itself: a request that joins it does not end it."""
    cleanup_owed: bool = False
    """Asked for after this round's clean-up, which is done once more before the repair ends."""
    ending: Ending = Ending.NOT_YET
    ended_wall: float = 0.0
    outlived: bool = False
    """It ended waiting for a person, and has been well since."""

    @property
    def over(self) -> bool:
        return self.ending is not Ending.NOT_YET

    @property
    def seconds(self) -> float:
        """From its begin until it had healed. Keys count as healed when no error came for a while
        after the last step: that while is no part of it."""
        proved_later = self.trouble is Trouble.KEYS and self.done and self.answer["healthy"]
        until = self.stage_wall if proved_later else self.ended_wall
        return max(until - self.started_wall, 0.0)

    @property
    def answer(self) -> dict[str, bool]:
        """What ensure_healthy returns once the repair is over."""
        good = self.ending in (Ending.RECOVERED, Ending.CLEANED)
        recovered = self.ending is Ending.RECOVERED and self.acts > 0
        cleaned = self.cleaned or self.unpaired
        return {"healthy": good, "cleaned": cleaned, "recovered": recovered}


@dataclass(frozen=True, slots=True)
class Case:
    """All that a decision about a repair is made from."""

    observation: Observation
    verdict: HealthVerdict
    circumstances: Circumstances
    policy: RecoveryPolicy
    now_wall: float


@dataclass(frozen=True, slots=True)
class Decision:
    kind: RecoveryKind
    reason: str
    """One sentence."""
    not_before_wall: float = 0.0
    """For WAIT: when to ask again at the latest."""
    proof: Proof | None = None
    """Why the pairing may end; None = the step keeps it."""
    idle: bool = False
    """The round has no step left to try."""


_TROUBLE_OF = {
    "session_damaged": Trouble.FILES,
    "session_missing": Trouble.FILES,
    "unpaired_suspect": Trouble.SUSPECT,
    "crypto_corrupted": Trouble.KEYS,
    "crypto_peer": Trouble.KEYS,
}
_MILD_REASONS = frozenset({"proof_old", "not_proved", "crypto_peer", "silent_inbound"})
_KEYS_STEP = RecoveryKind.REGENERATE_KEYS
_HARMLESS = (RecoveryKind.RECONNECT, RecoveryKind.RESTART)
_SETTLED = (Ending.RECOVERED, Ending.CLEANED, Ending.NEEDS_SCAN, Ending.NOT_WANTED)
"""After these the session is a new one, which needs a scan."""


def needs_repair(verdict: HealthVerdict) -> bool:
    """Whether the ladder has something to do (a plain drop is the reconnecting's)."""
    if verdict.reason == "session_unreadable":
        return False  # its content is unknown, so it is not to be replaced
    if verdict.health in (Health.STUCK, Health.CORRUPTED):
        return True
    return verdict.health is Health.DEGRADED and verdict.reason in _MILD_REASONS


def trouble_of(verdict: HealthVerdict) -> Trouble:
    return _TROUBLE_OF.get(verdict.reason, Trouble.CONNECTION)


def wants_repair(
    verdict: HealthVerdict,
    last: Repair | None,
    policy: RecoveryPolicy,
    now_wall: float,
    *,
    released_wall: float = 0.0,
) -> bool:
    """Whether the agent begins a repair by itself, after the last one (None: there was none).

    `released_wall`: when the last incident of its kind ended, or its turn as a canary began; a
    member that gave up before may try again.
    """
    if not needs_repair(verdict) or (last is not None and not last.over):
        return False
    if last is None or last.outlived or last.ending in _SETTLED:
        return True
    if trouble_of(verdict) is not last.trouble:
        return True
    if last.ending is not Ending.GAVE_UP:
        return False
    if last.ended_wall <= released_wall <= now_wall:
        return True
    if last.goal is not Goal.HEAL and not last.acts:
        return True  # a person asked before there was a step to try
    again = policy.keys_again if last.trouble is Trouble.KEYS else policy.again
    if last.goal is not Goal.HEAL:  # one round was asked for: the agent's own come after the pause
        again = min(again, policy.round_pause)
    if verdict.should_cleanup:  # no pairing to lose: it goes on until a code is shown
        again = policy.unpaired_pause
    return again > 0 and remaining(last.ended_wall + again, now_wall, again) <= 0


def outlive_repair(last: Repair, verdict: HealthVerdict) -> Repair:
    """It was well since the repair gave up: a later failure is a new one."""
    outlived = last.outlived or (last.ending is Ending.NEEDS_PERSON and verdict.healthy)
    return replace(last, outlived=outlived)


def begin_repair(
    verdict: HealthVerdict, goal: Goal, now_wall: float, consent: Consent = Consent.NONE
) -> Repair:
    trouble = trouble_of(verdict)
    own = goal is Goal.HEAL
    return Repair(trouble, verdict.reason, goal, now_wall, consent, stage_wall=now_wall, own=own)


def join_repair(repair: Repair, goal: Goal, consent: Consent = Consent.NONE) -> Repair:
    """A second request joins the repair; it may widen what the repair may do."""
    wider = max(repair.goal, goal, key=list(Goal).index)
    if not repair.cleaned:  # else the earlier word was for what is cleaned up by now
        consent = max(repair.consent, consent, key=list(Consent).index)
    if goal is not Goal.HEAL and repair.stage is Stage.DUE:
        # The caller waits for the answer: a delayed step is due now.
        repair = replace(repair, not_before_wall=0.0)
    owed = repair.cleaned and goal in (Goal.WORKING_QR, Goal.CLEANUP)
    owed = owed or repair.cleanup_owed
    return replace(repair, goal=wider, consent=consent, joined=repair.joined + 1, cleanup_owed=owed)


def lapse_order(repair: Repair) -> Repair:
    """What a person asked for is for now: later the agent goes on as by itself."""
    return replace(repair, goal=Goal.HEAL, consent=Consent.NONE, cleanup_owed=False)


def hurry_repair(repair: Repair, *, paired: bool) -> Repair:
    """It has its turn in an incident, or the incident is over: its next try is due now. What it
    tried while others failed alike was no failure of its own, so its round begins again; without
    a pairing it goes on to the step that makes a new session."""
    if repair.stage is not Stage.DUE:
        return repair
    repair = replace(repair, not_before_wall=0.0)
    if not paired or repair.trouble is not Trouble.CONNECTION or repair.step not in _HARMLESS:
        return repair
    return replace(repair, step=RecoveryKind.NONE, tries=0, done=False)


def resume_repair(repair: Repair, now_wall: float) -> Repair:
    """After the agent's own restart a step under way is done again, but not for ever. A person's
    word that waited for its step has lapsed: who gave it waits no more."""
    if repair.stage is not Stage.ACTING:
        waited = repair.consent is not Consent.NONE and not repair.had_pairing
        return lapse_order(repair) if waited and not repair.over else repair
    again = repair.resumed < 3
    return replace(
        repair,
        stage=Stage.DUE,
        stage_wall=now_wall,
        not_before_wall=now_wall,
        tries=max(repair.tries - 1, 0) if again else repair.tries,
        regenerated=repair.regenerated and not (again and repair.step is _KEYS_STEP),
        resumed=repair.resumed + 1,
    )
