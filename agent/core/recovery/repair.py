"""What a repair is: a value that says what it is for and how far it has come. The store keeps it,
so a repair outlives the agent that began it."""

from dataclasses import dataclass, replace
from enum import StrEnum

from agent.core.model import HealthVerdict, Observation
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
    NO_STEP = "no_step"
    """Over before a step was tried: it got well by itself, or nothing that is wrong has a cure."""
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
        """What ensure_healthy returns once the repair is over; of one without a step the verdict
        says whether the session is healthy."""
        good = self.ending in (Ending.RECOVERED, Ending.CLEANED)
        recovered = self.ending is Ending.RECOVERED
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


def begin_step(repair: Repair, now_wall: float) -> Repair:
    return replace(repair, stage=Stage.ACTING, stage_wall=now_wall, acts=repair.acts + 1)


def delay_step(repair: Repair, now_wall: float, wait: float) -> Repair:
    return replace(repair, stage=Stage.DUE, stage_wall=now_wall, not_before_wall=now_wall + wait)
